//! From prompts to conditioning entries, by the rules of each family.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::Model;
use crate::guidance::Entry;
use crate::model::unet::time_embedding;
use crate::text::encode::Encoding;
use crate::{Result, Size};

/// SDXL's size conditioning, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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

impl Model {
    /// The conditioning entry of a prompt. `clip_skip` counts layers from the end (1 is the last);
    /// None is the family's habit. `sizes` matters for SDXL alone.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if the encoder has no such layer.
    pub fn encode(
        &self,
        prompt: &str,
        clip_skip: Option<usize>,
        sizes: Sizes,
        cancel: &AtomicBool,
    ) -> Result<Entry> {
        self.encode_within(None, prompt, clip_skip, sizes, cancel)
    }

    /// The same in at most `limit` bytes of device memory.
    pub(super) fn encode_within(
        &self,
        limit: Option<u64>,
        prompt: &str,
        clip_skip: Option<usize>,
        sizes: Sizes,
        cancel: &AtomicBool,
    ) -> Result<Entry> {
        self.text.check_clip_skip(clip_skip)?;
        let wants_vector = self.config.unet.adm_in_channels.is_some();
        let encoding = self.text.encode(limit, &[prompt], (clip_skip, wants_vector), cancel)?;
        let vector = self.vector(encoding.pooled, sizes);
        Ok(Entry { vector, ..Entry::new(encoding.context, encoding.tokens) })
    }

    /// SDXL's extra conditioning: the pooled vector, then the sizes. None for other families.
    pub fn vector(&self, pooled: Option<Vec<f32>>, sizes: Sizes) -> Option<Arc<Vec<f32>>> {
        self.config.unet.adm_in_channels?;
        Some(sizes.vector(&pooled?))
    }

    /// The text encoders' own results for a prompt, with the pooled vector if `pooled` is set.
    #[doc(hidden)]
    pub fn encode_text(
        &self,
        prompt: &str,
        clip_skip: Option<usize>,
        pooled: bool,
        cancel: &AtomicBool,
    ) -> Result<Encoding> {
        self.text.check_clip_skip(clip_skip)?;
        self.text.encode(None, &[prompt], (clip_skip, pooled), cancel)
    }
}
