//! From the UI format to a graph: what ComfyUI's frontend does when a workflow is queued.
//!
//! Nodes that only exist on the screen (notes, reroutes, primitives, subgraphs) go, links are led
//! through them; so they are through bypassed nodes, while muted ones are simply not there. The
//! values of widgets, a bare list, get the names that their classes have for them.

use serde_json::Value as Json;

use super::flatten::{LinkKey, LinkStart, UiGraph, UiInput, UiNode, flatten};
use super::widgets::widgets;
use crate::workflow::graph::{Graph, Input, Loose, Node};
use crate::workflow::nodes::{self, ScreenOnly, screen_only};
use crate::{Error, ErrorKind, Result};

/// A node that is not run.
const MUTED: u64 = 2;
/// A node that is as if its inputs went straight to its outputs.
const BYPASSED: u64 = 4;

/// The graph of a workflow in the UI format.
///
/// # Errors
/// [`ErrorKind::File`] for nodes or links that make no sense.
pub(crate) fn graph(json: &Json) -> Result<Graph> {
    let screen = flatten(json)?;
    let mut graph = Graph::default();
    for shown in &screen.nodes {
        if !runs(&screen, shown) {
            graph.add_not_run(not_run(shown));
        } else if !graph.add(node(&screen, shown)?) {
            return Err(
                Error::new(ErrorKind::File, "two nodes have the same id").at(format!("node {}", shown.id))
            );
        }
    }
    Ok(graph)
}

/// Whether a node is a step of the work: neither muted nor bypassed, alone or with the subgraph it
/// is in, and no mere sign on the screen.
fn runs(screen: &UiGraph, node: &UiNode) -> bool {
    let mut scope = node.scope;
    while let Some(instance) = screen.scopes[scope].instance {
        if matches!(screen.nodes[instance].mode, MUTED | BYPASSED) {
            return false;
        }
        scope = screen.nodes[instance].scope;
    }
    node.inner.is_none() && screen_only(&node.class).is_none() && !matches!(node.mode, MUTED | BYPASSED)
}

/// A node that does not run, with the values that a file's name may contain.
fn not_run(shown: &UiNode) -> Node {
    let mut node = called(shown);
    match nodes::class(&shown.class) {
        Some(class) => node.inputs = widgets(class, shown).unwrap_or_default(),
        None => {
            let value = shown.listed().first().cloned();
            node.inputs.extend(value.map(|value| ("value".to_owned(), Input::Value(value))));
        }
    }
    node
}

/// A node with its names.
fn called(shown: &UiNode) -> Node {
    let mut node = Node::new(&shown.id, &shown.class);
    node.title.clone_from(&shown.title);
    node.alias.clone_from(&shown.alias);
    node.package.clone_from(&shown.package);
    node
}

fn node(screen: &UiGraph, shown: &UiNode) -> Result<Node> {
    let mut node = called(shown);
    let class = nodes::class(&shown.class);
    if let Some(class) = class {
        node.inputs = widgets(class, shown)?;
    }
    for plug in &shown.inputs {
        let Some(link) = plug.link else { continue };
        match screen.source((shown.scope, link), &plug.kind) {
            LinkSource::Node(at, output) => {
                node.set(&plug.name, Input::Link { node: screen.nodes[at].id.clone(), output });
            }
            LinkSource::Value(value) => node.set(&plug.name, Input::Value(value)),
            LinkSource::Nothing { why, is_muted } => {
                // A widget keeps its own value; a socket stays empty.
                if plug.widget.is_none() {
                    node.loose.push(Loose { input: plug.name.clone(), why, is_muted });
                }
            }
        }
    }
    Ok(node)
}

/// What a link comes from.
enum LinkSource {
    /// A node by its place on the screen, and the number of its output.
    Node(usize, usize),
    /// A primitive's value.
    Value(Json),
    /// Nothing.
    Nothing { why: String, is_muted: bool },
}

impl UiGraph {
    /// Follows `link` to its source, through everything that is only on the screen. `kind` is the
    /// type that is wanted, by which a bypassed node chooses among its inputs.
    fn source(&self, mut link: LinkKey, kind: &str) -> LinkSource {
        let nothing = |why: String| LinkSource::Nothing { why, is_muted: false };
        // Each step goes to another link, or round in a circle.
        for _ in 0..=self.links.len() {
            let Some(origin) = self.links.get(&link) else {
                return nothing("its link is not in the file".into());
            };
            let next = match *origin {
                LinkStart::Scope(slot) => {
                    let instance = self.scopes[link.0].instance.map(|at| &self.nodes[at]);
                    instance.and_then(|i| Some((i.scope, i.inputs.get(slot)?.link?)))
                }
                LinkStart::Node(at, slot) => {
                    let node = &self.nodes[at];
                    match (node.mode, screen_only(&node.class), node.inner) {
                        (MUTED, ..) => {
                            let why = format!("node {} ({}) is muted", node.id, node.class);
                            return LinkSource::Nothing { why, is_muted: true };
                        }
                        (BYPASSED, ..) => node.straight_through(slot, kind),
                        (_, _, Some(inner)) => {
                            self.scopes[inner].outputs.get(&slot).map(|link| (inner, *link))
                        }
                        (_, Some(ScreenOnly::Bend), _) => {
                            node.inputs.first().and_then(|i| Some((node.scope, i.link?)))
                        }
                        (_, Some(ScreenOnly::WireStart), _) => self.end(node),
                        (_, Some(ScreenOnly::Value), _) => match node.listed().first() {
                            Some(value) => return LinkSource::Value(value.clone()),
                            None => None,
                        },
                        (_, Some(ScreenOnly::Note | ScreenOnly::WireEnd), _) => None,
                        (_, None, _) => return LinkSource::Node(at, slot),
                    }
                }
            };
            match next {
                Some(next) => link = next,
                None => return nothing("nothing is connected to its other end".into()),
            }
        }
        nothing("its link goes round in a circle".into())
    }

    /// The link into the end of the wire that begins at `start`: in its own subgraph, or else anywhere.
    fn end(&self, start: &UiNode) -> Option<LinkKey> {
        let list = start.listed();
        let name = list.first().filter(|name| name.is_string())?;
        let ends = || {
            let is_end = |n: &&UiNode| screen_only(&n.class) == Some(ScreenOnly::WireEnd);
            self.nodes.iter().filter(is_end).filter(|n| n.listed().first() == Some(name))
        };
        let end = ends().find(|n| n.scope == start.scope).or_else(|| ends().next())?;
        Some((end.scope, end.inputs.iter().find_map(|input| input.link)?))
    }
}

impl UiNode {
    /// The link that a bypassed node lets through to its output `slot`: that of the input with the same
    /// number if it is of the wanted type, else of the first that is.
    fn straight_through(&self, slot: usize, kind: &str) -> Option<LinkKey> {
        let fits = |plug: &&UiInput| plug.kind == kind || plug.kind == "*";
        let same = self.inputs.get(slot).filter(fits);
        let plug = same.or_else(|| self.inputs.iter().find(fits))?;
        Some((self.scope, plug.link?))
    }
}
