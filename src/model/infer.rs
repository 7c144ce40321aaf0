//! What network a checkpoint holds, from the names and shapes of its tensors alone.
//!
//! Nothing is looked up by a model's name: sizes are read off the weights, so that any network of
//! the family runs, including small ones. Where two weights disagree, that is an error here and
//! not a wrong picture later.

mod extra_tensors;
mod prediction;
mod text;
mod unet;
mod vae;

use super::config::{DiffusionConfig, ModelConfig, TextConfig, UNET, UnetConfig, VaeConfig};
use crate::checkpoint::{Checkpoint, refuse_foreign};
use crate::families::{self, Family, REFINER_SIZES, SDXL_SIZES, Variant};
use crate::{Error, Result};

impl DiffusionConfig {
    /// Infers it from a file that holds a UNet, whose shapes alone show the family.
    ///
    /// # Errors
    /// [`ErrorKind::Model`](crate::ErrorKind::Model) if there is no UNet, or the file is another kind of model.
    pub fn infer(model: &Checkpoint) -> Result<Self> {
        refuse_foreign(model)?;
        let unet = UnetConfig::infer(model)?;
        let (family, variant) = kind_of(model, &unet)?;
        check_output(model, family, &unet)?;
        extra_tensors::check_unet(model, &unet)?;
        let prediction = prediction::of(model, family, &unet)?;
        let latent_scale = model.latent_scale().unwrap_or(family.facts().latent_scale);
        let noise = prediction::noise(model)?;
        Ok(Self { family, variant, prediction, latent_scale, noise, unet })
    }
}

impl ModelConfig {
    /// Infers the configuration of a checkpoint in the original single-file layout. Tensors that
    /// belong to no network (`position_ids`, `betas`, `model_ema.*`, …) are ignored.
    ///
    /// # Errors
    /// [`ErrorKind::Model`](crate::ErrorKind::Model) if a part is missing, parts do not fit
    /// together, or the file is another kind of model; the message names the tensor.
    pub fn infer(model: &Checkpoint) -> Result<Self> {
        refuse_foreign(model)?;
        let unet = UnetConfig::infer(model)?;
        let (family, variant) = kind_of(model, &unet)?;
        let text = TextConfig::infer_beside(model, family, variant, &unet)?;
        let vae = VaeConfig::infer(model)?;
        check_fit(model, family, variant, &unet, &vae, &text)?;
        check_output(model, family, &unet)?;
        extra_tensors::check_unet(model, &unet)?;
        let prediction = prediction::of(model, family, &unet)?;
        let latent_scale = model.latent_scale().unwrap_or(family.facts().latent_scale);
        let noise = prediction::noise(model)?;
        Ok(Self { family, variant, prediction, latent_scale, noise, unet, vae, text })
    }
}

/// Family and variant of a UNet, whatever is beside it.
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
        let found = format!("{} of the VAE, which has {} levels", vae.scale(), vae.level_channels.len());
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
