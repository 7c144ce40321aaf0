//! What a run would refuse, told before it begins: nodes whose inputs are known by now are done, and of the
//! others that is followed which later nodes look at — the guidance of a model, what text encoders
//! are, when prompts count, sizes. On a device it is also known whether each network fits the memory.

mod memory;
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
use crate::lora::{Lora, LoraUse, Networks, Patches};
use crate::model::config::{TextConfig, VaeConfig, family_of};
use crate::model::{DiffusionConfig, ModelConfig, Prediction};
use crate::pipeline::{self, Autoencoder, DiffusionModel, Sizes, Solver, Studio, TextEncoders};
use crate::sampler::Discrete;
use crate::text::embedding_files::{EmbeddingSources, Learned};
use crate::text::prompt;
use crate::{ErrorKind, Result};

/// What is known of an output.
#[derive(Clone)]
enum Known {
    /// All.
    Value(Value),
    Model(Model),
    Clip(Clip),
    /// An autoencoder on the device.
    Vae(Autoencoder),
    Guider(Guider),
    Latent(Latents),
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
    /// On top.
    loras: Vec<LoraUse>,
    /// The same on the device, if there is one.
    diffusion: Option<DiffusionModel>,
}

/// Text encoders, as far as files tell.
#[derive(Clone)]
struct Clip {
    checkpoint: Arc<Checkpoint>,
    configs: Arc<Vec<TextConfig>>,
    /// Layers counted from the end, as a node tells.
    skip: Option<usize>,
    /// On top.
    loras: Vec<LoraUse>,
    /// The same on the device, if there is one.
    text: Option<TextEncoders>,
}

/// Latents, as far as sizes tell.
#[derive(Clone, Copy)]
struct Latents {
    /// `[batch, height, width]` in cells.
    size: [usize; 3],
    /// Whether a mask comes with them.
    masked: bool,
}

/// A network with prompts that hold no text, but have the right widths, times and places.
#[derive(Clone)]
struct Guider {
    model: Model,
    positive: Arc<Vec<Prompt>>,
    negative: Option<Arc<Vec<Prompt>>>,
    cfg: f32,
}

/// What nodes are looked at with.
pub(super) struct Sight<'s, 'f> {
    pub files: &'s mut Files<'f>,
    pub options: &'s Options,
    /// Where it would run, if that is known.
    pub studio: Option<&'s Arc<Studio>>,
}

impl Sight<'_, '_> {
    /// Whether all is looked at, before there is a device. On one it is the memory alone.
    fn is_first(&self) -> bool {
        self.studio.is_none()
    }
}

/// Looks at all steps; on a device at the memory that they take too, which is told of last: then it is the
/// network that needs the most of it.
///
/// # Errors
/// Those of the nodes, each with its node's name.
pub(super) fn all(graph: &Graph, steps: &[Step], sight: &mut Sight<'_, '_>) -> Result<()> {
    let mut done: HashMap<usize, Vec<Known>> = HashMap::new();
    let mut largest = memory::Largest::default();
    for step in steps {
        let node = &graph.nodes()[step.node];
        let seen = Seen::new(node, step, &done);
        let outputs = match seen.outputs(sight) {
            // What comes about in the run is not known yet.
            Err(e) if e.kind() == ErrorKind::Internal => Vec::new(),
            outputs => outputs.map_err(|e| named(node, e))?,
        };
        if !sight.is_first()
            && let Err(e) = memory::look(&seen, sight.options)
        {
            largest.add(node, e);
        }
        done.insert(step.node, outputs);
    }
    largest.refused()
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
    fn outputs(&self, sight: &mut Sight<'_, '_>) -> Result<Vec<Known>> {
        if sight.is_first() {
            self.tell_prompts_left_out();
        }
        if let Function::Plain(run) = self.step.class.run
            && self.args.values.len() == self.step.inputs.len()
        {
            return Ok(run(&self.args)?.into_iter().map(Known::Value).collect());
        }
        let found = match self.step.class.name {
            "CheckpointLoaderSimple" => whole(&self.args, sight)?,
            "UNETLoader" => alone(&self.args, sight)?,
            "VAELoader" => autoencoder(&self.args, sight)?,
            "CLIPLoader" | "DualCLIPLoader" => encoders(&self.args, sight)?,
            "LoraLoader" | "LoraLoaderModelOnly" => self.with_lora(sight)?,
            "CLIPSetLastLayer" => self.skipped()?,
            "CLIPTextEncode" | "CLIPTextEncodeSDXL" => self.prompts(sight.files)?,
            "ConditioningSetMask" => self.passed("conditioning"),
            "SelfAttentionGuidance" => self.guided(guidance::with_sag)?,
            "PerturbedAttentionGuidance" => self.guided(guidance::with_pag)?,
            "RescaleCFG" => self.guided(guidance::with_rescale)?,
            "ModelSamplingDiscrete" => self.meant()?,
            "BasicScheduler" => self.levels(self.model("model"), custom::basic_levels)?,
            "CFGGuider" | "BasicGuider" => {
                self.guider("conditioning").map(Known::Guider).into_iter().collect()
            }
            "KSampler" | "KSamplerAdvanced" | "SamplerCustom" | "SamplerCustomAdvanced" => {
                self.sampled(sight)?
            }
            _ => sizes::outputs(self, sight.files)?,
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

    fn with_lora(&self, sight: &mut Sight<'_, '_>) -> Result<Vec<Known>> {
        let (model, clip) = (self.model("model"), self.clip());
        let strength = |name: &str| self.args.float(name).map_or(0.0, |v| v as f32);
        let strengths = (strength("strength_model"), strength("strength_clip"));
        if let (Some(model), true, Ok(name)) = (model, strengths != (0.0, 0.0), self.args.text("lora_name")) {
            let lora = sight.files.lora(name)?;
            if sight.is_first() {
                let of_model = (model.config.family, &*model.checkpoint);
                let of_clip = clip.map(|clip| (&*clip.checkpoint, clip.configs.as_slice()));
                loaders::look_at_lora(&lora, strengths, of_model, of_clip)?;
            }
            let (unet, text) = strengths;
            let one = LoraUse { unet, text, ..LoraUse::new(lora, 0.0) };
            let patched = [Known::Model(model.clone().patched(one.clone())?)];
            return Ok(match clip {
                Some(clip) => [&patched[..], &[Known::Clip(clip.clone().patched(one)?)]].concat(),
                None => patched.to_vec(),
            });
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
        let places = EmbeddingSources { loras: clip.bundles(), folders: files.places().models.embeddings() };
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
        // As long as they are is of interest where they take memory.
        let texts = ["text", "text_l", "text_g"].iter().filter_map(|name| self.args.text(name).ok());
        let tokens = match &clip.text {
            Some(text) => texts.map(|written| text.count(written)).collect::<Result<Vec<_>>>()?,
            None => Vec::new(),
        };
        let tokens = tokens.into_iter().max().unwrap_or(1);
        let width: usize = configs.iter().map(|config| config.width).sum();
        let mut entry = Entry::new(vec![0.0; width * tokens], tokens);
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

    /// What a sampler's node would run, as far as that is known.
    fn sampling(&self) -> Result<Option<Sampling>> {
        let guider = match self.input("guider") {
            Some(Known::Guider(guider)) => Some(guider.clone()),
            _ => self.guider("positive"),
        };
        let Some(guider) = guider else { return Ok(None) };
        let table = &guider.model.table;
        let written = || sampling::named(self.args.text("sampler_name")?);
        let (solver, sigmas) = match self.step.class.name {
            "KSampler" => (written()?, sampling::levels(&self.args, table)?),
            "KSamplerAdvanced" => (written()?, sampling::some_levels(&self.args, table)?),
            _ => match (self.args.sampler("sampler"), self.args.sigmas("sigmas")) {
                (Ok(solver), Ok(sigmas)) => (*solver, sigmas.to_vec()),
                _ => return Ok(None),
            },
        };
        let latents = match self.input("latent_image") {
            Some(Known::Latent(latents)) => Some(*latents),
            _ => None,
        };
        Ok(Some(Sampling { guider, solver, sigmas, latents }))
    }

    fn sampled(&self, sight: &Sight<'_, '_>) -> Result<Vec<Known>> {
        if sight.is_first()
            && let Some(sampling) = self.sampling()?
        {
            rehearse::check(&sampling)?;
        }
        // SamplerCustom has two outputs.
        Ok([self.passed("latent_image"), self.passed("latent_image")].concat())
    }
}

/// What a sampler's node would run.
struct Sampling {
    guider: Guider,
    solver: Solver,
    sigmas: Vec<f32>,
    latents: Option<Latents>,
}

impl Model {
    /// With a LoRA on top.
    fn patched(mut self, lora: LoraUse) -> Result<Self> {
        let changes = lora.unet != 0.0;
        self.loras.push(lora);
        if let Some(diffusion) = self.diffusion.as_mut().filter(|_| changes) {
            let (family, model) = (self.config.family, &*self.checkpoint);
            let networks = Networks { family, model, unet: true, text: &[] };
            *diffusion = diffusion.with_patches(Arc::new(Patches::of_part(&networks, &self.loras)?));
        }
        Ok(self)
    }
}

impl Clip {
    /// LoRAs on top that hold embeddings.
    fn bundles(&self) -> Vec<Arc<Lora>> {
        let all = self.loras.iter().map(|one| &one.lora);
        all.filter(|lora| lora.embeddings().next().is_some()).cloned().collect()
    }

    /// With a LoRA on top.
    fn patched(mut self, lora: LoraUse) -> Result<Self> {
        let changes = lora.text != 0.0;
        self.loras.push(lora);
        if let Some(text) = self.text.as_mut().filter(|_| changes) {
            let (family, model) = (family_of(&self.configs), &*self.checkpoint);
            let networks = Networks { family, model, unet: false, text: &self.configs };
            *text = text.with_patches(Arc::new(Patches::of_part(&networks, &self.loras)?));
        }
        Ok(self)
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
    diffusion: Option<DiffusionModel>,
) -> Result<Known> {
    config.prediction = told.unwrap_or(config.prediction);
    let table = Arc::new(pipeline::noise_levels(config.prediction, config.noise.as_ref())?);
    let (config, guidance) = (Arc::new(config), Guidance::new(1.0));
    Ok(Known::Model(Model { checkpoint, config, table, guidance, loras: Vec::new(), diffusion }))
}

/// Encoders as they are in their file.
fn encoders_of(checkpoint: Arc<Checkpoint>, configs: Vec<TextConfig>, text: Option<TextEncoders>) -> Known {
    Known::Clip(Clip { checkpoint, configs: Arc::new(configs), skip: None, loras: Vec::new(), text })
}

/// Encoders that find embeddings, as far as prompts are counted.
fn with_folders(mut text: TextEncoders, sight: &Sight<'_, '_>) -> TextEncoders {
    text.set_embedding_folders(sight.files.places().models.embeddings());
    text
}

fn whole(args: &Arguments<'_>, sight: &mut Sight<'_, '_>) -> Result<Vec<Known>> {
    let Ok(name) = args.text("ckpt_name") else { return Ok(Vec::new()) };
    let (_, checkpoint) = sight.files.checkpoint(FileKind::Checkpoint, name)?;
    let config = ModelConfig::infer(&checkpoint)?;
    let options = &sight.options.model;
    let open = |studio: &Arc<Studio>| pipeline::Model::open_in(studio.clone(), checkpoint.clone(), options);
    let device = sight.studio.map(open).transpose()?;
    let diffusion = device.as_ref().map(|model| model.diffusion_model().clone());
    let text = device.as_ref().map(|model| with_folders(model.text_encoders().clone(), sight));
    let vae = device.map(|model| model.autoencoder().clone());
    Ok(vec![
        network(checkpoint.clone(), DiffusionConfig::of(&config), options.prediction, diffusion)?,
        encoders_of(checkpoint, config.text, text),
        vae.map_or(Known::Type, Known::Vae),
    ])
}

fn alone(args: &Arguments<'_>, sight: &mut Sight<'_, '_>) -> Result<Vec<Known>> {
    let Ok(name) = args.text("unet_name") else { return Ok(Vec::new()) };
    let (_, checkpoint) = sight.files.checkpoint(FileKind::DiffusionModel, name)?;
    let config = DiffusionConfig::infer(&checkpoint)?;
    let options = &sight.options.model;
    let open = |studio: &Arc<Studio>| DiffusionModel::new(studio.clone(), checkpoint.clone(), options);
    let diffusion = sight.studio.map(open).transpose()?;
    Ok(vec![network(checkpoint, config, options.prediction, diffusion)?])
}

/// An autoencoder, of which later nodes look at nothing but its memory.
fn autoencoder(args: &Arguments<'_>, sight: &mut Sight<'_, '_>) -> Result<Vec<Known>> {
    let Ok(name) = args.text("vae_name") else { return Ok(Vec::new()) };
    let (_, checkpoint) = sight.files.checkpoint(FileKind::Vae, name)?;
    VaeConfig::infer(&checkpoint)?;
    let options = &sight.options.model;
    let open = |studio: &Arc<Studio>| Autoencoder::new(studio.clone(), checkpoint, options);
    Ok(sight.studio.map(open).transpose()?.map(Known::Vae).into_iter().collect())
}

fn encoders(args: &Arguments<'_>, sight: &mut Sight<'_, '_>) -> Result<Vec<Known>> {
    let names: Vec<&str> =
        ["clip_name", "clip_name1", "clip_name2"].iter().filter_map(|name| args.text(name).ok()).collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let checkpoint = sight.files.text_encoders(&names)?;
    let configs = TextConfig::infer_all(&checkpoint)?;
    let options = &sight.options.model;
    let open = |studio: &Arc<Studio>| TextEncoders::new(studio.clone(), checkpoint.clone(), options);
    let text = sight.studio.map(open).transpose()?.map(|text| with_folders(text, sight));
    Ok(vec![encoders_of(checkpoint, configs, text)])
}
