//! What is known of a file, by what it holds.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::picture::PictureFacts;
use crate::checkpoint::Checkpoint;
use crate::model::config::{TextConfig, VaeConfig};
use crate::model::{DiffusionConfig, ModelConfig};

/// What a file turned out to be.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Inspected {
    /// A checkpoint, a diffusers folder, or one network alone.
    Model(Box<ModelFacts>),
    /// Small changes to a model.
    Lora(LoraFacts),
    /// Learned vectors for prompts.
    Embedding(EmbeddingFacts),
    /// A PNG, JPEG or WebP.
    Picture(Box<PictureFacts>),
    /// A latent as ComfyUI's SaveLatent writes it.
    Latent(LatentFacts),
}

/// A file of latents.
#[derive(Debug, Clone, PartialEq)]
pub struct LatentFacts {
    /// `[batch, channels, height, width]`, in cells of 8 pixels.
    pub shape: [usize; 4],
    /// Of each channel over all pictures, in the VAE's scale.
    pub channels: Vec<Spread>,
    /// The texts beside it.
    pub texts: BTreeMap<String, String>,
}

/// How values are spread.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The smallest.
    pub least: f32,
    /// The largest.
    pub most: f32,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation.
    pub deviation: f64,
}

/// A checkpoint, or a part of one.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFacts {
    /// The file or folder.
    pub file: PathBuf,
    /// All that is known of a full model: UNet, VAE and text encoders that fit together.
    pub config: Option<ModelConfig>,
    /// What is known of a UNet, whatever is beside it.
    pub diffusion: Option<DiffusionConfig>,
    /// The VAE, if there is one.
    pub vae: Option<VaeConfig>,
    /// Text encoders in their places in a model.
    pub text: Vec<TextConfig>,
    /// Why it does not run as it is, in words, if so.
    pub obstacle: Option<String>,
    /// The networks that are there.
    pub parts: Vec<Part>,
    /// All tensors.
    pub all: Tally,
    /// The texts of the header.
    pub metadata: BTreeMap<String, String>,
}

/// A network in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Such as "UNet".
    pub name: &'static str,
    /// Its tensors.
    pub tally: Tally,
}

/// Tensors counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub tensors: usize,
    /// Numbers in them.
    pub parameters: u64,
    /// Bytes of them in the file.
    pub bytes: u64,
    /// Numbers by storage, such as F16.
    pub dtypes: BTreeMap<String, u64>,
}

/// A LoRA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoraFacts {
    /// The file.
    pub file: PathBuf,
    /// The name that prompts call it by.
    pub name: String,
    /// How many modules it changes.
    pub modules: usize,
    /// Ranks of its matrices, and how many modules have each.
    pub ranks: BTreeMap<usize, usize>,
    /// Kinds of changes (`LoRA`, `LoHa`, …), and how many weights have each.
    pub kinds: BTreeMap<&'static str, usize>,
    /// Whether it changes the UNet, and whether text encoders.
    pub changes: (bool, bool),
    /// Names of the embeddings that it holds.
    pub embeddings: Vec<String>,
    /// What in it contradicts itself or was left out.
    pub warnings: Vec<String>,
    /// The family that it seems made for.
    pub family: Option<&'static str>,
    /// All tensors.
    pub all: Tally,
    /// The texts of the header, such as kohya's `ss_base_model_version`.
    pub metadata: BTreeMap<String, String>,
}

/// A textual-inversion embedding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddingFacts {
    /// The file.
    pub file: PathBuf,
    /// The name that prompts call it by.
    pub name: String,
    /// Tensor, number of vectors, and their width.
    pub vectors: Vec<(String, usize, usize)>,
    /// The family that it is made for, by the width.
    pub family: Option<&'static str>,
    /// All tensors.
    pub all: Tally,
}

impl Tally {
    pub(super) fn add(&mut self, model: &Checkpoint, name: &str) {
        let Some(info) = model.tensor(name) else { return };
        let count = info.elements() as u64;
        self.tensors += 1;
        self.parameters += count;
        self.bytes += count * info.dtype.bitsize() as u64 / 8;
        *self.dtypes.entry(info.dtype.to_string()).or_default() += count;
    }

    pub(super) fn of<'a>(model: &Checkpoint, names: impl Iterator<Item = &'a str>) -> Self {
        let mut tally = Self::default();
        names.for_each(|name| tally.add(model, name));
        tally
    }
}
