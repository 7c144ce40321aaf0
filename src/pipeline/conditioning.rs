//! From prompts to conditioning entries, by the rules of each family.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::Model;
use super::memory::Need;
use super::parts::{self, Network};
use crate::engine::device_bytes;
use crate::graph::Graph;
use crate::guidance::Entry;
use crate::model::Family;
use crate::model::unet::time_embedding;
use crate::plan::{Options, Plan};
use crate::text::clip;
use crate::text::encode::{Encoding, TextEncoder};
use crate::{Error, Result};

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
        let wants_vector = self.config.unet.adm_in_channels.is_some();
        let encoding = self.encode_text_within(limit, prompt, clip_skip, wants_vector, cancel)?;
        for name in &encoding.missing_embeddings {
            let why = match &self.embeddings {
                Some(folder) => folder.missing("embedding", name).to_string(),
                None => "no folder of embeddings was given".into(),
            };
            log::warn!("there is no embedding {name:?}, the word is left out of the prompt: {why}");
        }
        let mut entry = Entry::new(encoding.context, encoding.tokens);
        entry.vector = self.vector(encoding.pooled, sizes);
        Ok(entry)
    }

    /// SDXL's extra conditioning: the pooled vector, then the sizes. None for other families.
    pub fn vector(&self, pooled: Option<Vec<f32>>, sizes: Sizes) -> Option<Arc<Vec<f32>>> {
        self.config.unet.adm_in_channels?;
        Some(Arc::new(pooled?.into_iter().chain(sizes.embedding()).collect()))
    }

    /// The text encoders' own results for a prompt, with the pooled vector if `pooled` is set.
    pub fn encode_text(
        &self,
        prompt: &str,
        clip_skip: Option<usize>,
        pooled: bool,
        cancel: &AtomicBool,
    ) -> Result<Encoding> {
        self.encode_text_within(None, prompt, clip_skip, pooled, cancel)
    }

    fn encode_text_within(
        &self,
        limit: Option<u64>,
        prompt: &str,
        clip_skip: Option<usize>,
        pooled: bool,
        cancel: &AtomicBool,
    ) -> Result<Encoding> {
        let options = self.text_options(clip_skip, pooled)?;
        let mut whole: Option<Encoding> = None;
        for (i, config) in self.config.text.iter().enumerate() {
            let graph = parts::text(config)?;
            let load = || self.upload(graph.weights(), self.precision, None, cancel);
            let weights = self.parts.get(Network::Text(i), self.text_need(&graph)?, limit, load)?;
            let encoder = TextEncoder {
                engine: &self.engine,
                source: self.source(),
                embeddings: self.embeddings.as_ref(),
                config,
                weights: &weights,
                tokenizer: &self.tokenizer,
                precision: self.precision,
            };
            let encoding = encoder.encode(prompt, &options, cancel)?;
            whole = Some(match whole {
                Some(first) => first.beside(encoding)?,
                None => encoding,
            });
        }
        whole.ok_or_else(|| Error::internal("a model without a text encoder"))
    }

    /// What a text encoder takes: its chunks go through one after the other.
    pub(super) fn text_need(&self, graph: &Graph) -> Result<Need> {
        let (precision, device) = (self.precision, self.engine.gpu().capabilities());
        let plan = Plan::new(graph, &Options { rows: 1, precision, device, guard: 0 })?;
        let weights = device_bytes(graph.weights(), precision, device.alignment, None)?;
        Ok(Need::new(weights, plan.arena_bytes() + plan.side_bytes(device.alignment)))
    }

    /// SD1 takes the last layer, SD2 and SDXL the one before; SDXL leaves out the normalisation.
    pub(super) fn text_options(&self, clip_skip: Option<usize>, pooled: bool) -> Result<clip::Options> {
        let (usual, norm) = match self.config.family {
            Family::Sd1 => (1, true),
            Family::Sd2 => (2, true),
            Family::Sdxl => (2, false),
        };
        // Layers that the file leaves out count, though they cannot be asked for.
        let absent = self.config.text.iter().map(|t| t.absent).max().unwrap_or(0);
        let skip = clip_skip.unwrap_or(usual);
        let layers = self.config.text.iter().map(|t| t.layers).min().unwrap_or(0);
        if !(1..=layers).contains(&skip.saturating_sub(absent)) {
            let first = if absent == 0 { "1 (the last layer)".into() } else { format!("{}", 1 + absent) };
            return Err(Error::usage("no such clip skip")
                .expected(format!("{first} to {}", layers + absent))
                .found(skip.to_string()));
        }
        let skip = skip - absent;
        Ok(clip::Options { skip, norm, pooled })
    }
}
