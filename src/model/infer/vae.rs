//! The autoencoder of a checkpoint.

use super::extra_tensors::check_vae;
use super::unet::{NORM_GROUPS, conv3x3, expect, indivisible};
use crate::checkpoint::Checkpoint;
use crate::model::config::{VAE, VaeConfig};
use crate::{Remedy, Resource, Result};

impl VaeConfig {
    /// Reads the network off a checkpoint's names and shapes.
    ///
    /// # Errors
    /// [`ErrorKind::Model`](crate::ErrorKind::Model) if a tensor is missing, encoder and decoder
    /// do not fit, or the network has attention outside its middle.
    pub fn infer(model: &Checkpoint) -> Result<Self> {
        if model.names_under(VAE).next().is_none() {
            return Err(model
                .fault("the file has no VAE")
                .at(format!("{VAE}*"))
                .expected("an encoder and a decoder of pictures")
                .remedy(Remedy::Pass(Resource::Vae))
                .hint("pass a complete checkpoint"));
        }
        let first = format!("{VAE}encoder.conv_in.weight");
        let (channels, image_channels) = conv3x3(model, &first)?;
        expect(model, "image channels", 3, image_channels, &first)?;
        let levels = level_count(model)?;
        let res_blocks = model.count(&format!("{VAE}encoder.down.0.block."))?;
        let mut level_channels = Vec::with_capacity(levels);
        let mut width = channels;
        for level in 0..levels {
            width = down_level(model, level, width, res_blocks)?;
            level_channels.push(width);
        }
        let (top, z_channels) = conv3x3(model, &format!("{VAE}decoder.conv_in.weight"))?;
        expect(model, "channels, as in the encoder", width, top, &format!("{VAE}decoder.conv_in"))?;
        for level in (0..levels).rev() {
            up_level(model, level, level_channels[level], res_blocks)?;
        }
        let latent_channels = latent_channels(model, z_channels)?;
        let config =
            Self { image_channels, channels, level_channels, res_blocks, z_channels, latent_channels };
        check_vae(model, &config)?;
        Ok(config)
    }
}

/// Levels of the encoder, as many as the decoder's. Attention outside the middle is refused: no
/// Stable Diffusion has it, and skipping it would give wrong pictures.
fn level_count(model: &Checkpoint) -> Result<usize> {
    let (down, up) = (format!("{VAE}encoder.down."), format!("{VAE}decoder.up."));
    let levels = model.count(&down)?;
    expect(model, "levels, as in the encoder", levels, model.count(&up)?, &up)?;
    // Four everywhere so far; the side of a picture is divided by 2 to the power of this.
    if !(1..=8).contains(&levels) {
        return Err(model
            .fault("the VAE has an impossible number of levels")
            .at(down)
            .expected("1 to 8")
            .found(levels.to_string())
            .hint("pass a complete checkpoint (UNet, VAE and text encoder in one file)"));
    }
    match model.names_under(&down).chain(model.names_under(&up)).find(|name| name.contains(".attn.")) {
        None => Ok(levels),
        Some(name) => Err(model
            .fault("the VAE has attention outside its middle block")
            .at(name)
            .hint("pass a checkpoint with a Stable Diffusion VAE")),
    }
}

/// Checks a level of the encoder on `width` channels; returns its output channels.
fn down_level(model: &Checkpoint, level: usize, width: usize, res_blocks: usize) -> Result<usize> {
    let path = format!("{VAE}encoder.down.{level}.block.");
    expect(model, "residual blocks", res_blocks, model.count(&path)?, &path)?;
    let name = format!("{path}0.conv1.weight");
    let (out, input) = conv3x3(model, &name)?;
    expect(model, "input channels", width, input, &name)?;
    match out % NORM_GROUPS {
        0 => Ok(out),
        _ => Err(indivisible(model, &name, out, NORM_GROUPS, "normalisation groups")),
    }
}

/// Checks that a level of the decoder mirrors the encoder's.
fn up_level(model: &Checkpoint, level: usize, width: usize, res_blocks: usize) -> Result<()> {
    let path = format!("{VAE}decoder.up.{level}.block.");
    expect(model, "residual blocks", res_blocks + 1, model.count(&path)?, &path)?;
    let name = format!("{path}0.conv1.weight");
    let (out, _) = conv3x3(model, &name)?;
    expect(model, "output channels, as in the encoder", width, out, &name)
}

fn latent_channels(model: &Checkpoint, z_channels: usize) -> Result<usize> {
    let (quant, post) = (format!("{VAE}quant_conv.weight"), format!("{VAE}post_quant_conv.weight"));
    let [out, latent_channels, 1, 1] = model.dims(&post)? else {
        return Err(model.misshapen(&post, "a 1×1 convolution", &model.dims::<4>(&post)?));
    };
    expect(model, "output channels, as the decoder's input", z_channels, out, &post)?;
    // The encoder gives a mean and a log variance for each channel.
    match model.dims(&quant)? {
        found if found == [2 * latent_channels, 2 * z_channels, 1, 1] => Ok(latent_channels),
        found => {
            let expected = format!("{:?}", [2 * latent_channels, 2 * z_channels, 1, 1]);
            Err(model.misshapen(&quant, expected, &found))
        }
    }
}
