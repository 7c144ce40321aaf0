//! Latents in the scale of the VAE.

use std::ops::Deref;

use super::Latent;

/// Latents as the VAE writes and reads them, `[batch, channels, height, width]`: what files hold, what image to image
/// starts from, and what a run returns. It can be read like the [`Latent`] inside.
///
/// A UNet works on another scale, on which latents have a standard deviation of about 1: a [`Latent`] in guidance, in
/// samplers and in [`Evaluation`](crate::guidance::Evaluation)s is there. The factor is the model's
/// ([`Model::latent_scale`](crate::Model::latent_scale), 0.18215 for SD 1 and 2, 0.13025 for SDXL).
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct VaeLatent(Latent);

impl VaeLatent {
    /// Values that are in the scale of the VAE already.
    pub fn new(values: Latent) -> Self {
        Self(values)
    }

    /// Latents of a UNet with this scale: `values / scale`.
    pub fn from_unet(values: &Latent, scale: f32) -> Self {
        Self(values.scaled(1.0 / scale))
    }

    /// The latents as a UNet with this scale has them: `values · scale`.
    pub fn to_unet(&self, scale: f32) -> Latent {
        self.0.scaled(scale)
    }

    /// The values, in the scale of the VAE.
    pub fn into_inner(self) -> Latent {
        self.0
    }
}

impl Deref for VaeLatent {
    type Target = Latent;

    fn deref(&self) -> &Latent {
        &self.0
    }
}
