//! Nodes that put LoRAs on models.

use std::sync::Arc;

use super::node_class::Function::Working;
use super::node_class::{Hooks, NodeClass};
use crate::checkpoint::Checkpoint;
use crate::lora::{Lora, LoraUse, Networks, Patches, TargetNetwork};
use crate::model::Family;
use crate::model::config::{TextConfig, family_of};
use crate::pipeline::Request;
use crate::workflow::dry_run::known::{DryRunContext, Known, KnownInputs};
use crate::workflow::picture_settings::{Contribution, WrittenNode, stem};
use crate::workflow::run::context::RunContext;
use crate::workflow::spec::{Class, FileKind, Type, file, float, socket};
use crate::workflow::value::{Arguments, ClipValue, ModelValue, Value};
use crate::{Error, Result};

pub(super) const CLASSES: &[NodeClass] = &[
    NodeClass {
        spec: Class {
            name: "LoraLoader",
            title: "Load LoRA (Model and CLIP)",
            category: "loaders",
            inputs: &[
                socket("model", Type::Model),
                socket("clip", Type::Clip),
                file("lora_name", FileKind::Lora),
                float("strength_model", 1.0, -100.0, 100.0),
                float("strength_clip", 1.0, -100.0, 100.0),
            ],
            outputs: &[Type::Model, Type::Clip],
            ..Class::BLANK
        },
        run: Working(lora),
        hooks: Hooks {
            dry_run: Some(lora_known),
            settings: Some(Contribution::OnModel(lora_settings)),
            ..Hooks::NONE
        },
    },
    NodeClass {
        spec: Class {
            name: "LoraLoaderModelOnly",
            title: "Load LoRA",
            category: "loaders",
            inputs: &[
                socket("model", Type::Model),
                file("lora_name", FileKind::Lora),
                float("strength_model", 1.0, -100.0, 100.0),
            ],
            outputs: &[Type::Model],
            ..Class::BLANK
        },
        run: Working(lora_model_only),
        hooks: Hooks {
            dry_run: Some(lora_known),
            settings: Some(Contribution::OnModel(lora_settings)),
            ..Hooks::NONE
        },
    },
];

fn lora(work: &mut RunContext<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let (model, clip) = (args.model("model")?, args.clip("clip")?);
    let strengths = (args.float("strength_model")? as f32, args.float("strength_clip")? as f32);
    let (model, clip) = with_lora(work, model, Some(clip), args.text("lora_name")?, strengths)?;
    let clip = clip.ok_or_else(|| Error::internal("a LoRA lost the text encoders"))?;
    Ok(vec![Value::Model(model), Value::Clip(clip)])
}

fn lora_model_only(work: &mut RunContext<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let strengths = (args.float("strength_model")? as f32, 0.0);
    let (model, _) = with_lora(work, args.model("model")?, None, args.text("lora_name")?, strengths)?;
    Ok(vec![Value::Model(model)])
}

/// Model and text encoders with a LoRA on top of those that they have.
fn with_lora(
    work: &mut RunContext<'_>,
    model: &ModelValue,
    clip: Option<&ClipValue>,
    name: &str,
    (unet, text): (f32, f32),
) -> Result<(ModelValue, Option<ClipValue>)> {
    if unet == 0.0 && text == 0.0 {
        return Ok((model.clone(), clip.cloned()));
    }
    let lora = work.files.lora(name)?;
    let on_top = |loras: &[LoraUse]| {
        let one = LoraUse { unet, text, ..LoraUse::new(lora.clone(), 0.0) };
        [loras, &[one]].concat()
    };
    let loras = on_top(&model.loras);
    let family = model.diffusion.config().family;
    let networks = Networks { family, model: model.diffusion.checkpoint(), unet: true, text: &[] };
    let of_model = Arc::new(Patches::of_part(&networks, &loras)?);
    let diffusion = match unet {
        0.0 => model.diffusion.clone(),
        _ => model.diffusion.with_patches(of_model.clone()),
    };
    let patched_model = ModelValue { diffusion, loras, ..model.clone() };
    let mut all = vec![(of_model, model.loras.len())];
    let patched_clip = match clip {
        None => None,
        Some(clip) => {
            let loras = on_top(&clip.loras);
            let of_clip = Networks {
                family: clip.text.family(),
                model: clip.text.checkpoint(),
                unet: false,
                text: clip.text.configs(),
            };
            let of_clip = Arc::new(Patches::of_part(&of_clip, &loras)?);
            let text = match text {
                0.0 => clip.text.clone(),
                _ => clip.text.with_patches(of_clip.clone()),
            };
            all.push((of_clip, clip.loras.len()));
            Some(ClipValue { text, loras, ..clip.clone() })
        }
    };
    let all: Vec<(&Patches, usize)> = all.iter().map(|(patches, at)| (&**patches, *at)).collect();
    // What is for text encoders is not meant where none are given.
    let elsewhere: &[TargetNetwork] =
        if clip.is_some() { &[] } else { &[TargetNetwork::Text(0), TargetNetwork::Text(1)] };
    for sentence in Patches::leftovers(&lora, family, &all, elsewhere)? {
        log::warn!("{sentence}");
    }
    // LoRAs further down were reported before.
    let own = format!("{}: ", lora.file().display());
    all.iter()
        .flat_map(|(patches, _)| patches.left_out())
        .filter(|s| s.starts_with(&own))
        .for_each(|s| log::warn!("{s}"));
    Ok((patched_model, patched_clip))
}

fn lora_known(inputs: &KnownInputs<'_>, context: &mut DryRunContext<'_, '_>) -> Result<Vec<Known>> {
    let (model, clip) = (inputs.model("model"), inputs.clip("clip"));
    let strength = |name: &str| inputs.args.float(name).map_or(0.0, |v| v as f32);
    let strengths = (strength("strength_model"), strength("strength_clip"));
    if let (Some(model), true, Ok(name)) = (model, strengths != (0.0, 0.0), inputs.args.text("lora_name")) {
        let lora = context.files.lora(name)?;
        if context.checks_everything() {
            let of_model = (model.config.family, &*model.checkpoint);
            let of_clip = clip.map(|clip| (&*clip.checkpoint, clip.configs.as_slice()));
            check_lora(&lora, strengths, of_model, of_clip)?;
        }
        let (unet, text) = strengths;
        let one = LoraUse { unet, text, ..LoraUse::new(lora, 0.0) };
        let patched = [Known::Model(model.clone().patched(one.clone())?)];
        return Ok(match clip {
            Some(clip) => [&patched[..], &[Known::Clip(clip.clone().patched(one)?)]].concat(),
            None => patched.to_vec(),
        });
    }
    Ok([inputs.passed("model"), inputs.passed("clip")].concat())
}

/// Whether anything of a LoRA, at these strengths for the model and for text, fits a model of `family`, or
/// text encoders beside it.
///
/// # Errors
/// [`ErrorKind::Model`] if nothing does, or a matrix has another shape.
fn check_lora(
    lora: &Arc<Lora>,
    (unet, text): (f32, f32),
    (family, model): (Family, &Checkpoint),
    clip: Option<(&Checkpoint, &[TextConfig])>,
) -> Result<()> {
    let uses = [LoraUse { unet, text, ..LoraUse::new(lora.clone(), 0.0) }];
    let of_model = Networks { family, model, unet: true, text: &[] };
    let of_clip = clip.map(|(model, text)| Networks { family: family_of(text), model, unet: false, text });
    let all = [Some(of_model), of_clip].into_iter().flatten();
    let all: Vec<Patches> = all.map(|networks| Patches::of_part(&networks, &uses)).collect::<Result<_>>()?;
    let all: Vec<(&Patches, usize)> = all.iter().map(|patches| (patches, 0)).collect();
    Patches::leftovers(lora, family, &all, &[]).map(drop)
}

fn lora_settings(node: &WrittenNode<'_>, request: &mut Request) -> Option<()> {
    let (name, weight) = (node.text("lora_name")?, node.float("strength_model")?);
    request.prompt.push_str(&format!(" <lora:{}:{weight}>", stem(&name)));
    Some(())
}
