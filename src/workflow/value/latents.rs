//! Batches of latents.

use std::sync::Arc;

use crate::image::Mask;
use crate::latent::Latent;
use crate::{Result, Size};

/// A batch of latents as nodes pass them on.
#[derive(Debug, Clone)]
pub(crate) struct Latents {
    /// In the VAE's scale.
    pub samples: Latent,
    /// Where it is drawn over (1) or kept (0), in pixels: one for all, or one for each.
    pub noise_mask: Option<Arc<Vec<Mask>>>,
    /// Which pictures of the seed's stream these are; None is from the first on.
    pub batch_index: Option<Vec<usize>>,
}

impl Latents {
    /// Latents without mask.
    pub fn new(samples: Latent) -> Self {
        Self { samples, noise_mask: None, batch_index: None }
    }

    /// The masks at the latent's size, `[1 or batch, 1, height, width]`.
    pub fn mask(&self) -> Result<Option<Latent>> {
        let Some(masks) = &self.noise_mask else { return Ok(None) };
        let [batch, _, height, width] = self.samples.shape();
        let count = if masks.len() == 1 { 1 } else { batch };
        let rows: Vec<Latent> =
            masks.iter().cycle().take(count).map(|m| m.to_latent(Size::new(width, height))).collect();
        Latent::stacked(&rows.iter().collect::<Vec<_>>()).map(Some)
    }
}
