//! Nodes that load models.

use std::sync::Arc;

use super::node_class::Function::Working;
use super::node_class::{Hooks, NodeClass};
use crate::checkpoint::Checkpoint;
use crate::guidance::Guidance;
use crate::model::config::{TextConfig, VaeConfig};
use crate::model::{DiffusionConfig, ModelConfig, Prediction};
use crate::pipeline::{self, Autoencoder, DeviceContext, DiffusionModel, Model, TextEncoders};
use crate::workflow::dry_run::known::{DryRunContext, Known, KnownClip, KnownInputs, KnownModel};
use crate::workflow::files::Files;
use crate::workflow::picture_settings::Contribution;
use crate::workflow::run::context::{LoadedCheckpoint, RunContext};
use crate::workflow::spec::{Class, FileKind, Type, choice, file};
use crate::workflow::value::{Arguments, ClipValue, ModelValue, Value};
use crate::{Error, ErrorKind, Result};

pub(super) const CLASSES: &[NodeClass] = &[
    NodeClass {
        spec: Class {
            name: "CheckpointLoaderSimple",
            title: "Load Checkpoint",
            category: "loaders",
            inputs: &[file("ckpt_name", FileKind::Checkpoint)],
            outputs: &[Type::Model, Type::Clip, Type::Vae],
            ..Class::BLANK
        },
        run: Working(checkpoint),
        hooks: Hooks {
            dry_run: Some(checkpoint_known),
            settings: Some(Contribution::ModelFile { name: "ckpt_name" }),
            ..Hooks::NONE
        },
    },
    NodeClass {
        spec: Class {
            name: "UNETLoader",
            title: "Load Diffusion Model",
            category: "advanced/loaders",
            inputs: &[
                file("unet_name", FileKind::DiffusionModel),
                choice("weight_dtype", &["default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2"])
                    .or_default(),
            ],
            outputs: &[Type::Model],
            ..Class::BLANK
        },
        run: Working(unet),
        hooks: Hooks {
            dry_run: Some(unet_known),
            settings: Some(Contribution::ModelFile { name: "unet_name" }),
            ..Hooks::NONE
        },
    },
    NodeClass {
        spec: Class {
            name: "VAELoader",
            title: "Load VAE",
            category: "loaders",
            inputs: &[file("vae_name", FileKind::Vae)],
            outputs: &[Type::Vae],
            ..Class::BLANK
        },
        run: Working(vae),
        hooks: Hooks { dry_run: Some(vae_known), ..Hooks::NONE },
    },
    NodeClass {
        spec: Class {
            name: "CLIPLoader",
            title: "Load CLIP",
            category: "advanced/loaders",
            inputs: &[
                file("clip_name", FileKind::TextEncoder),
                choice("type", CLIP_TYPES).or_default(),
                choice("device", &["default", "cpu"]).or_default(),
            ],
            outputs: &[Type::Clip],
            ..Class::BLANK
        },
        run: Working(clip),
        hooks: Hooks { check: Some(clip_check), dry_run: Some(clip_known), ..Hooks::NONE },
    },
    NodeClass {
        spec: Class {
            name: "DualCLIPLoader",
            title: "Load CLIP (Dual)",
            category: "advanced/loaders",
            inputs: &[
                file("clip_name1", FileKind::TextEncoder),
                file("clip_name2", FileKind::TextEncoder),
                choice("type", DUAL_TYPES).or_default(),
                choice("device", &["default", "cpu"]).or_default(),
            ],
            outputs: &[Type::Clip],
            ..Class::BLANK
        },
        run: Working(dual_clip),
        hooks: Hooks { check: Some(dual_clip_check), dry_run: Some(dual_clip_known), ..Hooks::NONE },
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

fn checkpoint(work: &mut RunContext<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let (found, checkpoint) = work.files.checkpoint(FileKind::Checkpoint, args.text("ckpt_name")?)?;
    let whole = match work.loaded.get(&found) {
        Some(whole) => whole.clone(),
        None => {
            let model = Model::open_in(work.device_context.clone(), checkpoint, &work.options.model)?;
            let mut text = model.text_encoders().clone();
            text.set_embedding_folders(work.files.folders().models.embeddings());
            let whole = LoadedCheckpoint {
                diffusion: model.diffusion_model().clone(),
                text,
                vae: model.autoencoder().clone(),
            };
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

fn unet(work: &mut RunContext<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let kind = args.text("weight_dtype")?;
    if kind != "default" {
        log::warn!("{}: weights are kept as the precision chosen for the run says, not as {kind}", args.node);
    }
    let (_, file) = work.files.checkpoint(FileKind::DiffusionModel, args.text("unet_name")?)?;
    Ok(vec![of_diffusion(DiffusionModel::new(work.device_context.clone(), file, &work.options.model)?)])
}

fn vae(work: &mut RunContext<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let (_, file) = work.files.checkpoint(FileKind::Vae, args.text("vae_name")?)?;
    Ok(vec![Value::Vae(Autoencoder::new(work.device_context.clone(), file, &work.options.model)?)])
}

fn clip(work: &mut RunContext<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    encoders(work, &[args.text("clip_name")?])
}

fn dual_clip(work: &mut RunContext<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    encoders(work, &[args.text("clip_name1")?, args.text("clip_name2")?])
}

fn encoders(work: &mut RunContext<'_>, names: &[&str]) -> Result<Vec<Value>> {
    let file = work.files.text_encoders(names)?;
    let mut text = TextEncoders::new(work.device_context.clone(), file, &work.options.model)?;
    text.set_embedding_folders(work.files.folders().models.embeddings());
    Ok(vec![of_text(text)])
}

fn clip_check(args: &Arguments<'_>, files: &mut Files<'_>) -> Result<()> {
    check_encoders(args, files, CLIP_TYPES[0], &["clip_name"])
}

fn dual_clip_check(args: &Arguments<'_>, files: &mut Files<'_>) -> Result<()> {
    check_encoders(args, files, DUAL_TYPES[0], &["clip_name1", "clip_name2"])
}

/// Opens the files of a text encoder's loader before anything runs; refuses encoders of other models.
fn check_encoders(
    args: &Arguments<'_>,
    files: &mut Files<'_>,
    known: &str,
    names: &[&'static str],
) -> Result<()> {
    if let Ok(kind) = args.text("type")
        && kind != known
    {
        return Err(Error::new(ErrorKind::File, "text encoders of this kind are not supported")
            .expected(format!("type {known}"))
            .found(kind)
            .hint("only models of the Stable Diffusion 1, 2 and XL families are known"));
    }
    let names: Option<Vec<&str>> = names.iter().map(|name| args.text(name).ok()).collect();
    names.map_or(Ok(()), |names| files.text_encoders(&names).map(drop))
}

/// A network whose output means this, under no guidance.
///
/// # Errors
/// Those of the noise levels that its file gives.
fn network_known(
    checkpoint: Arc<Checkpoint>,
    mut config: DiffusionConfig,
    prediction: Option<Prediction>,
    diffusion: Option<DiffusionModel>,
) -> Result<Known> {
    config.prediction = prediction.unwrap_or(config.prediction);
    let table = Arc::new(pipeline::noise_levels(config.prediction, config.noise.as_ref())?);
    let (config, guidance) = (Arc::new(config), Guidance::new(1.0));
    Ok(Known::Model(KnownModel { checkpoint, config, table, guidance, loras: Vec::new(), diffusion }))
}

/// Encoders as they are in their file.
fn text_known(checkpoint: Arc<Checkpoint>, configs: Vec<TextConfig>, text: Option<TextEncoders>) -> Known {
    Known::Clip(KnownClip { checkpoint, configs: Arc::new(configs), skip: None, loras: Vec::new(), text })
}

/// Encoders that find embeddings, as far as prompts are counted.
fn with_folders(mut text: TextEncoders, files: &Files<'_>) -> TextEncoders {
    text.set_embedding_folders(files.folders().models.embeddings());
    text
}

fn checkpoint_known(inputs: &KnownInputs<'_>, context: &mut DryRunContext<'_, '_>) -> Result<Vec<Known>> {
    let Ok(name) = inputs.args.text("ckpt_name") else { return Ok(Vec::new()) };
    let (_, checkpoint) = context.files.checkpoint(FileKind::Checkpoint, name)?;
    let config = ModelConfig::infer(&checkpoint)?;
    let options = &context.options.model;
    let open = |device_context: &Arc<DeviceContext>| {
        Model::open_in(device_context.clone(), checkpoint.clone(), options)
    };
    let device = context.device_context.map(open).transpose()?;
    let diffusion = device.as_ref().map(|model| model.diffusion_model().clone());
    let text = device.as_ref().map(|model| with_folders(model.text_encoders().clone(), context.files));
    let vae = device.map(|model| model.autoencoder().clone());
    Ok(vec![
        network_known(checkpoint.clone(), DiffusionConfig::of(&config), options.prediction, diffusion)?,
        text_known(checkpoint, config.text, text),
        vae.map_or(Known::Type, Known::Vae),
    ])
}

fn unet_known(inputs: &KnownInputs<'_>, context: &mut DryRunContext<'_, '_>) -> Result<Vec<Known>> {
    let Ok(name) = inputs.args.text("unet_name") else { return Ok(Vec::new()) };
    let (_, checkpoint) = context.files.checkpoint(FileKind::DiffusionModel, name)?;
    let config = DiffusionConfig::infer(&checkpoint)?;
    let options = &context.options.model;
    let open = |device_context: &Arc<DeviceContext>| {
        DiffusionModel::new(device_context.clone(), checkpoint.clone(), options)
    };
    let diffusion = context.device_context.map(open).transpose()?;
    Ok(vec![network_known(checkpoint, config, options.prediction, diffusion)?])
}

/// An autoencoder, of which later nodes check nothing but its memory.
fn vae_known(inputs: &KnownInputs<'_>, context: &mut DryRunContext<'_, '_>) -> Result<Vec<Known>> {
    let Ok(name) = inputs.args.text("vae_name") else { return Ok(Vec::new()) };
    let (_, checkpoint) = context.files.checkpoint(FileKind::Vae, name)?;
    VaeConfig::infer(&checkpoint)?;
    let options = &context.options.model;
    let open =
        |device_context: &Arc<DeviceContext>| Autoencoder::new(device_context.clone(), checkpoint, options);
    Ok(context.device_context.map(open).transpose()?.map(Known::Vae).into_iter().collect())
}

fn clip_known(inputs: &KnownInputs<'_>, context: &mut DryRunContext<'_, '_>) -> Result<Vec<Known>> {
    encoders_known(inputs, context, &["clip_name"])
}

fn dual_clip_known(inputs: &KnownInputs<'_>, context: &mut DryRunContext<'_, '_>) -> Result<Vec<Known>> {
    encoders_known(inputs, context, &["clip_name1", "clip_name2"])
}

fn encoders_known(
    inputs: &KnownInputs<'_>,
    context: &mut DryRunContext<'_, '_>,
    names: &[&'static str],
) -> Result<Vec<Known>> {
    let names: Vec<&str> = names.iter().filter_map(|name| inputs.args.text(name).ok()).collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let checkpoint = context.files.text_encoders(&names)?;
    let configs = TextConfig::infer_all(&checkpoint)?;
    let options = &context.options.model;
    let open = |device_context: &Arc<DeviceContext>| {
        TextEncoders::new(device_context.clone(), checkpoint.clone(), options)
    };
    let text = context.device_context.map(open).transpose()?.map(|text| with_folders(text, context.files));
    Ok(vec![text_known(checkpoint, configs, text)])
}
