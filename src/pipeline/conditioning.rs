//! From prompts to conditioning entries, by the rules of each family.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::model::Model;
use super::sizes::Sizes;
use crate::Result;
use crate::guidance::Entry;
use crate::text::encode::Encoding;

impl Model {
    /// The conditioning entry of a prompt. `clip_skip` counts layers from the end (1 is the last);
    /// None is the default of the family. `sizes` is only used by SDXL.
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
        let encoding = self.text.encode(limit, &[prompt], clip_skip, wants_vector, cancel)?;
        let vector = self.vector(encoding.pooled, sizes);
        Ok(Entry { vector, ..Entry::new(encoding.context, encoding.tokens) })
    }

    /// SDXL's extra conditioning: the pooled vector, then the sizes. None for other families.
    #[doc(hidden)]
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
        self.text.encode(None, &[prompt], clip_skip, pooled, cancel)
    }
}
