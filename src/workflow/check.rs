//! Everything that can be wrong with a workflow's nodes and links, checked before anything runs.

use std::collections::{HashMap, HashSet};

use serde_json::Value as Json;

use super::graph::{Graph, Input, Node};
use super::json::short;
use super::local_time::LocalTime;
use super::nodes::{self, NodeClass};
use super::output_folder::{PREFIX, REPLACED};
use super::prefix;
use super::spec::{Class, Kind, Slot, Type};
use super::value::{Arguments, Value, range};
use crate::{Error, ErrorKind, Remedy, Result};

/// Nodes that a message names one by one.
const MOST_NAMED: usize = 40;

/// A node that will run, with all that is known of its inputs.
pub(super) struct PlanStep {
    /// Its place in the graph.
    pub node: usize,
    pub class: &'static NodeClass,
    pub inputs: Vec<(&'static str, InputSource)>,
}

impl PlanStep {
    /// The inputs whose values are written in the workflow.
    pub fn written<'n>(&self, node: &'n Node) -> Arguments<'n> {
        let values = self.inputs.iter().filter_map(|(name, source)| match source {
            InputSource::Value(value) => Some((*name, value.clone())),
            InputSource::Output(..) => None,
        });
        Arguments { node, class: &self.class.spec, values: values.collect() }
    }
}

/// Where an input comes from.
#[derive(Clone)]
pub(super) enum InputSource {
    /// Written in the workflow, or a default.
    Value(Value),
    /// An output of the node at this place in the graph.
    Output(usize, usize),
}

/// What of a workflow runs.
pub(super) struct RunPlan {
    /// Each behind those that it needs.
    pub steps: Vec<PlanStep>,
    /// Places of the nodes that nothing needs, in the graph's order.
    pub unneeded: Vec<usize>,
}

/// The plan of a workflow.
///
/// # Errors
/// [`ErrorKind::File`], naming the node and what to do.
pub(super) fn plan(graph: &Graph, now: &LocalTime) -> Result<RunPlan> {
    let outputs = outputs(graph);
    let needed = needed(graph, &outputs.live);
    let place = |node: &Node| graph.position(&node.id);
    let is_needed: HashSet<usize> = needed.iter().copied().collect();
    let unneeded: Vec<usize> = (0..graph.nodes().len()).filter(|at| !is_needed.contains(at)).collect();
    let idle = unneeded.iter().map(|at| &graph.nodes()[*at]);
    warn_of_unneeded(&idle.filter(|node| !outputs.cut.contains_key(node.id.as_str())).collect::<Vec<_>>());
    if outputs.live.is_empty() {
        return Err(no_output(graph));
    }
    let unknown: Vec<&Node> = graph
        .nodes()
        .iter()
        .filter(|n| class(n).is_none() && place(n).is_some_and(|at| is_needed.contains(&at)))
        .collect();
    if !unknown.is_empty() {
        return Err(unknown_kinds(&unknown));
    }
    let mut steps = Vec::new();
    for &at in &needed {
        let node = &graph.nodes()[at];
        let Some(class) = nodes::find(&node.class) else { continue };
        warn_of_left_out(node, &class.spec);
        let inputs = class.spec.inputs.iter().filter_map(|slot| input(graph, node, slot, now).transpose());
        steps.push(PlanStep { node: at, class, inputs: inputs.collect::<Result<_>>()? });
    }
    // Primitives whose values are put where they are used have nothing left to do.
    let outputs = steps.iter().flat_map(|step| &step.inputs).filter_map(|(_, source)| match source {
        InputSource::Output(at, _) => Some(*at),
        InputSource::Value(_) => None,
    });
    let used: HashSet<usize> = outputs.collect();
    steps.retain(|step| step.class.spec.is_output || used.contains(&step.node));
    Ok(RunPlan { steps: in_order(graph, steps)?, unneeded })
}

fn class(node: &Node) -> Option<&'static Class> {
    nodes::class(&node.class)
}

fn fault(node: &Node, what: impl Into<String>) -> Error {
    Error::new(ErrorKind::File, what).at(node.to_string())
}

/// Nodes in a message.
fn listed<'n>(nodes: impl IntoIterator<Item = &'n Node>, show: impl Fn(&Node) -> String) -> String {
    let mut list: Vec<String> = nodes.into_iter().map(show).collect();
    let more = list.len().saturating_sub(MOST_NAMED);
    list.truncate(MOST_NAMED);
    if more > 0 {
        list.push(format!("{more} more"));
    }
    list.join("; ")
}

/// A node of an unknown class, and whose it is.
fn with_maker(node: &Node) -> String {
    const SELF: &str = "comfy-core";
    let own = nodes::is_comfyuis(&node.class);
    match (node.package.as_deref(), nodes::misspelt(&node.class)) {
        (Some(SELF), _) => format!("{node}, ComfyUI's own"),
        _ if own => format!("{node}, ComfyUI's own"),
        (Some(package), _) => format!("{node}, custom, of {package}"),
        (None, Some(near)) => format!("{node}, custom (did you mean {near}?)"),
        (None, None) => format!("{node}, custom"),
    }
}

fn unknown_kinds(nodes: &[&Node]) -> Error {
    let what = match nodes {
        [_] => "a node that does not run here",
        _ => "nodes that do not run here",
    };
    let error = Error::new(ErrorKind::File, what).found(listed(nodes.iter().copied(), with_maker));
    let group = nodes.iter().filter_map(|node| node.class.strip_prefix("workflow"));
    match group.clone().find(|name| name.starts_with(['/', '>'])) {
        Some(name) => error.hint(format!("turn the group node {:?} back into nodes in ComfyUI", &name[1..])),
        None => error.hint("remove, mute or bypass them in ComfyUI").remedy(Remedy::ListNodes),
    }
}

/// What does nothing to the result is skipped with a warning.
fn warn_of_unneeded(nodes: &[&Node]) {
    let (known, unknown): (Vec<&Node>, Vec<&Node>) = nodes.iter().partition(|node| class(node).is_some());
    if !known.is_empty() {
        log::warn!("nothing that is saved needs {}: left out", listed(known, Node::to_string));
    }
    if !unknown.is_empty() {
        let list = listed(unknown, with_maker);
        log::warn!("nodes that do not run here are left out, since nothing that is saved needs them: {list}");
    }
}

/// A link into an input that this class does not have here is ignored with a warning.
fn warn_of_left_out(node: &Node, class: &Class) {
    let links = node.inputs.iter().filter(|(_, input)| matches!(input, Input::Link { .. }));
    for (name, _) in links.filter(|(name, _)| class.input(name).is_none()) {
        log::warn!(
            "{node}: the link to its input {name:?} is left out: {} has no such input here",
            class.name
        );
    }
}

/// The nodes that a workflow is run for.
struct Outputs<'g> {
    /// Ids of those that run.
    live: Vec<&'g str>,
    /// Ids of all nodes that cannot run, each with the reason.
    cut: HashMap<&'g str, String>,
}

/// Outputs that need something muted, or an input that is not connected, are skipped as long as there are others, as
/// in ComfyUI.
fn outputs(graph: &Graph) -> Outputs<'_> {
    let is_output = |node: &&Node| class(node).is_some_and(|class| class.is_output);
    let all: Vec<&str> = graph.nodes().iter().filter(is_output).map(|n| n.id.as_str()).collect();
    let mut cut = cut_off(graph);
    let (live, skipped): (Vec<&str>, Vec<&str>) = all.iter().partition(|id| !cut.contains_key(*id));
    if live.is_empty() {
        cut.clear();
        return Outputs { live: all, cut };
    }
    for (node, why) in skipped.iter().filter_map(|id| Some((graph.find(id)?, cut.get(id)?))) {
        log::warn!("{node} does not run: {why}");
    }
    Outputs { live, cut }
}

fn no_output(graph: &Graph) -> Error {
    let unknown: Vec<&Node> = graph.nodes().iter().filter(|node| class(node).is_none()).collect();
    let others = format!("{} nodes of other kinds", graph.nodes().len());
    let found = match unknown.is_empty() {
        true => others,
        false => format!("{others}, unknown here: {}", listed(unknown, with_maker)),
    };
    Error::new(ErrorKind::File, "the workflow has no output node")
        .expected(one_of(&nodes::classes().filter(|c| c.is_output).map(|c| c.name).collect::<Vec<_>>()))
        .found(found)
        .hint("add one, or unmute it")
}

/// `a, b or c`.
fn one_of(names: &[&str]) -> String {
    match names {
        [rest @ .., last] if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        names => names.concat(),
    }
}

/// The places of output nodes and of all that they need, in the graph's order. Of a node of an unknown
/// class all inputs are needed.
fn needed(graph: &Graph, outputs: &[&str]) -> Vec<usize> {
    let mut waiting = outputs.to_vec();
    let mut seen = HashSet::new();
    while let Some(id) = waiting.pop() {
        let Some(at) = graph.position(id).filter(|at| seen.insert(*at)) else { continue };
        let node = &graph.nodes()[at];
        let wanted = |name: &str| class(node).is_none_or(|class| class.input(name).is_some());
        waiting.extend(node.inputs.iter().filter_map(|(name, input)| match input {
            Input::Link { node, .. } if wanted(name) => Some(node.as_str()),
            _ => None,
        }));
    }
    let mut needed: Vec<usize> = seen.into_iter().collect();
    needed.sort_unstable();
    needed
}

/// The ids of nodes that need something muted or an input that is not connected, and what that is. Each is looked
/// at once, however long the branches are.
fn cut_off(graph: &Graph) -> HashMap<&str, String> {
    let mut behind: HashMap<&str, Vec<&str>> = HashMap::new();
    let mut waiting: Vec<(&str, String)> = Vec::new();
    for node in graph.nodes() {
        let must = |name: &str| match class(node) {
            Some(class) => class.input(name).is_some_and(|slot| !slot.optional),
            None => true,
        };
        for (name, input) in &node.inputs {
            if let (Input::Link { node: other, .. }, true) = (input, must(name)) {
                behind.entry(other).or_default().push(&node.id);
            }
        }
        let sockets = class(node).map_or(&[][..], |class| class.inputs).iter();
        let mut wanted = sockets.filter(|slot| matches!(slot.kind, Kind::Socket(_)) && !slot.optional);
        let open = wanted.find(|slot| node.input(slot.name).is_none());
        let open = open.map(|slot| format!("input {} of {node} is not connected", slot.name));
        match node.loose.iter().find(|loose| must(&loose.input)) {
            Some(loose) if loose.is_muted => waiting.push((&node.id, "what it needs is muted".into())),
            Some(loose) => {
                waiting.push((&node.id, format!("input {} of {node}: {}", loose.input, loose.why)))
            }
            None => waiting.extend(open.map(|why| (node.id.as_str(), why))),
        }
    }
    let mut cut = HashMap::new();
    while let Some((id, why)) = waiting.pop() {
        if !cut.contains_key(id) {
            waiting.extend(behind.remove(id).into_iter().flatten().map(|id| (id, why.clone())));
            cut.insert(id, why);
        }
    }
    cut
}

/// Where the input for `slot` comes from; None if it is left out and may be.
fn input(
    graph: &Graph,
    node: &Node,
    slot: &'static Slot,
    now: &LocalTime,
) -> Result<Option<(&'static str, InputSource)>> {
    let wrong = |what: &str| fault(node, format!("input {}: {what}", slot.name)).expected(range(slot));
    let source = match node.input(slot.name) {
        None => match slot.default().filter(|_| slot.optional) {
            Some(default) => InputSource::Value(Value::written(slot, &default)?),
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
            InputSource::Value(Value::written(slot, &json).map_err(|e| e.at(node.to_string()))?)
        }
        Some(Input::Link { node: other, output }) => {
            let at = graph.position(other).ok_or_else(|| {
                wrong("its link leads to no node")
                    .found(format!("[{}, {output}]", short(&Json::from(other.as_str()))))
            })?;
            let other = &graph.nodes()[at];
            let outputs = nodes::class(&other.class).map_or(&[][..], |class| class.outputs);
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
                Some(json) => {
                    let json = prefixed(slot, json, graph, now);
                    InputSource::Value(Value::written(slot, &json).map_err(|e| e.at(node.to_string()))?)
                }
                None => InputSource::Output(at, *output),
            }
        }
    };
    Ok(Some((slot.name, source)))
}

/// What a primitive node gives, as far as it is written in the workflow: then it can be looked at
/// before anything runs.
fn known(node: &Node, given: Type) -> Option<&Json> {
    if !nodes::is_constant(&node.class) {
        return None;
    }
    node.written("value").filter(|_| matches!(given, Type::Int | Type::Float | Type::Text | Type::Bool))
}

/// A prefix of file names, wherever it comes from, with what ComfyUI's frontend replaces in it.
fn prefixed(slot: &Slot, json: &Json, graph: &Graph, now: &LocalTime) -> Json {
    let Json::String(prefix) = json else { return json.clone() };
    if slot.name != PREFIX {
        return json.clone();
    }
    let replaced = prefix::replaced(prefix, graph, now);
    for name in prefix::unknown(&replaced, &REPLACED) {
        log::warn!("the file-name prefix {prefix:?} keeps its %{name}%: no node or input is called so");
    }
    replaced.into()
}

/// `steps` so that each is behind those that it needs, and otherwise as they were.
fn in_order(graph: &Graph, steps: Vec<PlanStep>) -> Result<Vec<PlanStep>> {
    let mut steps: Vec<Option<PlanStep>> = steps.into_iter().map(Some).collect();
    let mut ordered: Vec<PlanStep> = Vec::new();
    let mut done = HashSet::new();
    loop {
        let before = ordered.len();
        let mut left = None;
        for place in &mut steps {
            let ready = place.as_ref().is_some_and(|step| {
                step.inputs.iter().all(|(_, source)| match source {
                    InputSource::Value(_) => true,
                    InputSource::Output(at, _) => done.contains(at),
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
