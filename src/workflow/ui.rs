//! ComfyUI's UI format, as its menu saves it, to a graph: what its frontend does when a workflow is
//! queued.
//!
//! Nodes that only exist on the screen (notes, reroutes, primitives, subgraphs) go, links are led
//! through them; so they are through bypassed nodes, while muted ones are simply not there. The
//! values of widgets, a bare list, get the names that the catalogue has for them.

use std::borrow::Cow;

use serde_json::Value as Json;

use super::dynamic_prompt::dynamic;
use super::graph::{Graph, Input, Loose, Node};
use super::json::{id, short};
use super::nodes::{self, ScreenOnly, screen_only};
use super::spec::Class;
use super::subgraph::{self, Key, Origin, Screen, Shown};
use crate::{Error, ErrorKind, Result};

/// A node that is not run.
const MUTED: u64 = 2;
/// A node that is as if its inputs went straight to its outputs.
const BYPASSED: u64 = 4;

/// The graph of a workflow in the UI format.
///
/// # Errors
/// [`ErrorKind::File`] for nodes or links that make no sense.
pub(super) fn graph(json: &Json) -> Result<Graph> {
    let screen = subgraph::flatten(json)?;
    let mut graph = Graph::default();
    for shown in &screen.nodes {
        if !runs(&screen, shown) {
            graph.show(sign(shown));
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
fn runs(screen: &Screen, node: &Shown) -> bool {
    let mut scope = node.scope;
    while let Some(instance) = screen.scopes[scope].instance {
        if matches!(screen.nodes[instance].mode, MUTED | BYPASSED) {
            return false;
        }
        scope = screen.nodes[instance].scope;
    }
    node.inner.is_none() && screen_only(&node.class).is_none() && !matches!(node.mode, MUTED | BYPASSED)
}

/// A node that does not run, with what a file's name may ask it for.
fn sign(shown: &Shown) -> Node {
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
fn called(shown: &Shown) -> Node {
    let mut node = Node::new(&shown.id, &shown.class);
    node.title.clone_from(&shown.title);
    node.alias.clone_from(&shown.alias);
    node.package.clone_from(&shown.package);
    node
}

fn node(screen: &Screen, shown: &Shown) -> Result<Node> {
    let mut node = called(shown);
    let class = nodes::class(&shown.class);
    if let Some(class) = class {
        node.inputs = widgets(class, shown)?;
    }
    for plug in &shown.inputs {
        let Some(link) = plug.link else { continue };
        match screen.source((shown.scope, link), &plug.kind) {
            Found::Node(at, output) => {
                node.set(&plug.name, Input::Link { node: screen.nodes[at].id.clone(), output });
            }
            Found::Value(value) => node.set(&plug.name, Input::Value(value)),
            Found::Nothing { why, is_muted } => {
                // A widget keeps its own value; a socket stays empty.
                if plug.widget.is_none() {
                    node.loose.push(Loose { input: plug.name.clone(), why, is_muted });
                }
            }
        }
    }
    Ok(node)
}

/// The values of a node's widgets by name. Those that an older ComfyUI did not have are left to
/// the catalogue's defaults.
fn widgets(class: &Class, shown: &Shown) -> Result<Vec<(String, Input)>> {
    let mut inputs = Vec::new();
    let listed = shown.listed();
    let mut listed = listed.iter().peekable();
    let named = [shown.named.as_ref(), shown.widgets.as_object().filter(|_| listed.len() == 0)];
    let by_name = named.into_iter().flatten().next();
    for input in class.widgets() {
        let own = match by_name {
            Some(values) => values.get(input.name),
            None => {
                let value = listed.next();
                // Behind a seed stands what happens to it after a run.
                if input.is_seed() && listed.peek().is_some_and(|v| is_control(v)) {
                    listed.next();
                }
                value
            }
        };
        let value = match shown.promoted.get(input.name).or(own) {
            None | Some(Json::Null) => input.default(),
            Some(Json::String(s)) if input.is_prompt() => Some(dynamic(s).into()),
            Some(value @ (Json::Object(_) | Json::Array(_))) => {
                return Err(Error::new(ErrorKind::File, "a widget's value is no value")
                    .at(format!("node {} ({}), {}", shown.id, shown.class, input.name))
                    .found(short(value)));
            }
            Some(value) => Some(value.clone()),
        };
        inputs.extend(value.map(|v| (input.name.to_owned(), Input::Value(v))));
    }
    Ok(inputs)
}

/// What a frontend does with a seed after each run; the oldest had a switch for it.
fn is_control(value: &Json) -> bool {
    match value {
        Json::String(s) => matches!(s.as_str(), "fixed" | "increment" | "decrement" | "randomize"),
        value => value.is_boolean(),
    }
}

/// What a link comes from.
enum Found {
    /// A node by its place on the screen, and the number of its output.
    Node(usize, usize),
    /// A primitive's value.
    Value(Json),
    /// Nothing.
    Nothing { why: String, is_muted: bool },
}

impl Screen {
    /// Follows `link` to its source, through everything that is only on the screen. `kind` is the
    /// type that is wanted, by which a bypassed node chooses among its inputs.
    fn source(&self, mut link: Key, kind: &str) -> Found {
        let nothing = |why: String| Found::Nothing { why, is_muted: false };
        // Each step goes to another link, or round in a circle.
        for _ in 0..=self.links.len() {
            let Some(origin) = self.links.get(&link) else {
                return nothing("its link is not in the file".into());
            };
            let next = match *origin {
                Origin::Scope(slot) => {
                    let instance = self.scopes[link.0].instance.map(|at| &self.nodes[at]);
                    instance.and_then(|i| Some((i.scope, i.inputs.get(slot)?.link?)))
                }
                Origin::Node(at, slot) => {
                    let node = &self.nodes[at];
                    match (node.mode, screen_only(&node.class), node.inner) {
                        (MUTED, ..) => {
                            let why = format!("node {} ({}) is muted", node.id, node.class);
                            return Found::Nothing { why, is_muted: true };
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
                            Some(value) => return Found::Value(value.clone()),
                            None => None,
                        },
                        (_, Some(ScreenOnly::Note | ScreenOnly::WireEnd), _) => None,
                        (_, None, _) => return Found::Node(at, slot),
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
    fn end(&self, start: &Shown) -> Option<Key> {
        let list = start.listed();
        let name = list.first().filter(|name| name.is_string())?;
        let ends = || {
            let is_end = |n: &&Shown| screen_only(&n.class) == Some(ScreenOnly::WireEnd);
            self.nodes.iter().filter(is_end).filter(|n| n.listed().first() == Some(name))
        };
        let end = ends().find(|n| n.scope == start.scope).or_else(|| ends().next())?;
        Some((end.scope, end.inputs.iter().find_map(|input| input.link)?))
    }
}

impl Shown {
    /// The values of its widgets.
    fn listed(&self) -> Cow<'_, [Json]> {
        listed(&self.widgets)
    }

    /// The link that a bypassed node lets through to its output `slot`: that of the input with the same
    /// number if it is of the wanted type, else of the first that is.
    fn straight_through(&self, slot: usize, kind: &str) -> Option<Key> {
        let fits = |plug: &&subgraph::Plug| plug.kind == kind || plug.kind == "*";
        let same = self.inputs.get(slot).filter(fits);
        let plug = same.or_else(|| self.inputs.iter().find(fits))?;
        Some((self.scope, plug.link?))
    }
}

/// `widgets_values` as a list, which some files write as an object with the keys 0, 1, 2, …; empty if the
/// values have names.
fn listed(widgets: &Json) -> Cow<'_, [Json]> {
    match widgets {
        Json::Array(list) => Cow::Borrowed(list),
        Json::Object(object) => {
            let value = |at: usize| object.get(&at.to_string()).cloned();
            Cow::Owned((0..object.len()).map_while(value).collect())
        }
        _ => Cow::Borrowed(&[]),
    }
}

/// Changes the value of a widget of node `id` in the UI format's JSON, so that a picture's `workflow`
/// tells what was run. False where the node is not on the top level or has no such widget there.
pub(super) fn set_widget(json: &mut Json, node_id: &str, class: &Class, name: &str, value: &Json) -> bool {
    let nodes = json.get_mut("nodes").and_then(Json::as_array_mut);
    let wanted = |n: &&mut Json| n.get("id").and_then(id).as_deref() == Some(node_id);
    let Some(node) = nodes.and_then(|nodes| nodes.iter_mut().find(wanted)) else { return false };
    let linked = |i: &Json| {
        i.get("name").and_then(Json::as_str) == Some(name) && i.get("link").is_some_and(|l| !l.is_null())
    };
    if node.get("inputs").and_then(Json::as_array).is_some_and(|inputs| inputs.iter().any(linked)) {
        return false;
    }
    if let Some(named) = node.get_mut("widgets_values_named").and_then(Json::as_object_mut) {
        named.insert(name.to_owned(), value.clone());
    }
    let number = widget_number(class, name, &node.get("widgets_values").map(listed).unwrap_or_default());
    match (node.get_mut("widgets_values"), number) {
        (Some(Json::Object(values)), number) => {
            let key = match number {
                Some(number) if values.contains_key(&number.to_string()) => number.to_string(),
                _ => name.to_owned(),
            };
            values.insert(key, value.clone());
            true
        }
        (Some(Json::Array(values)), Some(number)) => {
            values.get_mut(number).map(|old| *old = value.clone()).is_some()
        }
        _ => false,
    }
}

/// The place of a widget in `widgets_values`.
fn widget_number(class: &Class, name: &str, values: &[Json]) -> Option<usize> {
    let mut at = 0;
    for widget in class.widgets() {
        if widget.name == name {
            return Some(at);
        }
        at += 1;
        // Behind a seed stands what happens to it after a run.
        if widget.is_seed() && values.get(at).is_some_and(is_control) {
            at += 1;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn widgets_are_set_however_they_are_written() {
        let class = nodes::class("KSampler").unwrap();
        for (before, after) in [
            (json!([5, "fixed", 2]), json!([5, "fixed", 9])),
            (json!([5, 2]), json!([5, 9])),
            (json!({ "0": 5, "1": "fixed", "2": 2 }), json!({ "0": 5, "1": "fixed", "2": 9 })),
            (json!({ "seed": 5, "steps": 2 }), json!({ "seed": 5, "steps": 9 })),
        ] {
            let mut ui = json!({ "nodes": [{ "id": 3, "widgets_values": before }] });
            assert!(set_widget(&mut ui, "3", class, "steps", &json!(9)));
            assert_eq!(ui["nodes"][0]["widgets_values"], after);
        }
        let mut short = json!({ "nodes": [{ "id": 3, "widgets_values": [5] }] });
        assert!(!set_widget(&mut short, "3", class, "steps", &json!(9)));
    }
}
