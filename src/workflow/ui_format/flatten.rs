//! The nodes and links of the UI format as one list, those inside of subgraphs included.
//!
//! A subgraph is defined once (`definitions.subgraphs`) and is in the workflow as a node whose
//! type is the definition's id. Links inside of it that come from, or go to, its frame have the
//! node numbers -10 and -20.

use std::collections::HashMap;

use serde_json::{Map, Value as Json};

use crate::workflow::json::{MOST_NODES, id, too_many};
use crate::workflow::nodes;
use crate::{Error, ErrorKind, Result};

/// The inner side of a subgraph's inputs and outputs.
const FRAME_IN: &str = "-10";
const FRAME_OUT: &str = "-20";
/// Subgraphs within subgraphs.
const DEEPEST: usize = 32;

/// A link: its scope and its number there.
pub(crate) type LinkKey = (usize, i64);

/// All that a workflow shows.
#[derive(Debug, Default)]
pub(crate) struct UiGraph {
    pub nodes: Vec<UiNode>,
    /// The workflow itself, then each subgraph as often as it is used.
    pub scopes: Vec<Scope>,
    /// Where each link comes from.
    pub links: HashMap<LinkKey, LinkStart>,
}

/// The workflow itself or a subgraph in use.
#[derive(Debug, Default)]
pub(crate) struct Scope {
    /// The node whose subgraph it is; None for the workflow.
    pub instance: Option<usize>,
    /// The links that lead to the subgraph's outputs, by their numbers.
    pub outputs: HashMap<usize, i64>,
}

/// The start of a link.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LinkStart {
    /// A node by its place and its output's number.
    Node(usize, usize),
    /// An input of the subgraph that the link is in.
    Scope(usize),
}

/// A node as it is shown.
#[derive(Debug)]
pub(crate) struct UiNode {
    /// With the ids of the subgraphs around it: `12:3`.
    pub id: String,
    pub class: String,
    pub title: Option<String>,
    /// `Node name for S&R`.
    pub alias: Option<String>,
    /// `cnr_id` or, for what is in no registry, `aux_id`.
    pub package: Option<String>,
    pub mode: u64,
    pub inputs: Vec<UiInput>,
    /// `widgets_values`.
    pub widgets: Json,
    /// `widgets_values_named`, which the newest frontends write beside them.
    pub named: Option<Map<String, Json>>,
    /// Values that the outside of a subgraph has for widgets inside of it.
    pub promoted: Map<String, Json>,
    pub scope: usize,
    /// The scope that it is the outside of, if it is a subgraph.
    pub inner: Option<usize>,
}

/// An input of a node.
#[derive(Debug)]
pub(crate) struct UiInput {
    pub name: String,
    pub kind: String,
    pub link: Option<i64>,
    /// The widget that it replaces.
    pub widget: Option<String>,
}

/// Lists all nodes and links of a workflow.
///
/// # Errors
/// [`ErrorKind::File`] for what makes no sense, and for subgraphs that contain themselves.
pub(crate) fn flatten(json: &Json) -> Result<UiGraph> {
    let definitions = json.pointer("/definitions/subgraphs").and_then(Json::as_array);
    let definitions: HashMap<&str, &Json> =
        definitions.into_iter().flatten().filter_map(|d| Some((d.get("id")?.as_str()?, d))).collect();
    let mut reader = Reader { definitions, screen: UiGraph::default() };
    reader.scope(json, None, "", 0)?;
    Ok(reader.screen)
}

struct Reader<'a> {
    definitions: HashMap<&'a str, &'a Json>,
    screen: UiGraph,
}

impl<'a> Reader<'a> {
    /// Reads the nodes and links of the workflow or of a subgraph.
    fn scope(
        &mut self,
        json: &'a Json,
        instance: Option<usize>,
        prefix: &str,
        depth: usize,
    ) -> Result<usize> {
        let at = |what: &str| Error::new(ErrorKind::File, what.to_owned()).at(place(prefix));
        if depth > DEEPEST {
            return Err(at("subgraphs within subgraphs without end")
                .expected(format!("at most {DEEPEST}, one in the other")));
        }
        let scope = self.screen.scopes.len();
        self.screen.scopes.push(Scope { instance, ..Scope::default() });
        let nodes =
            json.get("nodes").and_then(Json::as_array).ok_or_else(|| at("a subgraph without nodes"))?;
        too_many(self.screen.nodes.len().saturating_add(nodes.len()))?;
        let mut places = HashMap::new();
        let mut subgraphs = Vec::new();
        for node in nodes {
            let shown = shown(node, prefix, scope)?;
            let number = self.screen.nodes.len();
            let own = shown.id[prefix.len()..].to_owned();
            if let Some(definition) = self.definitions.get(shown.class.as_str()) {
                subgraphs.push((number, *definition));
            }
            if places.insert(own, number).is_some() {
                return Err(at("two nodes have the same id").found(shown.id));
            }
            self.screen.nodes.push(shown);
        }
        self.links(json, scope, &places).map_err(|e| e.at(place(prefix)))?;
        for (number, definition) in subgraphs {
            let prefix = format!("{}:", self.screen.nodes[number].id);
            let inner = self.scope(definition, Some(number), &prefix, depth + 1)?;
            self.screen.nodes[number].inner = Some(inner);
            self.promoted(number, inner);
        }
        Ok(scope)
    }

    fn links(&mut self, json: &Json, scope: usize, places: &HashMap<String, usize>) -> Result<()> {
        let wrong = || Error::new(ErrorKind::File, "a link makes no sense");
        let links = json.get("links").and_then(Json::as_array);
        if links.is_some_and(|l| l.len() > 16 * MOST_NODES) {
            return Err(Error::new(ErrorKind::File, "the workflow has too many links"));
        }
        // A deleted link may leave a null behind.
        for link in links.into_iter().flatten().filter(|l| !l.is_null()) {
            let part = |index: usize, name: &str| link.get(index).or_else(|| link.get(name));
            let number = |index, name| part(index, name).and_then(Json::as_i64).ok_or_else(wrong);
            let slot = |index, name| number(index, name).map(|n| usize::try_from(n).unwrap_or(usize::MAX));
            let node = |index, name| part(index, name).and_then(id).ok_or_else(wrong);
            let key = number(0, "id")?;
            let (from, from_slot) = (node(1, "origin_id")?, slot(2, "origin_slot")?);
            if node(3, "target_id")? == FRAME_OUT {
                self.screen.scopes[scope].outputs.insert(slot(4, "target_slot")?, key);
            }
            let origin = match places.get(&from) {
                Some(place) => LinkStart::Node(*place, from_slot),
                None if from == FRAME_IN => LinkStart::Scope(from_slot),
                // What a link came from may be gone; that is reported where it is needed.
                None => continue,
            };
            self.screen.links.insert((scope, key), origin);
        }
        Ok(())
    }

    /// Widgets that a subgraph shows on its outside have their values there: they go to the nodes inside.
    fn promoted(&mut self, instance: usize, inner: usize) {
        let outside = &self.screen.nodes[instance];
        let values: Vec<Json> = outside.widgets.as_array().cloned().unwrap_or_default();
        let named = outside
            .inputs
            .iter()
            .enumerate()
            .filter(|(_, plug)| plug.widget.is_some() && plug.link.is_none());
        let slots: Vec<usize> = named.map(|(slot, _)| slot).collect();
        if values.len() != slots.len() {
            return;
        }
        for (slot, value) in slots.into_iter().zip(values) {
            self.promote(inner, slot, &value);
        }
    }

    /// Hands the value at input `slot` of the subgraph `scope` to the widgets inside that it sets, through
    /// the subgraphs in between.
    fn promote(&mut self, scope: usize, slot: usize, value: &Json) {
        let mut further = Vec::new();
        for node in self.screen.nodes.iter_mut().filter(|n| n.scope == scope) {
            for (number, plug) in node.inputs.iter().enumerate() {
                let from = plug.link.and_then(|link| self.screen.links.get(&(scope, link)));
                if let (Some(LinkStart::Scope(s)), Some(widget)) = (from, &plug.widget)
                    && *s == slot
                {
                    node.promoted.insert(widget.clone(), value.clone());
                    further.extend(node.inner.map(|inner| (inner, number)));
                }
            }
        }
        for (inner, number) in further {
            self.promote(inner, number, value);
        }
    }
}

fn shown(node: &Json, prefix: &str, scope: usize) -> Result<UiNode> {
    let wrong = |what: &str| Error::new(ErrorKind::File, what.to_owned()).at(place(prefix));
    let text = |key: &str| node.get(key).and_then(Json::as_str).map(str::to_owned);
    let own = node.get("id").and_then(id).ok_or_else(|| wrong("a node has no id"))?;
    let id = format!("{prefix}{own}");
    let class = text("type").ok_or_else(|| wrong("a node has no type").at(format!("node {id}")))?;
    let class = nodes::class_today(&class).to_owned();
    let property = |name: &str| node.get("properties").and_then(|all| all.get(name)).and_then(Json::as_str);
    let package = property("cnr_id").or_else(|| property("aux_id"));
    let plug = |input: &Json| UiInput {
        name: input.get("name").and_then(Json::as_str).unwrap_or_default().to_owned(),
        kind: input.get("type").and_then(Json::as_str).unwrap_or("*").to_owned(),
        link: input.get("link").and_then(Json::as_i64),
        widget: input.pointer("/widget/name").and_then(Json::as_str).map(str::to_owned),
    };
    let inputs = node.get("inputs").and_then(Json::as_array);
    Ok(UiNode {
        title: text("title"),
        alias: property("Node name for S&R").map(str::to_owned),
        package: package.map(str::to_owned),
        mode: node.get("mode").and_then(Json::as_u64).unwrap_or(0),
        inputs: inputs.into_iter().flatten().map(plug).collect(),
        widgets: node.get("widgets_values").cloned().unwrap_or(Json::Null),
        named: node.get("widgets_values_named").and_then(Json::as_object).cloned(),
        promoted: Map::new(),
        scope,
        inner: None,
        id,
        class,
    })
}

/// Where something is: in the workflow itself or in a subgraph.
fn place(prefix: &str) -> String {
    match prefix.strip_suffix(':') {
        None => "the workflow's top level".into(),
        Some(node) => format!("the subgraph of node {node}"),
    }
}
