//! What ComfyUI updates in workflows of older versions as it opens them: inputs and choices that are called
//! otherwise today. Values of widgets that a node gained later are the defaults of
//! slots that may be left out.

use serde_json::Value as Json;

use super::graph::{Graph, Input, Node};
use super::nodes;
use super::spec::{Kind, Slot};

/// Samplers that once were others at twice the CFG scale.
const AT_TWICE_THE_SCALE: [(&str, &str); 2] =
    [("euler_pp", "euler"), ("euler_ancestral_pp", "euler_ancestral")];

/// Updates inputs and values of all nodes, so that what is saved of the workflow is sound too.
pub(super) fn update(graph: &mut Graph) {
    for node in graph.nodes_mut() {
        rename_inputs(node);
        double_scale(node);
        let Some(class) = nodes::class(&node.class) else { continue };
        for (name, input) in &mut node.inputs {
            if let (Some(slot), Input::Value(Json::String(word))) = (class.input(name), input) {
                update_choice(slot, word);
            }
        }
    }
}

fn update_choice(slot: &Slot, word: &mut String) {
    if let Kind::Choice(choices) = slot.kind
        && !choices.names().contains(&word.as_str())
        && let Some(now) = choices.name_today(word)
    {
        now.clone_into(word);
    }
}

fn rename_inputs(node: &mut Node) {
    for (old, new) in nodes::inputs_today(&node.class) {
        let taken = node.input(new).is_some();
        if let Some((name, _)) = node.inputs.iter_mut().find(|(name, _)| name == old && !taken) {
            new.clone_into(name);
        }
    }
}

/// A scale that is linked cannot be doubled: then the old name stays, and is reported as an unknown choice.
fn double_scale(node: &mut Node) {
    let Some(Input::Value(Json::String(word))) = node.input("sampler_name") else { return };
    let Some((_, now)) = AT_TWICE_THE_SCALE.iter().find(|(old, _)| old == word) else { return };
    let Some(Input::Value(Json::Number(scale))) = node.input("cfg") else { return };
    let Some(twice) = scale.as_f64().map(|scale| 2.0 * scale) else { return };
    node.set("cfg", Input::Value(twice.into()));
    node.set("sampler_name", Input::Value((*now).into()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samplers_at_twice_the_scale() {
        let mut workflow = Graph::default();
        for (id, cfg) in [("1", Input::Value(1.5.into())), ("2", Input::Link { node: "9".into(), output: 0 })]
        {
            let mut node = Node::new(id, "KSampler");
            node.set("sampler_name", Input::Value("euler_ancestral_pp".into()));
            node.set("cfg", cfg);
            workflow.add(node);
        }
        update(&mut workflow);
        let value = |id: &str, name: &str| workflow.find(id).and_then(|n| n.input(name)).cloned();
        assert_eq!(value("1", "cfg"), Some(Input::Value(3.0.into())));
        assert_eq!(value("1", "sampler_name"), Some(Input::Value("euler_ancestral".into())));
        assert_eq!(value("2", "sampler_name"), Some(Input::Value("euler_ancestral_pp".into())));
    }
}
