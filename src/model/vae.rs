//! The autoencoder: pictures in -1..1 to latents and back.

use super::Builder;
use super::config::{VAE, VaeConfig};
use crate::Result;
use crate::graph::{Graph, Shape, Tensor};

/// Every normalisation of the autoencoder adds this to the variance.
const EPS: f32 = 1e-6;

/// Builds the decoder for latents of `height` × `width`. Input `z` `[height, width, latent
/// channels]`, already divided by the latent scale; result `image`, eight times as large, about -1..1.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for numbers that no network has,
/// [`ErrorKind::Model`](crate::ErrorKind::Model) if layers do not fit.
pub fn decoder(config: &VaeConfig, height: usize, width: usize) -> Result<Graph> {
    config.check(height, width)?;
    let mut b = Builder::new(VAE, &[]);
    let z = b.graph.input("z", Shape::new(height, width, config.latent_channels));
    let x = b.graph.conv1x1("post_quant_conv", z, config.z_channels)?;
    let deepest = config.level_channels.last().copied().unwrap_or(config.channels);
    let x = b.graph.conv3x3("decoder.conv_in", x, deepest, 1, 1)?;
    let mut x = middle(&mut b, "decoder.mid", x)?;
    for (level, &channels) in config.level_channels.iter().enumerate().rev() {
        for block in 0..=config.res_blocks {
            x = resnet(&mut b, &format!("decoder.up.{level}.block.{block}"), x, channels)?;
        }
        if level > 0 {
            let (path, s) = (format!("decoder.up.{level}.upsample.conv"), b.graph.shape(x));
            x = b.graph.conv3x3_doubled(&path, x, (2 * s.height, 2 * s.width), channels)?;
        }
    }
    let image = b.norm_conv("decoder.norm_out", "decoder.conv_out", x, config.image_channels, EPS)?;
    b.graph.output("image", image);
    Ok(b.graph)
}

/// Builds the encoder for pictures of `height` × `width`, in -1..1. Input `image`; result
/// `moments`: the mean of the latent in the first half of the channels, then the log variance.
///
/// # Errors
/// As [`decoder`].
pub fn encoder(config: &VaeConfig, height: usize, width: usize) -> Result<Graph> {
    config.check(height, width)?;
    let mut b = Builder::new(VAE, &[]);
    let image = b.graph.input("image", Shape::new(height, width, config.image_channels));
    let mut x = b.graph.conv3x3("encoder.conv_in", image, config.channels, 1, 1)?;
    let last = config.level_channels.len().saturating_sub(1);
    for (level, &channels) in config.level_channels.iter().enumerate() {
        for block in 0..config.res_blocks {
            x = resnet(&mut b, &format!("encoder.down.{level}.block.{block}"), x, channels)?;
        }
        if level < last {
            x = b.graph.conv3x3(&format!("encoder.down.{level}.downsample.conv"), x, channels, 2, 0)?;
        }
    }
    let x = middle(&mut b, "encoder.mid", x)?;
    let x = b.norm_conv("encoder.norm_out", "encoder.conv_out", x, 2 * config.z_channels, EPS)?;
    let moments = b.graph.conv1x1("quant_conv", x, 2 * config.latent_channels)?;
    b.graph.output("moments", moments);
    Ok(b.graph)
}

fn middle(b: &mut Builder, path: &str, x: Tensor) -> Result<Tensor> {
    let c = b.graph.shape(x).channels;
    let x = resnet(b, &format!("{path}.block_1"), x, c)?;
    let x = attention(b, &format!("{path}.attn_1"), x)?;
    resnet(b, &format!("{path}.block_2"), x, c)
}

fn resnet(b: &mut Builder, path: &str, x: Tensor, out: usize) -> Result<Tensor> {
    let part = |name: &str| format!("{path}.{name}");
    let h = b.norm_conv(&part("norm1"), &part("conv1"), x, out, EPS)?;
    let h = b.norm_conv(&part("norm2"), &part("conv2"), h, out, EPS)?;
    let skip =
        if b.graph.shape(x).channels == out { x } else { b.graph.conv1x1(&part("nin_shortcut"), x, out)? };
    b.graph.add(path, skip, h)
}

/// One head as wide as the map is deep.
fn attention(b: &mut Builder, path: &str, x: Tensor) -> Result<Tensor> {
    let g = &mut b.graph;
    let c = g.shape(x).channels;
    let [q, k, v] = ["q", "k", "v"].map(|n| format!("{path}.{n}"));
    let h = g.group_norm(&format!("{path}.norm"), x, EPS)?;
    let qkv = g.conv1x1_merged(&format!("{path}.qkv"), h, &[(&q, c), (&k, c), (&v, c)])?;
    let (h, _) = g.self_attention(path, qkv, 1, false, false)?;
    let h = g.conv1x1(&format!("{path}.proj_out"), h, c)?;
    g.add(path, h, x)
}
