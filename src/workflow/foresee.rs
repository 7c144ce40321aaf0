//! What a run would refuse, told before it begins: nodes whose inputs are known by now are done, and of the
//! others that is followed which later nodes look at — the guidance of a model, what text encoders
//! are, when prompts count, sizes.

mod rehearse;
mod sizes;

use std::collections::HashMap;
use std::sync::Arc;

use super::check::{Source, Step};
use super::files::Files;
use super::graph::{Graph, Node};
use super::nodes::{FileKind, Function, conditioning, custom, guidance, loaders, sampling};
use super::run::{Options, named};
use super::value::{Arguments, Prompt, Value};
use crate::checkpoint::Checkpoint;
use crate::guidance::{Entry, Guidance};
use crate::lora::Lora;
use crate::model::config::{TextConfig, VaeConfig, family_of};
use crate::model::{DiffusionConfig, ModelConfig, Prediction};
use crate::pipeline::{self, Sizes, Solver};
use crate::sampler::Discrete;
use crate::text::learned::{Learned, Places};
use crate::text::prompt;
use crate::{ErrorKind, Result};

/// What is known of an output.
#[derive(Clone)]
enum Known {
    /// All.
    Value(Value),
    Model(Model),
    Clip(Clip),
    Guider(Guider),
    /// Latents, `[batch, height, width]` in cells.
    Latent([usize; 3]),
    /// Pictures, `[batch, height, width]` in pixels.
    Image([usize; 3]),
    /// Nothing but its type.
    Type,
}

/// A denoising network, as far as files and nodes tell.
#[derive(Clone)]
struct Model {
    checkpoint: Arc<Checkpoint>,
    config: Arc<DiffusionConfig>,
    table: Arc<Discrete>,
    guidance: Guidance,
}

/// Text encoders, as far as files tell.
#[derive(Clone)]
struct Clip {
    checkpoint: Arc<Checkpoint>,
    configs: Arc<Vec<TextConfig>>,
    /// Layers counted from the end, as a node tells.
    skip: Option<usize>,
    /// LoRAs on top that hold embeddings.
    bundles: Vec<Arc<Lora>>,
}

/// A network with prompts that hold no text, but have the right widths, times and places.
#[derive(Clone)]
struct Guider {
    model: Model,
    positive: Arc<Vec<Prompt>>,
    negative: Option<Arc<Vec<Prompt>>>,
    cfg: f32,
}

/// Looks at all steps.
///
/// # Errors
/// Those of the nodes, each with its node's name.
pub(super) fn all(graph: &Graph, steps: &[Step], files: &mut Files<'_>, options: &Options) -> Result<()> {
    let mut done: HashMap<usize, Vec<Known>> = HashMap::new();
    for step in steps {
        let node = &graph.nodes()[step.node];
        let seen = Seen::new(node, step, &done);
        let outputs = match seen.outputs(files, options) {
            // What comes about in the run is not known yet.
            Err(e) if e.kind() == ErrorKind::Internal => Vec::new(),
            outputs => outputs.map_err(|e| named(node, e))?,
        };
        done.insert(step.node, outputs);
    }
    Ok(())
}

/// A step with what is known of its inputs.
struct Seen<'s> {
    step: &'s Step,
    inputs: Vec<(&'static str, Known)>,
    /// Those of which all is known.
    args: Arguments<'s>,
}

impl<'s> Seen<'s> {
    fn new(node: &'s Node, step: &'s Step, done: &HashMap<usize, Vec<Known>>) -> Self {
        let known = |source: &Source| match source {
            Source::Value(value) => Known::Value(value.clone()),
            Source::Output(at, output) => {
                done.get(at).and_then(|outputs| outputs.get(*output)).cloned().unwrap_or(Known::Type)
            }
        };
        let inputs: Vec<_> = step.inputs.iter().map(|(name, source)| (*name, known(source))).collect();
        let values = inputs.iter().filter_map(|(name, known)| match known {
            Known::Value(value) => Some((*name, value.clone().fits(step.class.input(name)?).ok()?)),
            _ => None,
        });
        let args = Arguments { node, class: step.class, values: values.collect() };
        Self { step, inputs, args }
    }

    fn input(&self, name: &str) -> Option<&Known> {
        self.inputs.iter().find(|(n, _)| *n == name).map(|(_, known)| known)
    }

    fn model(&self, name: &str) -> Option<&Model> {
        match self.input(name)? {
            Known::Model(model) => Some(model),
            _ => None,
        }
    }

    fn clip(&self) -> Option<&Clip> {
        match self.input("clip")? {
            Known::Clip(clip) => Some(clip),
            _ => None,
        }
    }

    /// What is known of the outputs.
    fn outputs(&self, files: &mut Files<'_>, options: &Options) -> Result<Vec<Known>> {
        self.tell_prompts_left_out();
        if let Function::Plain(run) = self.step.class.run
            && self.args.values.len() == self.step.inputs.len()
        {
            return Ok(run(&self.args)?.into_iter().map(Known::Value).collect());
        }
        let found = match self.step.class.name {
            "CheckpointLoaderSimple" => whole(&self.args, files, options)?,
            "UNETLoader" => alone(&self.args, files, options)?,
            "VAELoader" => autoencoder(&self.args, files)?,
            "CLIPLoader" | "DualCLIPLoader" => encoders(&self.args, files)?,
            "LoraLoader" | "LoraLoaderModelOnly" => self.with_lora(files)?,
            "CLIPSetLastLayer" => self.skipped()?,
            "CLIPTextEncode" | "CLIPTextEncodeSDXL" => self.prompts(files)?,
            "ConditioningSetMask" => self.passed("conditioning"),
            "SelfAttentionGuidance" => self.guided(guidance::with_sag)?,
            "PerturbedAttentionGuidance" => self.guided(guidance::with_pag)?,
            "RescaleCFG" => self.guided(guidance::with_rescale)?,
            "ModelSamplingDiscrete" => self.meant()?,
            "BasicScheduler" => self.levels(self.model("model"), custom::basic_levels)?,
            "CFGGuider" | "BasicGuider" => {
                self.guider("conditioning").map(Known::Guider).into_iter().collect()
            }
            "KSampler" => self.sampled(sampling::levels)?,
            "KSamplerAdvanced" => self.sampled(sampling::some_levels)?,
            "SamplerCustom" | "SamplerCustomAdvanced" => self.sampled_along()?,
            _ => sizes::outputs(self, files)?,
        };
        let outputs = self.step.class.outputs.len();
        Ok(found.into_iter().chain(std::iter::repeat(Known::Type)).take(outputs).collect())
    }

    /// An output that is an input.
    fn passed(&self, name: &str) -> Vec<Known> {
        self.input(name).cloned().into_iter().collect()
    }

    /// Of several prompts where one is wanted the first is taken, as in ComfyUI.
    fn tell_prompts_left_out(&self) {
        if let Ok(from) = self.args.conditioning("conditioning_from")
            && from.len() > 1
        {
            let node = self.args.node;
            log::warn!("{node}: of conditioning_from only the first of {} prompts is used", from.len());
        }
    }

    fn with_lora(&self, files: &mut Files<'_>) -> Result<Vec<Known>> {
        let (model, clip) = (self.model("model"), self.clip());
        let strength = |name: &str| self.args.float(name).map_or(0.0, |v| v as f32);
        let strengths = (strength("strength_model"), strength("strength_clip"));
        if let (Some(model), true, Ok(name)) = (model, strengths != (0.0, 0.0), self.args.text("lora_name")) {
            let lora = files.lora(name)?;
            let of_model = (model.config.family, &*model.checkpoint);
            let of_clip = clip.map(|clip| (&*clip.checkpoint, clip.configs.as_slice()));
            loaders::look_at_lora(&lora, strengths, of_model, of_clip)?;
            let holds_embeddings = lora.embeddings().next().is_some();
            if let (Some(clip), true) = (clip, holds_embeddings) {
                let bundles = [&clip.bundles[..], &[lora]].concat();
                let clip = Known::Clip(Clip { bundles, ..clip.clone() });
                return Ok([self.passed("model"), vec![clip]].concat());
            }
        }
        Ok([self.passed("model"), self.passed("clip")].concat())
    }

    fn skipped(&self) -> Result<Vec<Known>> {
        let Some(clip) = self.clip() else { return Ok(Vec::new()) };
        let skip = usize::try_from(self.args.int("stop_at_clip_layer")?.unsigned_abs()).ok();
        Ok(vec![Known::Clip(Clip { skip, ..clip.clone() })])
    }

    /// Prompts of no text.
    fn prompts(&self, files: &Files<'_>) -> Result<Vec<Known>> {
        let Some(clip) = self.clip() else { return Ok(Vec::new()) };
        let configs = &clip.configs;
        // Vectors that cannot be used; of names without any the run warns itself.
        let places = Places { loras: clip.bundles.clone(), folders: files.places().models.embeddings() };
        for text in ["text", "text_l", "text_g"].iter().filter_map(|name| self.args.text(name).ok()) {
            let learned = Learned::new(&places, configs, 0);
            prompt::missing_embeddings(text, learned.as_embeddings())?;
        }
        if self.step.class.name == "CLIPTextEncodeSDXL" {
            conditioning::two_encoders(configs.len(), family_of(configs))?;
        }
        for config in configs.iter() {
            pipeline::text_layer(configs, config, clip.skip)?;
        }
        let mut entry = Entry::new(vec![0.0; configs.iter().map(|config| config.width).sum()], 1);
        let pooled = configs.last().filter(|_| configs.len() > 1);
        entry.vector =
            pooled.map(|last| Sizes::default().vector(&vec![0.0; last.projection.unwrap_or(last.width)]));
        let prompt = Prompt { entry, sizes: None, area: None, strength: 1.0, mask: None };
        Ok(vec![Known::Value(Value::Conditioning(Arc::new(vec![prompt])))])
    }

    fn guided(&self, with: fn(&Guidance, &Arguments<'_>) -> Result<Guidance>) -> Result<Vec<Known>> {
        let Some(model) = self.model("model") else { return Ok(Vec::new()) };
        let guidance = with(&model.guidance, &self.args)?;
        Ok(vec![Known::Model(Model { guidance, ..model.clone() })])
    }

    fn meant(&self) -> Result<Vec<Known>> {
        let Some(model) = self.model("model") else { return Ok(Vec::new()) };
        let (_, table) = guidance::meaning(&self.args)?;
        Ok(vec![Known::Model(Model { table: Arc::new(table), ..model.clone() })])
    }

    fn levels(
        &self,
        model: Option<&Model>,
        of: fn(&Arguments<'_>, &Discrete) -> Result<Vec<f32>>,
    ) -> Result<Vec<Known>> {
        let Some(model) = model else { return Ok(Vec::new()) };
        Ok(vec![Known::Value(Value::Sigmas(Arc::new(of(&self.args, &model.table)?)))])
    }

    /// The guider that the inputs make; `positive` may be called `alone` where there is no negative.
    fn guider(&self, alone: &str) -> Option<Guider> {
        let side = |name: &str| self.args.conditioning(name).ok().cloned();
        Some(Guider {
            model: self.model("model")?.clone(),
            positive: side("positive").or_else(|| side(alone))?,
            negative: side("negative"),
            cfg: self.args.float("cfg").map_or(1.0, |cfg| cfg as f32),
        })
    }

    /// KSampler and its like.
    fn sampled(&self, of: fn(&Arguments<'_>, &Discrete) -> Result<Vec<f32>>) -> Result<Vec<Known>> {
        if let Some(guider) = self.guider("positive") {
            let sampler = sampling::named(self.args.text("sampler_name")?)?;
            self.rehearse(&guider, sampler, &of(&self.args, &guider.model.table)?)?;
        }
        Ok(self.passed("latent_image"))
    }

    /// SamplerCustom and its like.
    fn sampled_along(&self) -> Result<Vec<Known>> {
        let guider = match self.input("guider") {
            Some(Known::Guider(guider)) => Some(guider.clone()),
            _ => self.guider("positive"),
        };
        if let (Some(guider), Ok(sampler), Ok(sigmas)) =
            (guider, self.args.sampler("sampler"), self.args.sigmas("sigmas"))
        {
            self.rehearse(&guider, *sampler, sigmas)?;
        }
        Ok([self.passed("latent_image"), self.passed("latent_image")].concat())
    }

    fn rehearse(&self, guider: &Guider, solver: Solver, sigmas: &[f32]) -> Result<()> {
        let size = match self.input("latent_image") {
            Some(Known::Latent([_, height, width])) => (*height, *width),
            _ => rehearse::USUAL_SIZE,
        };
        rehearse::check(guider, solver, sigmas, size)
    }
}

/// A network whose output means this, under no guidance.
///
/// # Errors
/// Those of the noise levels that its file tells.
fn network(
    checkpoint: Arc<Checkpoint>,
    mut config: DiffusionConfig,
    told: Option<Prediction>,
) -> Result<Known> {
    config.prediction = told.unwrap_or(config.prediction);
    let table = Arc::new(pipeline::noise_levels(config.prediction, config.noise.as_ref())?);
    Ok(Known::Model(Model { checkpoint, config: Arc::new(config), table, guidance: Guidance::new(1.0) }))
}

fn whole(args: &Arguments<'_>, files: &mut Files<'_>, options: &Options) -> Result<Vec<Known>> {
    let Ok(name) = args.text("ckpt_name") else { return Ok(Vec::new()) };
    let (_, checkpoint) = files.checkpoint(FileKind::Checkpoint, name)?;
    let config = ModelConfig::infer(&checkpoint)?;
    let model = network(checkpoint.clone(), DiffusionConfig::of(&config), options.model.prediction)?;
    Ok(vec![
        model,
        Known::Clip(Clip { checkpoint, configs: Arc::new(config.text), skip: None, bundles: Vec::new() }),
    ])
}

fn alone(args: &Arguments<'_>, files: &mut Files<'_>, options: &Options) -> Result<Vec<Known>> {
    let Ok(name) = args.text("unet_name") else { return Ok(Vec::new()) };
    let (_, checkpoint) = files.checkpoint(FileKind::DiffusionModel, name)?;
    let config = DiffusionConfig::infer(&checkpoint)?;
    Ok(vec![network(checkpoint, config, options.model.prediction)?])
}

/// An autoencoder, of which later nodes look at nothing.
fn autoencoder(args: &Arguments<'_>, files: &mut Files<'_>) -> Result<Vec<Known>> {
    if let Ok(name) = args.text("vae_name") {
        let (_, checkpoint) = files.checkpoint(FileKind::Vae, name)?;
        VaeConfig::infer(&checkpoint)?;
    }
    Ok(Vec::new())
}

fn encoders(args: &Arguments<'_>, files: &mut Files<'_>) -> Result<Vec<Known>> {
    let names: Vec<&str> =
        ["clip_name", "clip_name1", "clip_name2"].iter().filter_map(|name| args.text(name).ok()).collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let checkpoint = files.text_encoders(&names)?;
    let configs = Arc::new(TextConfig::infer_all(&checkpoint)?);
    Ok(vec![Known::Clip(Clip { checkpoint, configs, skip: None, bundles: Vec::new() })])
}
