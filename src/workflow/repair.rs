//! What ComfyUI mends in workflows of older versions as it opens them: kinds of nodes, inputs and choices
//! that are called otherwise today. Values of widgets that a node gained later are the defaults of
//! slots that may be left out.

use serde_json::Value as Json;

use super::catalogue;
use super::graph::{Graph, Input, Node};
use super::nodes::{Choices, Kind, Slot};
use crate::sampler::{Sampler, Scheduler};

/// Kinds that are called otherwise today.
const KINDS: [(&str, &str); 4] = [
    ("T2IAdapterLoader", "ControlNetLoader"),
    ("SDV_img2vid_Conditioning", "SVD_img2vid_Conditioning"),
    ("Load3DAnimation", "Load3D"),
    ("Preview3DAnimation", "Preview3D"),
];
/// Inputs that are called otherwise today: kind, old and new name.
const INPUTS: [(&str, &str, &str); 1] = [("ControlNetLoader", "t2i_adapter_name", "control_net_name")];
/// What the oldest names of samplers begin with: they were functions of a library.
const FUNCTION: &str = "sample_";
/// Samplers that once were others at twice the CFG scale.
const AT_TWICE_THE_SCALE: [(&str, &str); 2] =
    [("euler_pp", "euler"), ("euler_ancestral_pp", "euler_ancestral")];

/// Today's name of a kind of node. Spaces around it are slips that were names for a while
/// (`ConditioningAverage `); those around a name that is unknown without them may be meant.
pub(super) fn kind(name: &str) -> &str {
    let plain = name.trim();
    let plain = KINDS.iter().find(|(old, _)| *old == plain).map_or(plain, |(_, new)| new);
    if catalogue::find(plain).is_some() || catalogue::is_comfyuis(plain) { plain } else { name }
}

/// Today's word for a choice that its slot does not know as it stands; None where there is none.
pub(super) fn choice(choices: Choices, word: &str) -> Option<&'static str> {
    match choices {
        Choices::Of(_) => None,
        Choices::Samplers => {
            let plain = word.trim().strip_prefix(FUNCTION).unwrap_or(word);
            let named = choices.names().into_iter().find(|name| *name == plain);
            named.or_else(|| plain.parse::<Sampler>().ok().map(|sampler| sampler.name()))
        }
        Choices::Schedulers => word.parse::<Scheduler>().ok().map(|scheduler| scheduler.name()),
    }
}

/// Mends inputs and values of all nodes, so that what is saved of the workflow is sound too.
pub(super) fn graph(graph: &mut Graph) {
    for node in graph.nodes_mut() {
        inputs(node);
        doubled(node);
        let Some(class) = catalogue::find(&node.class) else { continue };
        for (name, input) in &mut node.inputs {
            if let (Some(slot), Input::Value(Json::String(word))) = (class.input(name), input) {
                mend(slot, word);
            }
        }
    }
}

fn mend(slot: &Slot, word: &mut String) {
    if let Kind::Choice(choices) = slot.kind
        && !choices.names().contains(&word.as_str())
        && let Some(now) = choice(choices, word)
    {
        now.clone_into(word);
    }
}

fn inputs(node: &mut Node) {
    for (_, old, new) in INPUTS.iter().filter(|(kind, ..)| *kind == node.class) {
        let taken = node.input(new).is_some();
        if let Some((name, _)) = node.inputs.iter_mut().find(|(name, _)| name == old && !taken) {
            (*new).clone_into(name);
        }
    }
}

/// A scale that is linked cannot be doubled: then the old name stays, and is told.
fn doubled(node: &mut Node) {
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
    fn kinds_of_older_versions() {
        for (old, now) in [
            ("KSampler", "KSampler"),
            ("ConditioningAverage ", "ConditioningAverage"),
            (" VAEDecode\n", "VAEDecode"),
            ("UpscaleModelLoader ", "UpscaleModelLoader"),
            ("T2IAdapterLoader", "ControlNetLoader"),
            ("SDV_img2vid_Conditioning", "SVD_img2vid_Conditioning"),
            ("Somebody's ", "Somebody's "),
            ("", ""),
        ] {
            assert_eq!(kind(old), now, "{old:?}");
        }
    }

    #[test]
    fn choices_of_older_versions() {
        for (old, now) in [
            ("sample_euler", Some("euler")),
            ("sample_dpmpp_2m", Some("dpmpp_2m")),
            ("sample_dpmpp_sde_gpu", Some("dpmpp_sde_gpu")),
            ("Euler a", Some("euler_ancestral")),
            ("sample_", None),
            ("eulr", None),
        ] {
            assert_eq!(choice(Choices::Samplers, old), now, "{old:?}");
        }
        assert_eq!(choice(Choices::Schedulers, "Karras"), Some("karras"));
        assert_eq!(choice(Choices::Schedulers, "karas"), None);
        assert_eq!(choice(Choices::Of(&["enable"]), "Enable"), None);
    }

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
        graph(&mut workflow);
        let value = |id: &str, name: &str| workflow.find(id).and_then(|n| n.input(name)).cloned();
        assert_eq!(value("1", "cfg"), Some(Input::Value(3.0.into())));
        assert_eq!(value("1", "sampler_name"), Some(Input::Value("euler_ancestral".into())));
        assert_eq!(value("2", "sampler_name"), Some(Input::Value("euler_ancestral_pp".into())));
    }
}
