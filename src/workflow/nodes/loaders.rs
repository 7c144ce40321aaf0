//! Nodes that load models, or lay something over them.

use std::sync::Arc;

use super::super::files::Files;
use super::super::run::{Whole, Work};
use super::super::value::{Arguments, ClipValue, ModelValue, Value};
use super::Function::{Plain, Working};
use super::{Class, FileKind, Type, choice, file, float, int, socket};
use crate::checkpoint::Checkpoint;
use crate::guidance::Guidance;
use crate::lora::{Lora, LoraUse, Networks, Patches, TargetNetwork};
use crate::model::Family;
use crate::model::config::{TextConfig, family_of};
use crate::pipeline::{Autoencoder, DiffusionModel, Model, TextEncoders};
use crate::{Error, ErrorKind, Result};

pub(in super::super) const CLASSES: &[Class] = &[
    Class {
        name: "CheckpointLoaderSimple",
        inputs: &[file("ckpt_name", FileKind::Checkpoint)],
        outputs: &[Type::Model, Type::Clip, Type::Vae],
        is_output: false,
        run: Working(checkpoint),
    },
    Class {
        name: "UNETLoader",
        inputs: &[
            file("unet_name", FileKind::DiffusionModel),
            choice("weight_dtype", &["default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2"]).or_default(),
        ],
        outputs: &[Type::Model],
        is_output: false,
        run: Working(unet),
    },
    Class {
        name: "VAELoader",
        inputs: &[file("vae_name", FileKind::Vae)],
        outputs: &[Type::Vae],
        is_output: false,
        run: Working(vae),
    },
    Class {
        name: "CLIPLoader",
        inputs: &[
            file("clip_name", FileKind::TextEncoder),
            choice("type", CLIP_TYPES).or_default(),
            choice("device", &["default", "cpu"]).or_default(),
        ],
        outputs: &[Type::Clip],
        is_output: false,
        run: Working(clip),
    },
    Class {
        name: "DualCLIPLoader",
        inputs: &[
            file("clip_name1", FileKind::TextEncoder),
            file("clip_name2", FileKind::TextEncoder),
            choice("type", DUAL_TYPES).or_default(),
            choice("device", &["default", "cpu"]).or_default(),
        ],
        outputs: &[Type::Clip],
        is_output: false,
        run: Working(dual_clip),
    },
    Class {
        name: "LoraLoader",
        inputs: &[
            socket("model", Type::Model),
            socket("clip", Type::Clip),
            file("lora_name", FileKind::Lora),
            float("strength_model", 1.0, -100.0, 100.0),
            float("strength_clip", 1.0, -100.0, 100.0),
        ],
        outputs: &[Type::Model, Type::Clip],
        is_output: false,
        run: Working(lora),
    },
    Class {
        name: "LoraLoaderModelOnly",
        inputs: &[
            socket("model", Type::Model),
            file("lora_name", FileKind::Lora),
            float("strength_model", 1.0, -100.0, 100.0),
        ],
        outputs: &[Type::Model],
        is_output: false,
        run: Working(lora_model_only),
    },
    Class {
        name: "CLIPSetLastLayer",
        inputs: &[socket("clip", Type::Clip), int("stop_at_clip_layer", -1, -24, -1)],
        outputs: &[Type::Clip],
        is_output: false,
        run: Plain(last_layer),
    },
];

/// ComfyUI's types of text encoders; the first alone are Stable Diffusion's.
const CLIP_TYPES: &[&str] = &[
    "stable_diffusion",
    "stable_cascade",
    "sd3",
    "stable_audio",
    "mochi",
    "ltxv",
    "pixart",
    "cosmos",
    "lumina2",
    "wan",
    "hidream",
    "chroma",
    "ace",
    "omnigen2",
    "qwen_image",
    "hunyuan_image",
    "flux2",
    "ovis",
];
const DUAL_TYPES: &[&str] = &["sdxl", "sd3", "flux", "hunyuan_video", "hidream", "hunyuan_image", "newbie"];

fn checkpoint(work: &mut Work<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let (found, checkpoint) = work.files.checkpoint(FileKind::Checkpoint, args.text("ckpt_name")?)?;
    let whole = match work.loaded.get(&found) {
        Some(whole) => whole.clone(),
        None => {
            let model = Model::open_in(work.studio.clone(), checkpoint, &work.options.model)?;
            let mut text = model.text_encoders().clone();
            text.set_embedding_folders(work.files.places().models.embeddings());
            let whole =
                Whole { diffusion: model.diffusion_model().clone(), text, vae: model.autoencoder().clone() };
            work.loaded.insert(found, whole.clone());
            whole
        }
    };
    Ok(vec![of_diffusion(whole.diffusion), of_text(whole.text), Value::Vae(whole.vae)])
}

fn of_diffusion(diffusion: DiffusionModel) -> Value {
    Value::Model(ModelValue { diffusion, loras: Vec::new(), guidance: Guidance::new(1.0) })
}

fn of_text(text: TextEncoders) -> Value {
    Value::Clip(ClipValue { text, loras: Vec::new(), skip: None })
}

fn unet(work: &mut Work<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let kind = args.text("weight_dtype")?;
    if kind != "default" {
        log::warn!("{}: weights are kept as the precision chosen for the run says, not as {kind}", args.node);
    }
    let (_, file) = work.files.checkpoint(FileKind::DiffusionModel, args.text("unet_name")?)?;
    Ok(vec![of_diffusion(DiffusionModel::new(work.studio.clone(), file, &work.options.model)?)])
}

fn vae(work: &mut Work<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let (_, file) = work.files.checkpoint(FileKind::Vae, args.text("vae_name")?)?;
    Ok(vec![Value::Vae(Autoencoder::new(work.studio.clone(), file, &work.options.model)?)])
}

fn clip(work: &mut Work<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    encoders(work, &[args.text("clip_name")?])
}

fn dual_clip(work: &mut Work<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    encoders(work, &[args.text("clip_name1")?, args.text("clip_name2")?])
}

fn encoders(work: &mut Work<'_>, names: &[&str]) -> Result<Vec<Value>> {
    let file = work.files.text_encoders(names)?;
    let mut text = TextEncoders::new(work.studio.clone(), file, &work.options.model)?;
    text.set_embedding_folders(work.files.places().models.embeddings());
    Ok(vec![of_text(text)])
}

/// Opens the files of a text encoder's loader before anything runs; refuses encoders of other models.
pub(in super::super) fn look_at_encoders<'v>(
    class: &Class,
    written: &dyn Fn(&str) -> Option<&'v Value>,
    files: &mut Files<'_>,
) -> Result<()> {
    let text = |name: &str| match written(name) {
        Some(Value::Text(text)) => Some(text.as_str()),
        _ => None,
    };
    let known = if class.name == "CLIPLoader" { CLIP_TYPES[0] } else { DUAL_TYPES[0] };
    if let Some(kind) = text("type").filter(|kind| *kind != known) {
        return Err(Error::new(ErrorKind::File, "text encoders of this kind are not supported")
            .expected(format!("type {known}"))
            .found(kind)
            .hint("only models of the Stable Diffusion 1, 2 and XL families are known"));
    }
    let names: Option<Vec<&str>> = class
        .inputs
        .iter()
        .filter(|slot| slot.name.starts_with("clip_name"))
        .map(|slot| text(slot.name))
        .collect();
    names.map_or(Ok(()), |names| files.text_encoders(&names).map(drop))
}

fn lora(work: &mut Work<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let (model, clip) = (args.model("model")?, args.clip("clip")?);
    let strengths = (args.float("strength_model")? as f32, args.float("strength_clip")? as f32);
    let (model, clip) = with_lora(work, model, Some(clip), args.text("lora_name")?, strengths)?;
    let clip = clip.ok_or_else(|| Error::internal("a LoRA lost the text encoders"))?;
    Ok(vec![Value::Model(model), Value::Clip(clip)])
}

fn lora_model_only(work: &mut Work<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let strengths = (args.float("strength_model")? as f32, 0.0);
    let (model, _) = with_lora(work, args.model("model")?, None, args.text("lora_name")?, strengths)?;
    Ok(vec![Value::Model(model)])
}

/// Model and text encoders with a LoRA on top of those that they have.
fn with_lora(
    work: &mut Work<'_>,
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
    // Of LoRAs further down it was told before.
    let own = format!("{}: ", lora.file().display());
    all.iter()
        .flat_map(|(patches, _)| patches.left_out())
        .filter(|s| s.starts_with(&own))
        .for_each(|s| log::warn!("{s}"));
    Ok((patched_model, patched_clip))
}

/// Whether anything of a LoRA, at these strengths for the model and for text, fits a model of `family`, or
/// text encoders beside it.
///
/// # Errors
/// [`ErrorKind::Model`] if nothing does, or a matrix has another shape.
pub(in super::super) fn look_at_lora(
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

fn last_layer(args: &Arguments<'_>) -> Result<Vec<Value>> {
    let skip = args.int("stop_at_clip_layer")?.unsigned_abs();
    let skip = usize::try_from(skip).ok();
    Ok(vec![Value::Clip(ClipValue { skip, ..args.clip("clip")?.clone() })])
}
