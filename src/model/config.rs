//! What network a checkpoint holds, from the names and shapes of its tensors alone.
//!
//! Nothing is looked up by a model's name: sizes are read off the weights, so that any network of
//! the family runs, including small ones. Where two weights disagree, that is an error here and
//! not a wrong picture later.

mod bounds;
mod prediction;
mod taken;
mod text;
mod unet;
mod vae;

use std::fmt;
use std::path::Path;

use crate::checkpoint::{Checkpoint, refuse_foreign};
use crate::families::{self, REFINER_SIZES, SDXL_SIZES};
use crate::{Error, ErrorKind, Result};

pub(crate) use bounds::MOST_CHANNELS;
pub use text::{Activation, TextConfig, Tower};
pub use unet::{Heads, InputBlock, MiddleBlock, OutputBlock, UNET, UnetConfig};
pub use vae::{VAE, VaeConfig};

/// The generation of Stable Diffusion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Family {
    /// 1.x: CLIP ViT-L text encoder, 8 attention heads everywhere.
    Sd1,
    /// 2.x: OpenCLIP ViT-H text encoder, heads of 64 channels.
    Sd2,
    /// XL: CLIP ViT-L and OpenCLIP ViT-bigG, size and pooled-text conditioning.
    Sdxl,
}

/// What the UNet takes besides a noisy latent and a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Variant {
    /// Nothing: text to image.
    Base,
    /// 9 input channels: latent, mask, masked image.
    Inpainting,
    /// 8 input channels: latent, image to be edited (InstructPix2Pix).
    Edit,
    /// 5 input channels: latent, depth map.
    Depth,
    /// 7 input channels: latent, small image.
    Upscaler,
    /// SDXL's second stage: OpenCLIP ViT-bigG alone, with an aesthetic score.
    Refiner,
    /// SD2 with an image embedding beside the prompt.
    Unclip,
}

/// Noise levels other than those of all Stable Diffusion models.
#[derive(Debug, Clone, PartialEq)]
pub struct NoiseLevels {
    /// `ᾱ_i = Π (1 - β)`, first timestep first.
    pub alphas_cumprod: Vec<f64>,
}

/// What the UNet's output means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Prediction {
    /// The noise, ε.
    Eps,
    /// The velocity, v = α ε − σ x₀ (Salimans and Ho, 2022).
    V,
    /// The velocity, by a network whose last step is pure noise: a signal-to-noise ratio of zero.
    ZeroSnrV,
    /// The picture itself, x₀.
    Picture,
    /// The noise, by a network trained to be consistent along its way (LCM; Luo et al. 2023, arXiv
    /// 2310.04378): its prediction leans on the input where there is little noise.
    Consistency,
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

    /// Infers it from a file that holds a UNet, by whose shapes alone the family is told.
    ///
    /// # Errors
    /// [`ErrorKind::Model`] if there is no UNet, or the file is another kind of model.
    pub fn infer(model: &Checkpoint) -> Result<Self> {
        refuse_foreign(model)?;
        let unet = UnetConfig::infer(model)?;
        let (family, variant) = kind_of(model, &unet)?;
        check_output(model, family, &unet)?;
        taken::check_unet(model, &unet)?;
        let prediction = prediction::of(model, family, &unet)?;
        let latent_scale = model.latent_scale().unwrap_or(family.facts().latent_scale);
        let noise = prediction::noise(model)?;
        Ok(Self { family, variant, prediction, latent_scale, noise, unet })
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
    /// Infers the configuration of a checkpoint in the original single-file layout. Tensors that
    /// belong to no network (`position_ids`, `betas`, `model_ema.*`, …) are ignored.
    ///
    /// # Errors
    /// [`ErrorKind::Model`] if a part is missing, parts do not fit
    /// together, or the file is another kind of model; the message names the tensor.
    pub fn infer(model: &Checkpoint) -> Result<Self> {
        refuse_foreign(model)?;
        let unet = UnetConfig::infer(model)?;
        let (family, variant) = kind_of(model, &unet)?;
        let text = TextConfig::infer_beside(model, family, variant, &unet)?;
        let vae = VaeConfig::infer(model)?;
        check_fit(model, family, variant, &unet, &vae, &text)?;
        check_output(model, family, &unet)?;
        taken::check_unet(model, &unet)?;
        let prediction = prediction::of(model, family, &unet)?;
        let latent_scale = model.latent_scale().unwrap_or(family.facts().latent_scale);
        let noise = prediction::noise(model)?;
        Ok(Self { family, variant, prediction, latent_scale, noise, unet, vae, text })
    }

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

/// Family and variant of a UNet, whatever stands beside it.
fn kind_of(model: &Checkpoint, unet: &UnetConfig) -> Result<(Family, Variant)> {
    let (family, variant) =
        families::of_unet(unet.use_linear_in_transformer, unet.context_dim, unet.adm_in_channels);
    let variant = match unet.in_channels {
        4 => variant,
        5 => Variant::Depth,
        7 => Variant::Upscaler,
        8 => Variant::Edit,
        9 => Variant::Inpainting,
        n => {
            return Err(model
                .fault("a UNet with an unknown kind of input")
                .at(format!("{UNET}input_blocks.0.0.weight"))
                .expected("4, 5, 7, 8 or 9 channels")
                .found(n.to_string())
                .hint("pass a text-to-image checkpoint"));
        }
    };
    Ok((family, variant))
}

/// Refuses a network that gives more than a prediction for each channel of a latent, such as a variance.
fn check_output(model: &Checkpoint, family: Family, unet: &UnetConfig) -> Result<()> {
    let channels = family.facts().latent_channels;
    if unet.out_channels == channels {
        return Ok(());
    }
    Err(model
        .fault("a UNet with an unknown kind of output")
        .at(format!("{UNET}out.2.weight"))
        .expected(format!("{channels} channels, as a latent of {family} has"))
        .found(unet.out_channels.to_string())
        .hint("pass a text-to-image checkpoint"))
}

/// The parts of a checkpoint were trained together; a file whose parts do not fit was put
/// together from several models.
fn check_fit(
    model: &Checkpoint,
    family: Family,
    variant: Variant,
    unet: &UnetConfig,
    vae: &VaeConfig,
    text: &[TextConfig],
) -> Result<()> {
    let unfit = |what: &str, expected: String, found: String| -> Result<()> {
        Err(misfit(model, what).expected(expected).found(found))
    };
    let width: usize = text.iter().map(|t| t.width).sum();
    if unet.context_dim != width {
        let expected = format!("{} values per token for the UNet's cross-attention", unet.context_dim);
        let found = format!("{width} from the text encoder; the UNet looks like {family}");
        return unfit("text encoder and UNet do not fit", expected, found);
    }
    if unet.out_channels != vae.latent_channels {
        let expected = format!("{} latent channels for the VAE", vae.latent_channels);
        return unfit("UNet and VAE do not fit", expected, format!("{} from the UNet", unet.out_channels));
    }
    let cell = family.facts().latent_cell;
    if vae.scale() != cell {
        let found = format!("{} of the VAE, whose {} levels tell it", vae.scale(), vae.level_channels.len());
        return unfit("UNet and VAE do not fit", format!("{cell} pixels a latent cell for {family}"), found);
    }
    // Besides the pooled text.
    let sizes = if variant == Variant::Refiner { REFINER_SIZES } else { SDXL_SIZES };
    if family == Family::Sdxl
        && let Some(last) = text.last().filter(|t| t.projection.is_none())
    {
        let projection = format!("{}text_projection", last.prefix);
        return Err(
            model.missing(&projection, format!("a matrix of {} rows, for SDXL's pooled text", last.width))
        );
    }
    let adm = match (family, variant) {
        (Family::Sdxl, _) => text.last().and_then(|t| t.projection).map(|pooled| pooled + sizes),
        (_, Variant::Unclip | Variant::Upscaler) => unet.adm_in_channels,
        _ => None,
    };
    if unet.adm_in_channels != adm {
        let show = |n: Option<usize>| n.map_or("none".into(), |n| format!("{n} values"));
        return unfit(
            "the UNet's extra conditioning does not fit",
            show(adm),
            format!("{} in {UNET}label_emb.0.0.weight", show(unet.adm_in_channels)),
        );
    }
    Ok(())
}

fn misfit(model: &Checkpoint, what: &str) -> Error {
    model.fault(what).hint("the file was put together from different models: use an unmodified checkpoint")
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.facts().name)
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Variant::Base => "text to image",
            Variant::Inpainting => "inpainting",
            Variant::Edit => "image editing",
            Variant::Depth => "depth to image",
            Variant::Upscaler => "upscaler",
            Variant::Refiner => "refiner",
            Variant::Unclip => "unCLIP",
        })
    }
}

impl fmt::Display for Prediction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Prediction::Eps => "eps",
            Prediction::V => "v",
            Prediction::ZeroSnrV => "v, zero terminal SNR",
            Prediction::Picture => "x0",
            Prediction::Consistency => "eps, consistency",
        })
    }
}
