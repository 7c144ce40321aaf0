//! From prompts to conditioning entries, by the rules of each family.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::Model;
use crate::Result;
use crate::guidance::Entry;
use crate::model::unet::time_embedding;
use crate::text::encode::Encoding;

/// What SDXL is told of a picture's size, pixels as (height, width) and (top, left).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sizes {
    /// The size that the training picture would have had before scaling.
    pub original: (usize, usize),
    /// Where it would have been cropped.
    pub crop: (usize, usize),
    /// The size after scaling and cropping.
    pub target: (usize, usize),
}

impl Sizes {
    /// ComfyUI's defaults for a picture: nothing scaled, nothing cropped.
    pub fn of(height: usize, width: usize) -> Self {
        Self { original: (height, width), crop: (0, 0), target: (height, width) }
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
        let numbers = [self.original, self.crop, self.target].map(<[usize; 2]>::from);
        numbers.into_iter().flatten().flat_map(|n| time_embedding(n as f32, 256))
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
