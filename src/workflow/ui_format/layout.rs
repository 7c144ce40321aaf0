//! A graph as ComfyUI's UI format, for pictures of workflows that came without one: nodes in columns,
//! each to the right of those that it needs.

use std::collections::HashMap;

use serde_json::{Value as Json, json};

use crate::workflow::graph::{Graph, Input, Node};
use crate::workflow::nodes::class;
use crate::workflow::spec::{Kind, Slot};

/// Distances between nodes, pixels.
const COLUMN: usize = 360;
const ROW: usize = 60;
/// Height of a line in a node.
const LINE: usize = 26;

/// The UI format of `graph`.
pub(crate) fn laid_out(graph: &Graph) -> Json {
    let nodes = graph.nodes();
    let numbers = numbers(nodes);
    let columns = columns(graph);
    let mut links: Vec<Json> = Vec::new();
    let mut from: HashMap<(usize, usize), Vec<usize>> = HashMap::new();
    let mut inputs: Vec<Vec<Json>> = vec![Vec::new(); nodes.len()];
    for (at, node) in nodes.iter().enumerate() {
        let spec = class(&node.class);
        for (name, input) in &node.inputs {
            let slot = spec.and_then(|class| class.input(name));
            let (Input::Link { node: other, output }, Some(slot)) = (input, slot) else { continue };
            let Some(other) = graph.position(other) else { continue };
            let outputs = class(&nodes[other].class).map_or(&[][..], |class| class.outputs);
            let kind = outputs.get(*output).map_or("*", |kind| kind.name());
            let number = links.len() + 1;
            links.push(json!([number, numbers[other], output, numbers[at], inputs[at].len(), kind]));
            from.entry((other, *output)).or_default().push(number);
            inputs[at].push(plug(slot, kind, number));
        }
    }
    let mut heights: HashMap<usize, usize> = HashMap::new();
    let shown: Vec<Json> = nodes
        .iter()
        .zip(inputs)
        .enumerate()
        .map(|(at, (node, inputs))| {
            let values = widgets(node);
            let lines = (inputs.len() + values.len() + 2) * LINE;
            let top = heights.entry(columns[at]).or_default();
            let position = [columns[at] * COLUMN, *top];
            *top += lines + ROW;
            let spec = class(&node.class);
            let outputs = spec.map_or(&[][..], |class| class.outputs).iter().enumerate();
            let outputs = outputs.map(|(slot, kind)| {
                json!({ "name": kind.name(), "type": kind.name(), "links": from.get(&(at, slot)), "slot_index": slot })
            });
            let mut shown = json!({
                "id": numbers[at], "type": node.class, "pos": position, "size": [COLUMN - ROW, lines],
                "flags": {}, "order": at, "mode": 0, "inputs": inputs, "outputs": outputs.collect::<Vec<_>>(),
                "properties": { "Node name for S&R": node.class }, "widgets_values": values,
            });
            if let Some(title) = &node.title {
                shown["title"] = json!(title);
            }
            shown
        })
        .collect();
    json!({
        "last_node_id": numbers.iter().max(), "last_link_id": links.len(), "nodes": shown, "links": links,
        "groups": [], "config": {}, "extra": {}, "version": 0.4,
    })
}

/// Numbers of the nodes: their ids where these are numbers, else others.
fn numbers(nodes: &[Node]) -> Vec<u64> {
    let own = |node: &Node| node.id.parse::<u32>().ok().filter(|n| n.to_string() == node.id).map(u64::from);
    let mut next = nodes.iter().filter_map(own).max().unwrap_or(0);
    let mut number = |node: &Node| {
        own(node).unwrap_or_else(|| {
            next += 1;
            next
        })
    };
    nodes.iter().map(&mut number).collect()
}

/// The column of each node: one more than the largest of those that it needs.
fn columns(graph: &Graph) -> Vec<usize> {
    let nodes = graph.nodes();
    let mut columns = vec![0; nodes.len()];
    // Each round settles at least one more column; a circle, which cannot be run, ends with the rounds.
    for _ in 0..nodes.len().min(200) {
        let mut moved = false;
        for (at, node) in nodes.iter().enumerate() {
            for (_, input) in &node.inputs {
                let Input::Link { node: other, .. } = input else { continue };
                let least = graph.position(other).map_or(0, |other| columns[other] + 1);
                if columns[at] < least {
                    columns[at] = least;
                    moved = true;
                }
            }
        }
        if !moved {
            break;
        }
    }
    columns
}

fn plug(slot: &Slot, kind: &str, link: usize) -> Json {
    let mut plug = json!({ "name": slot.name, "type": kind, "link": link });
    if !matches!(slot.kind, Kind::Socket(_)) {
        plug["widget"] = json!({ "name": slot.name });
    }
    plug
}

/// `widgets_values`: those of linked widgets are their defaults.
fn widgets(node: &Node) -> Vec<Json> {
    let Some(spec) = class(&node.class) else { return Vec::new() };
    let mut values = Vec::new();
    for slot in spec.widgets() {
        values.push(match node.input(slot.name) {
            Some(Input::Value(value)) => value.clone(),
            _ => slot.default().unwrap_or(Json::Null),
        });
        if slot.is_seed() {
            values.push("fixed".into());
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;

    #[test]
    fn what_is_laid_out_reads_back_the_same() {
        let mut graph = Graph::default();
        let mut latent = Node::new("5", "EmptyLatentImage");
        latent.set("width", Input::Value(64.into()));
        latent.set("height", Input::Value(72.into()));
        latent.set("batch_size", Input::Value(2.into()));
        let mut sampler = Node::new("12:3", "KSampler");
        sampler.title = Some("the sampler".into());
        for (name, value) in [
            ("seed", json!(7)),
            ("steps", json!(4)),
            ("cfg", json!(1.5)),
            ("sampler_name", json!("euler")),
            ("scheduler", json!("karras")),
            ("denoise", json!(0.5)),
        ] {
            sampler.set(name, Input::Value(value));
        }
        sampler.set("latent_image", Input::Link { node: "5".into(), output: 0 });
        graph.add(latent);
        graph.add(sampler);
        let again = read::graph(&laid_out(&graph)).unwrap();
        assert_eq!(again.nodes().len(), 2);
        for (before, after) in graph.nodes().iter().zip(again.nodes()) {
            assert_eq!(before.class, after.class);
            for (name, input) in &before.inputs {
                assert_eq!(after.input(name), Some(input), "{name}");
            }
        }
        assert_eq!(again.nodes()[1].title.as_deref(), Some("the sampler"));
    }
}
