//! What passes between nodes.

mod arguments;
mod images;
mod latents;
mod prompt;
mod written;

use std::sync::Arc;

use super::spec::Type;
use crate::guidance::Guidance;
use crate::image::Mask;
use crate::lora::LoraUse;
use crate::pipeline::{Autoencoder, DiffusionModel, Solver, TextEncoders};

pub(super) use arguments::Arguments;
pub(super) use images::{Images, SCALE_METHODS};
pub(super) use latents::Latents;
pub(super) use prompt::{Prompt, PromptArea, PromptMask};
pub(super) use written::range;

/// The output of a node. Copies share what is large.
#[derive(Clone)]
pub(crate) enum Value {
    Model(ModelValue),
    Clip(ClipValue),
    Vae(Autoencoder),
    Conditioning(Arc<Vec<Prompt>>),
    Latent(Arc<Latents>),
    Image(Arc<Images>),
    Mask(Arc<Vec<Mask>>),
    Sampler(Solver),
    Sigmas(Arc<Vec<f32>>),
    Guider(Arc<GuiderValue>),
    Noise(NoiseValue),
    Int(i128),
    Float(f64),
    Text(String),
    Bool(bool),
}

/// A denoising network with what was put on it.
#[derive(Clone)]
pub(crate) struct ModelValue {
    pub diffusion: DiffusionModel,
    pub loras: Vec<LoraUse>,
    /// What nodes have put on it; the CFG scale is a sampler's.
    pub guidance: Guidance,
}

/// Text encoders with what was put on them.
#[derive(Clone)]
pub(crate) struct ClipValue {
    pub text: TextEncoders,
    pub loras: Vec<LoraUse>,
    /// Layers counted from the end.
    pub skip: Option<usize>,
}

/// A network with both sides of its guidance.
#[derive(Clone)]
pub(crate) struct GuiderValue {
    pub model: ModelValue,
    pub positive: Arc<Vec<Prompt>>,
    /// None at a guider that has none.
    pub negative: Option<Arc<Vec<Prompt>>>,
    pub cfg: f32,
}

/// Where noise comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum NoiseValue {
    /// A seed's stream.
    Seed(u64),
    /// None.
    Off,
}

impl Value {
    /// Its type.
    pub fn type_of(&self) -> Type {
        match self {
            Self::Model(_) => Type::Model,
            Self::Clip(_) => Type::Clip,
            Self::Vae(_) => Type::Vae,
            Self::Conditioning(_) => Type::Conditioning,
            Self::Latent(_) => Type::Latent,
            Self::Image(_) => Type::Image,
            Self::Mask(_) => Type::Mask,
            Self::Sampler(_) => Type::Sampler,
            Self::Sigmas(_) => Type::Sigmas,
            Self::Guider(_) => Type::Guider,
            Self::Noise(_) => Type::Noise,
            Self::Int(_) => Type::Int,
            Self::Float(_) => Type::Float,
            Self::Text(_) => Type::Text,
            Self::Bool(_) => Type::Bool,
        }
    }
}
