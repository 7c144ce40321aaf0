//! A prompt through the text encoder: chunks on the device, then weights on the host.

use std::sync::atomic::AtomicBool;

use super::clip;
use super::embedding::Embeddings;
use super::prompt::{self, CHUNK, Chunk};
use super::tokenizer::{self, Tokenizer, VOCABULARY};
use crate::engine::{Engine, PlanRun, WeightSource, Weights};
use crate::families;
use crate::lora::Patched;
use crate::model::config::TextConfig;
use crate::plan::{Plan, PlanOptions};
use crate::{Error, ErrorKind, Result};

/// What a text encoder makes of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoding {
    /// `[tokens, width]`, all chunks one after the other.
    pub context: Vec<f32>,
    /// Number of tokens, a multiple of 77.
    pub tokens: usize,
    /// The final vector of the first end token of the first chunk, projected where the encoder has
    /// a projection, `[width]`, if it was wanted.
    pub pooled: Option<Vec<f32>>,
    /// Names after `embedding:` for which there is no vector; they were left out.
    pub missing_embeddings: Vec<String>,
    /// Names after `embedding:` that have vectors for another text encoder of the model, and none for this one.
    pub embeddings_elsewhere: Vec<String>,
}

/// A text encoder whose weights are on the device.
#[derive(Clone, Copy)]
pub struct TextEncoder<'a> {
    /// The engine.
    pub engine: &'a Engine,
    /// For the rows of the token table, which stays in the file, and the projection.
    pub source: Patched<'a>,
    /// What `embedding:name` means.
    pub embeddings: Embeddings<'a>,
    /// Widths and names.
    pub config: &'a TextConfig,
    /// On the device.
    pub weights: &'a Weights,
    /// Byte-pair encoding.
    pub tokenizer: &'a Tokenizer,
}

impl TextEncoder<'_> {
    /// Encodes `text`. Weights move a token's vector away from what the empty prompt has in its
    /// place: z ← z_empty + w (z - z_empty).
    pub fn encode(&self, text: &str, options: &clip::Options, cancel: &AtomicBool) -> Result<Encoding> {
        let config = self.config;
        let tokens = prompt::chunks_with(self.tokenizer, text, self.padding(), self.embeddings)?;
        let empty = if tokens.weighted() {
            prompt::chunks(self.tokenizer, "", self.padding())?.chunks
        } else {
            vec![]
        };
        let graph = clip::build(config, options)?;
        let mut contexts = Vec::new();
        let mut pooled = None;
        // Chunk by chunk: prompts have one or two, and the result must not depend on their number.
        let (storage, device) = (self.weights.storage().clone(), self.engine.gpu().profile().clone());
        let plan = Plan::new(&graph, &PlanOptions { rows: 1, storage, device, guard: 0 })?;
        let arena = self.engine.arena(&plan)?;
        let prepared = self.engine.prepare(plan, self.weights, &arena)?;
        for chunk in tokens.chunks.iter().chain(&empty) {
            let embedding = self.embed(chunk, &tokens.vectors)?;
            let inputs = [("embedding", embedding.as_slice())];
            let mut results = self.engine.run(&prepared, &PlanRun::new(&inputs, cancel))?;
            if options.pooled && pooled.is_none() {
                let at = chunk.ids.iter().position(|id| *id == tokenizer::END).unwrap_or(CHUNK - 1);
                let last = take(&mut results, "last")?;
                pooled = Some(self.project(&last[at * config.width..][..config.width])?);
            }
            contexts.push(take(&mut results, "hidden")?);
        }
        let empty = if empty.is_empty() { None } else { contexts.pop() };
        if let Some(empty) = &empty {
            for (context, chunk) in contexts.iter_mut().zip(&tokens.chunks) {
                self.weigh(context, &chunk.weights, empty);
            }
        }
        Ok(Encoding {
            tokens: CHUNK * contexts.len(),
            context: contexts.concat(),
            pooled,
            missing_embeddings: tokens.missing_embeddings,
            embeddings_elsewhere: tokens.embeddings_elsewhere,
        })
    }

    /// What short prompts are filled up with.
    fn padding(&self) -> u32 {
        families::padding(self.config.tower)
    }

    /// `vector · text_projection`. One vector a prompt: not worth a kernel.
    fn project(&self, vector: &[f32]) -> Result<Vec<f32>> {
        let Some(columns) = self.config.projection else { return Ok(vector.to_vec()) };
        let name = format!("{}text_projection", self.config.prefix);
        let matrix = self.source.read(&name, &[vector.len(), columns])?;
        let mut out = vec![0.0f64; columns];
        for (v, row) in vector.iter().zip(matrix.chunks_exact(columns)) {
            for (o, m) in out.iter_mut().zip(row) {
                *o += f64::from(*v) * f64::from(*m);
            }
        }
        Ok(out.into_iter().map(|v| v as f32).collect())
    }

    /// Token vectors plus position vectors, `[77, width]`.
    fn embed(&self, chunk: &Chunk, learned: &[Vec<f32>]) -> Result<Vec<f32>> {
        let names = clip::names(self.config.tower);
        let table =
            |name: &str, rows: &[usize]| self.source.rows(&format!("{}{name}", self.config.prefix), rows);
        let known = |id: &u32| if *id < VOCABULARY { *id as usize } else { 0 };
        let ids: Vec<usize> = chunk.ids.iter().map(known).collect();
        let mut vectors = table(names.tokens, &ids)?;
        for (place, id) in vectors.chunks_exact_mut(self.config.width).zip(&chunk.ids) {
            if let Some(vector) = id.checked_sub(VOCABULARY).and_then(|i| learned.get(i as usize)) {
                if vector.len() != place.len() {
                    return Err(Error::usage("a learned vector is not as wide as a token")
                        .expected(format!("{} values", place.len()))
                        .found(vector.len().to_string()));
                }
                place.copy_from_slice(vector);
            }
        }
        let positions: Vec<usize> = (0..CHUNK).collect();
        let places = table(names.positions, &positions)?;
        for (v, p) in vectors.iter_mut().zip(&places) {
            *v += p;
        }
        Ok(vectors)
    }

    fn weigh(&self, context: &mut [f32], weights: &[f32; CHUNK], empty: &[f32]) {
        let width = self.config.width;
        for (i, w) in weights.iter().enumerate().filter(|(_, w)| **w != 1.0) {
            let range = i * width..(i + 1) * width;
            for (z, e) in context[range.clone()].iter_mut().zip(&empty[range]) {
                *z = (*z - e) * w + e;
            }
        }
    }
}

impl Encoding {
    /// Two encoders' results side by side: this one's channels, then the other's, at each token;
    /// the other's pooled vector.
    pub fn beside(self, other: Encoding) -> Result<Encoding> {
        if self.tokens != other.tokens {
            return Err(Error::new(
                ErrorKind::Model,
                "an embedding is longer for one text encoder than the other",
            )
            .expected(format!("{} tokens in all, as for the first", self.tokens))
            .found(other.tokens.to_string())
            .hint("leave it out of the prompt"));
        }
        let width = |e: &Encoding| e.context.len().checked_div(e.tokens).unwrap_or(0).max(1);
        let [a, b] = [&self, &other].map(|e| e.context.chunks_exact(width(e)));
        let context = a.zip(b).flat_map(|(a, b)| a.iter().chain(b).copied()).collect();
        Ok(Encoding {
            context,
            tokens: self.tokens,
            pooled: other.pooled,
            missing_embeddings: self.missing_embeddings,
            embeddings_elsewhere: [self.embeddings_elsewhere, other.embeddings_elsewhere].concat(),
        })
    }
}

fn take(results: &mut Vec<(String, Vec<f32>)>, name: &str) -> Result<Vec<f32>> {
    let at = results.iter().position(|(n, _)| n == name);
    let at = at.ok_or_else(|| Error::internal(format!("the text encoder gave no {name}")))?;
    Ok(results.swap_remove(at).1)
}
