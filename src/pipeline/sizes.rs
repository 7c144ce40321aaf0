//! SDXL's size conditioning.

use std::sync::Arc;

use crate::Size;
use crate::model::unet::time_embedding;

/// SDXL's size conditioning, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Sizes {
    /// The size that the training picture would have had before scaling.
    pub original: Size,
    /// Rows that would have been cropped at its top.
    pub crop_top: usize,
    /// Columns that would have been cropped at its left.
    pub crop_left: usize,
    /// The size after scaling and cropping.
    pub target: Size,
}

impl Sizes {
    /// ComfyUI's defaults for a picture: nothing scaled, nothing cropped.
    pub fn of(size: Size) -> Self {
        Self { original: size, crop_top: 0, crop_left: 0, target: size }
    }

    /// SDXL's extra conditioning: the pooled vector of a prompt, then these sizes.
    pub fn vector(&self, pooled: &[f32]) -> Arc<Vec<f32>> {
        Arc::new(pooled.iter().copied().chain(self.embedding()).collect())
    }

    /// A vector that [`vector`](Self::vector) made with other sizes, with these.
    #[doc(hidden)]
    pub fn in_place_of(&self, vector: &[f32]) -> Arc<Vec<f32>> {
        self.vector(&vector[..vector.len().saturating_sub(6 * 256)])
    }

    /// Each number as a sinusoidal embedding of 256 values, in SDXL's order.
    fn embedding(&self) -> impl Iterator<Item = f32> {
        let Self { original, crop_top, crop_left, target } = *self;
        let numbers = [original.height, original.width, crop_top, crop_left, target.height, target.width];
        numbers.into_iter().flat_map(|n| time_embedding(n as f32, 256))
    }
}
