//! The configuration of a model: all that the graph builders need to know. It is read off a checkpoint by
//! [`ModelConfig::infer`], or put together by a program.

mod bounds;
mod text;
mod unet;
mod vae;

use std::path::Path;

use crate::{Error, ErrorKind, Result};

pub use crate::checkpoint::key_maps::{UNET, VAE};
pub use crate::families::{Family, Prediction, Tower, Variant};
pub(crate) use bounds::MOST_CHANNELS;
pub use text::{Activation, TextConfig};
pub use unet::{Heads, InputBlock, MiddleBlock, OutputBlock, UnetConfig};
pub use vae::VaeConfig;

/// Noise levels other than those of all Stable Diffusion models.
#[derive(Debug, Clone, PartialEq)]
pub struct NoiseLevels {
    /// `ᾱ_i = Π (1 - β)`, first timestep first.
    pub alphas_cumprod: Vec<f64>,
}

/// All that the graph builders need to know of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Generation.
    pub family: Family,
    /// Kind of UNet input.
    pub variant: Variant,
    /// Meaning of the UNet's output. May be overridden where the user knows better.
    pub prediction: Prediction,
    /// What a VAE latent is multiplied by to have a variance near 1 for the UNet.
    pub latent_scale: f32,
    /// The noise that the network was trained on, if it is not that of all Stable Diffusion models.
    pub noise: Option<NoiseLevels>,
    /// The denoising network.
    pub unet: UnetConfig,
    /// The autoencoder between pictures and latents.
    pub vae: VaeConfig,
    /// Text encoders, in the order in which their outputs are concatenated; never empty.
    pub text: Vec<TextConfig>,
}

/// The part of a [`ModelConfig`] that a denoising network has by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct DiffusionConfig {
    /// Generation.
    pub family: Family,
    /// Kind of UNet input.
    pub variant: Variant,
    /// Meaning of the UNet's output.
    pub prediction: Prediction,
    /// What a VAE latent is multiplied by to have a variance near 1 for the UNet.
    pub latent_scale: f32,
    /// The noise that the network was trained on, if it is not that of all Stable Diffusion models.
    pub noise: Option<NoiseLevels>,
    /// The network.
    pub unet: UnetConfig,
}

impl DiffusionConfig {
    /// That of a whole model.
    pub fn of(model: &ModelConfig) -> Self {
        let ModelConfig { family, variant, prediction, latent_scale, .. } = *model;
        let (noise, unet) = (model.noise.clone(), model.unet.clone());
        Self { family, variant, prediction, latent_scale, noise, unet }
    }

    /// Whether this version runs such a network; `file` is named if not.
    ///
    /// # Errors
    /// [`ErrorKind::Model`] for inpainting, image editing and other kinds of input.
    pub fn runnable(&self, file: &Path) -> Result<()> {
        runnable(self.family, self.variant, self.unet.in_channels, file)
    }
}

impl ModelConfig {
    /// Whether this version runs such a network; `file` is named if not.
    ///
    /// # Errors
    /// [`ErrorKind::Model`] for inpainting, image editing and other kinds of input.
    pub fn runnable(&self, file: &Path) -> Result<()> {
        runnable(self.family, self.variant, self.unet.in_channels, file)
    }

    /// Pixels per latent cell, in each direction.
    pub fn latent_cell(&self) -> usize {
        self.vae.scale()
    }

    /// Width and height in pixels that the family was trained at.
    pub fn native_side(&self) -> usize {
        self.family.facts().native_side(self.prediction)
    }
}

fn runnable(family: Family, variant: Variant, channels: usize, file: &Path) -> Result<()> {
    if variant == Variant::Base {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Model, "this kind of model is not supported yet")
        .file(file)
        .expected("a text-to-image checkpoint of SD 1, SD 2 or SDXL")
        .found(format!("{family}, {variant}, {channels} input channels"))
        .hint("pass the checkpoint that this one was trained from"))
}

/// The family that reads these text encoders.
pub(crate) fn family_of(text: &[TextConfig]) -> Family {
    match text.first().map(|t| t.tower) {
        Some(Tower::H) => Family::Sd2,
        Some(Tower::G) => Family::Sdxl,
        _ if text.len() > 1 => Family::Sdxl,
        _ => Family::Sd1,
    }
}
