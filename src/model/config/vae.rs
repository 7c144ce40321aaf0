//! The configuration of the autoencoder between images and latents.

/// The AutoencoderKL of latent diffusion: `encoder`, `quant_conv`, `post_quant_conv`, `decoder`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaeConfig {
    /// Channels of a picture.
    pub image_channels: usize,
    /// Channels of the encoder's first convolution (128).
    pub channels: usize,
    /// Channels of each level, from full resolution down. `encoder.down.0` and `decoder.up.0` are
    /// the full resolution; every level but the last halves (or, going up, doubles) the sides.
    pub level_channels: Vec<usize>,
    /// Residual blocks of each encoder level; the decoder's levels have one more.
    pub res_blocks: usize,
    /// Channels of the encoder's mean and of the decoder's input.
    pub z_channels: usize,
    /// Channels of a latent, between `quant_conv` and `post_quant_conv`.
    pub latent_channels: usize,
}

impl VaeConfig {
    /// Pixels per latent cell, in each direction (8); `usize::MAX` where there are more.
    pub fn scale(&self) -> usize {
        let downs = u32::try_from(self.level_channels.len().saturating_sub(1));
        downs.ok().and_then(|downs| 1usize.checked_shl(downs)).unwrap_or(usize::MAX)
    }

    /// `level_channels` as multiples of `channels`, rounded down.
    pub fn channel_mult(&self) -> Vec<usize> {
        self.level_channels.iter().map(|c| c.checked_div(self.channels).unwrap_or(0)).collect()
    }
}
