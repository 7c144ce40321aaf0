//! The text encoders of a model: one of CLIP's, or the two of SDXL side by side.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::device_context::{DeviceContext, Stock};
use super::memory::Need;
use super::options::ModelOptions;
use super::parts::Network;
use crate::checkpoint::Checkpoint;
use crate::folder::Folder;
use crate::graph::Graph;
use crate::kernels::Precision;
use crate::lora::Patches;
use crate::model::Family;
use crate::model::config::{TextConfig, family_of};
use crate::plan::{Plan, PlanOptions, Storage};
use crate::text::clip;
use crate::text::embedding_files::{self, EmbeddingSources, Learned};
use crate::text::encode::{Encoding, TextEncoder};
use crate::text::{CHUNK, Tokens, prompt, tokenizer};
use crate::{Error, Result};

/// The text encoders of one UNet. Clones share the weights.
#[derive(Clone)]
pub struct TextEncoders {
    pub(super) stock: Arc<Stock>,
    configs: Arc<Vec<TextConfig>>,
    precision: Precision,
    /// Where `embedding:name` is looked for, one after the other.
    embeddings: Vec<Folder>,
}

impl fmt::Debug for TextEncoders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TextEncoders").field("file", &self.checkpoint().file()).finish_non_exhaustive()
    }
}

impl TextEncoders {
    /// The encoders in `checkpoint`, which may contain other networks or none; see
    /// [`Checkpoint::text_encoders`] for separate files.
    ///
    /// # Errors
    /// [`ErrorKind::Model`](crate::ErrorKind::Model) if there is none.
    pub fn new(
        context: Arc<DeviceContext>,
        checkpoint: Arc<Checkpoint>,
        options: &ModelOptions,
    ) -> Result<Self> {
        let configs = TextConfig::infer_all(&checkpoint)?;
        Self::with_configs(context, checkpoint, configs, options)
    }

    pub(super) fn with_configs(
        context: Arc<DeviceContext>,
        checkpoint: Arc<Checkpoint>,
        configs: Vec<TextConfig>,
        options: &ModelOptions,
    ) -> Result<Self> {
        let precision = options.precision_on(context.engine().gpu());
        let stock = Arc::new(Stock::new(context, checkpoint, Arc::default()));
        Ok(Self { stock, configs: Arc::new(configs), precision, embeddings: Vec::new() })
    }

    /// The same encoders with `patches` in place of their own; weights are uploaded again.
    #[doc(hidden)]
    pub fn with_patches(&self, patches: Arc<Patches>) -> Self {
        let Stock { context, checkpoint, .. } = &*self.stock;
        let stock = Arc::new(Stock::new(context.clone(), checkpoint.clone(), patches));
        Self { stock, ..self.clone() }
    }

    /// Takes the vectors of `embedding:name` in prompts from files in these folders, the first that
    /// has one; without folders such words are ignored.
    pub fn set_embedding_folders(&mut self, folders: Vec<Folder>) {
        self.embeddings = folders;
    }

    /// Configurations, in the order in which the results are concatenated.
    #[doc(hidden)]
    pub fn configs(&self) -> &[TextConfig] {
        &self.configs
    }

    /// Where the weights come from.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.stock.checkpoint
    }

    /// The family whose UNets use these encoders.
    pub fn family(&self) -> Family {
        family_of(&self.configs)
    }

    /// Encodes `texts`: one for all encoders, or one for each in their order, which are then padded to the
    /// longest with empty prompts. `clip_skip` counts layers from the end, 1 is the last; None is the
    /// default of the family. For an encoder without such a layer it is its last, as in ComfyUI.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for a layer that the file does not contain or a
    /// number of texts that does not fit; those of embeddings and of the device.
    pub fn encode(
        &self,
        limit: Option<u64>,
        texts: &[&str],
        clip_skip: Option<usize>,
        pooled: bool,
        cancel: &AtomicBool,
    ) -> Result<Encoding> {
        if texts.len() != 1 && texts.len() != self.configs.len() {
            return Err(Error::usage("the texts do not fit the text encoders")
                .expected(format!("one, or {}", self.configs.len()))
                .found(texts.len().to_string()));
        }
        let text_of = |i: usize| texts[i.min(texts.len() - 1)];
        let one = |i: usize, text: &str| self.encode_one(limit, i, text, (clip_skip, pooled), cancel);
        let mut encodings =
            (0..self.configs.len()).map(|i| one(i, text_of(i))).collect::<Result<Vec<Encoding>>>()?;
        // An embedding may have vectors for one encoder alone.
        if encodings.len() > 1 {
            let longest = encodings.iter().map(|e| e.tokens).max().unwrap_or(0);
            for (i, encoding) in encodings.iter_mut().enumerate().filter(|(_, e)| e.tokens < longest) {
                let empty = one(i, "")?;
                while encoding.tokens < longest {
                    encoding.context.extend_from_slice(&empty.context);
                    encoding.tokens += empty.tokens;
                }
            }
        }
        let mut encodings = encodings.into_iter();
        let first = encodings.next().ok_or_else(|| Error::internal("a model without a text encoder"))?;
        let whole = encodings.try_fold(first, Encoding::beside)?;
        self.warn_of_missing(&whole.missing_embeddings);
        Ok(whole)
    }

    fn encode_one(
        &self,
        limit: Option<u64>,
        i: usize,
        text: &str,
        (clip_skip, pooled): (Option<usize>, bool),
        cancel: &AtomicBool,
    ) -> Result<Encoding> {
        let config = &self.configs[i];
        let options = self.options(config, clip_skip, pooled)?;
        let graph = clip::whole(config)?;
        let how = (graph.weights(), &self.storage(&graph), None);
        let weights = self.stock.weights(Network::Text(i), how, self.need(&graph)?, limit, cancel)?;
        let places = self.places();
        let learned = Learned::new(&places, &self.configs, i);
        let encoder = TextEncoder {
            engine: self.stock.engine(),
            source: self.stock.source(),
            embeddings: learned.as_embeddings(),
            config,
            weights: &weights,
            tokenizer: self.stock.context.tokenizer(),
        };
        let encoding = encoder.encode(text, &options, cancel)?;
        for name in &encoding.embeddings_elsewhere {
            log::warn!(
                "the embedding {name:?} has no vectors for the text encoder {}, where the word is left out",
                embedding_files::key(config)
            );
        }
        Ok(encoding)
    }

    fn warn_of_missing(&self, names: &[String]) {
        for name in names {
            let why = self.places().missing(name);
            log::warn!("the embedding {name:?} is left out of the prompt: {why}");
        }
    }

    /// Warns of embeddings that a prompt names and that do not exist, as [`encode`](Self::encode) does.
    ///
    /// # Errors
    /// Those of embeddings that cannot be used.
    pub(super) fn look_for_embeddings(&self, text: &str) -> Result<()> {
        let places = self.places();
        let learned = Learned::new(&places, &self.configs, 0);
        self.warn_of_missing(&prompt::missing_embeddings(text, learned.as_embeddings())?);
        Ok(())
    }

    /// Where embeddings are looked for.
    fn places(&self) -> EmbeddingSources {
        EmbeddingSources { loras: self.stock.patches.bundles().to_vec(), folders: self.embeddings.clone() }
    }

    /// How the weights of a text encoder are stored.
    fn storage(&self, graph: &Graph) -> Storage {
        self.stock.storage(graph.weights(), self.precision)
    }

    /// Memory of a text encoder, which computes one chunk at a time.
    pub(super) fn need(&self, graph: &Graph) -> Result<Need> {
        let (storage, device) = (self.storage(graph), self.stock.engine().gpu().profile());
        let weights = self.stock.weight_bytes((graph.weights(), &storage, None))?;
        let plan = Plan::new(graph, &PlanOptions { rows: 1, storage, device: device.clone(), guard: 0 })?;
        Ok(Need::new(weights, plan.arena_bytes(), plan.side_bytes(device.alignment)))
    }

    /// Options of the encoder: the layer that is used, and the pooled vector.
    fn options(&self, config: &TextConfig, clip_skip: Option<usize>, pooled: bool) -> Result<clip::Options> {
        let skip = layer(&self.configs, config, clip_skip)?;
        Ok(clip::Options { skip, norm: self.family().facts().text.final_norm, pooled })
    }

    /// Checks that every encoder has the layer that `clip_skip` means.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage), with the layers that there are.
    pub(super) fn check_clip_skip(&self, clip_skip: Option<usize>) -> Result<()> {
        let (first, last) = skips(&self.configs);
        match clip_skip {
            Some(skip) if !(first..=last).contains(&skip) => Err(no_such_skip(&self.configs, skip)),
            _ => Ok(()),
        }
    }

    /// Whether each encoder fits `limit`.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`](crate::ErrorKind::Memory), as [`encode`](Self::encode) would give it.
    pub(crate) fn fits(&self, limit: Option<u64>) -> Result<()> {
        self.configs
            .iter()
            .enumerate()
            .try_for_each(|(i, config)| self.need(&clip::whole(config)?)?.within(limit, Network::Text(i)))
    }

    /// Tokens of a prompt in the network: a multiple of a chunk.
    pub(crate) fn count(&self, text: &str) -> Result<usize> {
        Ok(CHUNK * self.tokens(text)?.chunks.len())
    }

    /// The tokens of a prompt for the first text encoder, which decide the number of chunks.
    pub(super) fn tokens(&self, text: &str) -> Result<Tokens> {
        let places = self.places();
        let learned = Learned::new(&places, &self.configs, 0);
        prompt::chunks_with(self.stock.context.tokenizer(), text, tokenizer::END, learned.as_embeddings())
    }
}

/// The layer of an encoder, one of `configs`, that `clip_skip` means, counted from the end of the layers in
/// its file: 1 is the last there.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for a layer that the file does not contain.
pub(crate) fn layer(configs: &[TextConfig], config: &TextConfig, clip_skip: Option<usize>) -> Result<usize> {
    let wanted = clip_skip.unwrap_or(family_of(configs).facts().text.layer);
    let beyond = wanted > config.layers + config.absent;
    let skip = if beyond { 1 } else { wanted };
    // Layers that are missing in the file count, although they cannot be selected.
    match skip.checked_sub(config.absent) {
        Some(skip) if skip >= 1 => Ok(skip),
        _ => Err(no_such_skip(configs, wanted)),
    }
}

/// The first and the last clip skip that every encoder has.
fn skips(configs: &[TextConfig]) -> (usize, usize) {
    let absent = configs.iter().map(|t| t.absent).max().unwrap_or(0);
    let layers = configs.iter().map(|t| t.layers + t.absent).min().unwrap_or(0);
    (1 + absent, layers)
}

fn no_such_skip(configs: &[TextConfig], found: usize) -> Error {
    let (first, last) = skips(configs);
    let first = if first == 1 { "1 (the last layer)".into() } else { first.to_string() };
    Error::usage("no such clip skip").expected(format!("{first} to {last}")).found(found.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::{Activation, Tower};

    #[test]
    fn layers_that_a_file_leaves_out_count_and_cannot_be_asked_for() {
        let config = |absent: usize| TextConfig {
            tower: Tower::H,
            prefix: String::new(),
            width: 8,
            heads: 1,
            layers: 3,
            absent,
            mlp_width: 32,
            positions: 77,
            vocab: 10,
            activation: Activation::Gelu,
            projection: None,
        };
        let of = |absent: usize, skip: usize| {
            let config = config(absent);
            layer(std::slice::from_ref(&config), &config, Some(skip)).map_err(|e| e.to_string())
        };
        assert_eq!([of(0, 1), of(0, 2), of(1, 2), of(1, 4)], [Ok(1), Ok(2), Ok(1), Ok(3)]);
        assert_eq!(of(0, 4), Ok(1), "no such layer is the last");
        assert!(of(1, 1).is_err_and(|error| error.contains("no such clip skip: expected 2 to 4, found 1")));
    }
}
