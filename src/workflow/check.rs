//! Everything that can be wrong with a workflow, looked at before anything runs.

use std::collections::{HashMap, HashSet};

use serde_json::Value as Json;

use super::graph::{Graph, Input, Node};
use super::nodes::{Class, Kind, Slot, Type};
use super::read::short;
use super::value::{Value, range};
use super::{catalogue, text};
use crate::{Error, ErrorKind, Remedy, Result};

/// A node that will run, with all that is known of its inputs.
pub(super) struct Step {
    /// Its place in the graph.
    pub node: usize,
    pub class: &'static Class,
    pub inputs: Vec<(&'static str, Source)>,
}

/// Where an input comes from.
#[derive(Clone)]
pub(super) enum Source {
    /// Written in the workflow, or a default.
    Value(Value),
    /// An output of the node at this place in the graph.
    Output(usize, usize),
}

/// The steps of a workflow, each behind those that it needs.
///
/// # Errors
/// [`ErrorKind::File`], naming the node and what to do.
pub(super) fn steps(graph: &Graph, now: &text::Moment) -> Result<Vec<Step>> {
    for node in graph.nodes() {
        if catalogue::find(&node.class).is_none() {
            return Err(unknown(node));
        }
    }
    let needed = needed(graph)?;
    let mut steps = Vec::new();
    for &at in &needed {
        let node = &graph.nodes()[at];
        let Some(class) = catalogue::find(&node.class) else { continue };
        let inputs = class.inputs.iter().filter_map(|slot| input(graph, node, slot, now).transpose());
        steps.push(Step { node: at, class, inputs: inputs.collect::<Result<_>>()? });
    }
    // Primitives whose values stand where they are used have nothing left to do.
    let outputs = steps.iter().flat_map(|step| &step.inputs).filter_map(|(_, source)| match source {
        Source::Output(at, _) => Some(*at),
        Source::Value(_) => None,
    });
    let used: HashSet<usize> = outputs.collect();
    steps.retain(|step| step.class.is_output || used.contains(&step.node));
    in_order(graph, steps)
}

fn fault(node: &Node, what: impl Into<String>) -> Error {
    Error::new(ErrorKind::File, what).at(node.to_string())
}

fn unknown(node: &Node) -> Error {
    let error = fault(node, "an unknown kind of node");
    if let Some(name) = node.class.strip_prefix("workflow").filter(|n| n.starts_with(['/', '>'])) {
        return error.hint(format!("turn the group node {:?} back into nodes in ComfyUI", &name[1..]));
    }
    match catalogue::nearest(&node.class) {
        near if near.is_empty() => error.hint("take it out, or mute it").remedy(Remedy::ListNodes),
        near => error.hint(format!("the nearest known: {}; use one of them, or mute it", near.join(", "))),
    }
}

/// The places of output nodes and of all that they need, in the graph's order.
fn needed(graph: &Graph) -> Result<Vec<usize>> {
    let is_output = |node: &&Node| catalogue::find(&node.class).is_some_and(|class| class.is_output);
    let mut waiting: Vec<&str> = graph.nodes().iter().filter(is_output).map(|n| n.id.as_str()).collect();
    if waiting.is_empty() {
        return Err(Error::new(ErrorKind::File, "the workflow has no output node")
            .expected("SaveImage, PreviewImage or SaveLatent")
            .found(format!("{} nodes of other kinds", graph.nodes().len()))
            .hint("add one, or unmute it"));
    }
    // Outputs behind a muted node rest with it, as long as there are others.
    let cut = cut_off(graph);
    let (live, resting): (Vec<&str>, Vec<&str>) = waiting.iter().partition(|id| !cut.contains(*id));
    if !live.is_empty() {
        for node in resting.iter().filter_map(|id| graph.find(id)) {
            log::warn!("{node} does not run: what it needs is muted");
        }
        waiting = live;
    }
    let mut seen = HashSet::new();
    while let Some(id) = waiting.pop() {
        let Some(at) = graph.position(id).filter(|at| seen.insert(*at)) else { continue };
        let node = &graph.nodes()[at];
        let Some(class) = catalogue::find(&node.class) else { continue };
        let links = class.inputs.iter().filter_map(|slot| match node.input(slot.name) {
            Some(Input::Link { node, .. }) => Some(node.as_str()),
            _ => None,
        });
        waiting.extend(links);
    }
    let mut needed: Vec<usize> = seen.into_iter().collect();
    needed.sort_unstable();
    Ok(needed)
}

/// The ids of nodes that need something muted. Each is looked at once, however long the branches are.
fn cut_off(graph: &Graph) -> HashSet<&str> {
    let mut behind: HashMap<&str, Vec<&str>> = HashMap::new();
    let mut waiting: Vec<&str> = Vec::new();
    for node in graph.nodes() {
        let Some(class) = catalogue::find(&node.class) else { continue };
        for slot in class.inputs.iter().filter(|slot| !slot.optional) {
            if let Some(Input::Link { node: other, .. }) = node.input(slot.name) {
                behind.entry(other).or_default().push(&node.id);
            }
            if node.loose.iter().any(|loose| loose.is_muted && loose.input == slot.name) {
                waiting.push(&node.id);
            }
        }
    }
    let mut cut = HashSet::new();
    while let Some(id) = waiting.pop() {
        if cut.insert(id) {
            waiting.extend(behind.remove(id).unwrap_or_default());
        }
    }
    cut
}

/// Where the input for `slot` comes from; None if it is left out and may be.
fn input(
    graph: &Graph,
    node: &Node,
    slot: &'static Slot,
    now: &text::Moment,
) -> Result<Option<(&'static str, Source)>> {
    let wrong = |what: &str| fault(node, format!("input {}: {what}", slot.name)).expected(range(slot));
    let source = match node.input(slot.name) {
        None => match slot.default().filter(|_| slot.optional) {
            Some(default) => Source::Value(Value::written(slot, &default)?),
            None if slot.optional => return Ok(None),
            None => {
                let loose = node.loose.iter().find(|loose| loose.input == slot.name);
                let error = fault(node, format!("input {} is missing", slot.name)).expected(range(slot));
                return Err(match loose {
                    Some(loose) => error.found(format!("a link, but {}", loose.why)),
                    None => error.hint("connect it, or export the workflow from ComfyUI's menu again"),
                });
            }
        },
        Some(Input::Value(json)) => {
            if let Kind::Socket(_) = slot.kind {
                return Err(wrong("a value where a link must be").found(short(json)));
            }
            let json = prefixed(slot, json, graph, now);
            Source::Value(Value::written(slot, &json).map_err(|e| e.at(node.to_string()))?)
        }
        Some(Input::Link { node: other, output }) => {
            let at = graph.position(other).ok_or_else(|| {
                wrong("its link leads to no node")
                    .found(format!("[{}, {output}]", short(&Json::from(other.as_str()))))
            })?;
            let other = &graph.nodes()[at];
            let outputs = catalogue::find(&other.class).map_or(&[][..], |class| class.outputs);
            let given = *outputs.get(*output).ok_or_else(|| {
                let found = format!("output {output} of {other}, which has {}", outputs.len());
                wrong("its link leads to no output").found(found)
            })?;
            if !slot.accepts(given) {
                let which = outputs.iter().position(|t| slot.accepts(*t));
                let error = wrong("a link of the wrong type").found(format!("{given} from {other}"));
                return Err(match which {
                    Some(which) => error.hint(format!("its output {which} has that type")),
                    None => error.hint("connect an output of that type"),
                });
            }
            match known(other, given) {
                Some(json) => Source::Value(Value::written(slot, &json).map_err(|e| e.at(node.to_string()))?),
                None => Source::Output(at, *output),
            }
        }
    };
    Ok(Some((slot.name, source)))
}

/// What a primitive node gives, as far as it is written in the workflow: then it can be looked at
/// before anything runs.
fn known(node: &Node, given: Type) -> Option<Json> {
    let primitive = matches!(given, Type::Int | Type::Float | Type::Text | Type::Bool);
    match node.input("value") {
        Some(Input::Value(json)) if primitive && node.class.starts_with("Primitive") => Some(json.clone()),
        _ => None,
    }
}

/// A prefix of file names with what ComfyUI's frontend replaces in it.
fn prefixed(slot: &Slot, json: &Json, graph: &Graph, now: &text::Moment) -> Json {
    match json {
        Json::String(prefix) if slot.name == super::save::PREFIX => text::replaced(prefix, graph, now).into(),
        json => json.clone(),
    }
}

/// `steps` so that each is behind those that it needs, and otherwise as they were.
fn in_order(graph: &Graph, steps: Vec<Step>) -> Result<Vec<Step>> {
    let mut steps: Vec<Option<Step>> = steps.into_iter().map(Some).collect();
    let mut ordered: Vec<Step> = Vec::new();
    let mut done = HashSet::new();
    loop {
        let before = ordered.len();
        let mut left = None;
        for place in &mut steps {
            let ready = place.as_ref().is_some_and(|step| {
                step.inputs.iter().all(|(_, source)| match source {
                    Source::Value(_) => true,
                    Source::Output(at, _) => done.contains(at),
                })
            });
            match place.take_if(|_| ready) {
                Some(step) => {
                    done.insert(step.node);
                    ordered.push(step);
                }
                None => left = left.or(place.as_ref().map(|step| step.node)),
            }
        }
        let Some(left) = left else { return Ok(ordered) };
        if ordered.len() == before {
            let circle = circle(graph, left, &done);
            let ids: Vec<&str> = circle.iter().take(8).map(|at| graph.nodes()[*at].id.as_str()).collect();
            let first = circle.first().copied().unwrap_or(left);
            return Err(fault(&graph.nodes()[first], "nodes need each other in a circle")
                .found(format!("nodes {}", ids.join(", ")))
                .hint("take one of the links out"));
        }
    }
}

/// The nodes of a circle that `from` is in or needs.
fn circle(graph: &Graph, from: usize, done: &HashSet<usize>) -> Vec<usize> {
    let mut path: Vec<usize> = vec![from];
    while let Some(&at) = path.last() {
        let next = graph.nodes()[at].inputs.iter().find_map(|(_, input)| match input {
            Input::Link { node, .. } => graph.position(node).filter(|at| !done.contains(at)),
            Input::Value(_) => None,
        });
        let Some(next) = next else { break };
        if let Some(first) = path.iter().position(|at| *at == next) {
            path.drain(..first);
            break;
        }
        path.push(next);
    }
    path
}
