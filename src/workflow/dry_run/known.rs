//! What a dry run knows of a node's inputs and outputs.

use std::sync::Arc;

use crate::Result;
use crate::checkpoint::Checkpoint;
use crate::guidance::{Conditioning, Guidance};
use crate::lora::{Lora, LoraUse, Networks, Patches};
use crate::model::DiffusionConfig;
use crate::model::config::{TextConfig, family_of};
use crate::pipeline::{Autoencoder, DeviceContext, DiffusionModel, Solver, TextEncoders};
use crate::sampler::Discrete;
use crate::workflow::files::Files;
use crate::workflow::graph::Node;
use crate::workflow::run::context::Options;
use crate::workflow::spec::Class;
use crate::workflow::value::{Arguments, Prompt, Value};

/// What is known of an output.
#[derive(Clone)]
pub(crate) enum Known {
    /// All of it.
    Value(Value),
    Model(KnownModel),
    Clip(KnownClip),
    /// An autoencoder on the device.
    Vae(Autoencoder),
    Guider(KnownGuider),
    Latent(KnownLatents),
    /// Pictures, `[batch, height, width]` in pixels.
    Image([usize; 3]),
    /// Nothing but its type.
    Type,
}

/// A denoising network, as far as files and nodes say.
#[derive(Clone)]
pub(crate) struct KnownModel {
    pub checkpoint: Arc<Checkpoint>,
    pub config: Arc<DiffusionConfig>,
    pub table: Arc<Discrete>,
    pub guidance: Guidance,
    /// On top.
    pub loras: Vec<LoraUse>,
    /// The same on the device, if there is one.
    pub diffusion: Option<DiffusionModel>,
}

/// Text encoders, as far as files say.
#[derive(Clone)]
pub(crate) struct KnownClip {
    pub checkpoint: Arc<Checkpoint>,
    pub configs: Arc<Vec<TextConfig>>,
    /// Layers counted from the end, where a node sets them.
    pub skip: Option<usize>,
    /// On top.
    pub loras: Vec<LoraUse>,
    /// The same on the device, if there is one.
    pub text: Option<TextEncoders>,
}

/// Latents, as far as sizes say.
#[derive(Clone, Copy)]
pub(crate) struct KnownLatents {
    /// `[batch, height, width]` in cells.
    pub size: [usize; 3],
    /// Whether a mask comes with them.
    pub masked: bool,
}

/// A network with prompts that hold no text, but have the right widths, times and places.
#[derive(Clone)]
pub(crate) struct KnownGuider {
    pub model: KnownModel,
    pub positive: Arc<Vec<Prompt>>,
    pub negative: Option<Arc<Vec<Prompt>>>,
    pub cfg: f32,
}

/// What a sampler's node would run.
pub(crate) struct KnownSampling {
    pub guider: KnownGuider,
    pub solver: Solver,
    pub sigmas: Vec<f32>,
    pub latents: Option<KnownLatents>,
}

/// What a dry run has at hand.
pub(crate) struct DryRunContext<'s, 'f> {
    pub files: &'s mut Files<'f>,
    pub options: &'s Options,
    /// Where it would run, if that is known.
    pub device_context: Option<&'s Arc<DeviceContext>>,
}

impl DryRunContext<'_, '_> {
    /// Whether everything is checked, before there is a device. With one it is the memory alone.
    pub fn checks_everything(&self) -> bool {
        self.device_context.is_none()
    }
}

/// A node with what is known of its inputs.
pub(crate) struct KnownInputs<'s> {
    pub inputs: Vec<(&'static str, Known)>,
    /// Those of which all is known.
    pub args: Arguments<'s>,
}

impl<'s> KnownInputs<'s> {
    pub fn new(node: &'s Node, class: &'static Class, inputs: Vec<(&'static str, Known)>) -> Self {
        let values = inputs.iter().filter_map(|(name, known)| match known {
            Known::Value(value) => Some((*name, value.clone().fits(class.input(name)?).ok()?)),
            _ => None,
        });
        let args = Arguments { node, class, values: values.collect() };
        Self { inputs, args }
    }

    pub fn input(&self, name: &str) -> Option<&Known> {
        self.inputs.iter().find(|(n, _)| *n == name).map(|(_, known)| known)
    }

    pub fn model(&self, name: &str) -> Option<&KnownModel> {
        match self.input(name)? {
            Known::Model(model) => Some(model),
            _ => None,
        }
    }

    pub fn clip(&self, name: &str) -> Option<&KnownClip> {
        match self.input(name)? {
            Known::Clip(clip) => Some(clip),
            _ => None,
        }
    }

    pub fn latents(&self, name: &str) -> Option<KnownLatents> {
        match self.input(name)? {
            Known::Latent(latents) => Some(*latents),
            _ => None,
        }
    }

    /// The size of pictures, `[batch, height, width]` in pixels.
    pub fn image(&self, name: &str) -> Option<[usize; 3]> {
        match self.input(name)? {
            Known::Image(size) => Some(*size),
            _ => None,
        }
    }

    /// An output that is an input.
    pub fn passed(&self, name: &str) -> Vec<Known> {
        self.input(name).cloned().into_iter().collect()
    }
}

impl KnownModel {
    /// With a LoRA on top.
    pub fn patched(mut self, lora: LoraUse) -> Result<Self> {
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

impl KnownClip {
    /// LoRAs on top that hold embeddings.
    pub fn bundles(&self) -> Vec<Arc<Lora>> {
        let all = self.loras.iter().map(|one| &one.lora);
        all.filter(|lora| lora.embeddings().next().is_some()).cloned().collect()
    }

    /// With a LoRA on top.
    pub fn patched(mut self, lora: LoraUse) -> Result<Self> {
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

impl KnownGuider {
    /// Both sides for latents of this size, height and width in cells.
    pub fn conditioning(&self, size: (usize, usize)) -> Conditioning {
        let wants_vector = self.model.config.unet.adm_in_channels.is_some();
        let side = |prompts: &[Prompt]| prompts.iter().map(|p| p.resolved(size, wants_vector)).collect();
        let negative = self.negative.as_ref().unwrap_or(&self.positive);
        Conditioning { positive: side(&self.positive), negative: side(negative) }.with_opposites()
    }
}
