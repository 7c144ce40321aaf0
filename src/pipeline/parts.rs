//! Weights on the device, by part of the model, brought over when first asked for.

use std::sync::{Arc, Mutex, PoisonError};

use crate::Result;
use crate::checkpoint::Checkpoint;
use crate::engine::Weights;
use crate::graph::Graph;
use crate::kernels::Precision;
use crate::model::config::TextConfig;
use crate::model::{ModelConfig, unet, vae};
use crate::text::{CHUNK, clip};

/// The UNet's graph at some size: its weights are the same at all.
pub fn unet(config: &ModelConfig) -> Result<Graph> {
    unet::build(&config.unet, &unet::Options { size: (64, 64), tokens: CHUNK, ..Default::default() })
}

/// The whole graph of a text encoder, whose weights serve every clip skip.
pub fn text(config: &TextConfig) -> Result<Graph> {
    clip::build(config, &clip::Options { skip: 1, norm: true, pooled: true })
}

/// Looks for every tensor that the networks of `config` need, so that none is missed after
/// minutes of sampling.
///
/// # Errors
/// [`ErrorKind::Model`](crate::ErrorKind::Model) naming the tensor.
pub fn check(config: &ModelConfig, checkpoint: &Checkpoint) -> Result<()> {
    let texts: Vec<Graph> = config.text.iter().map(text).collect::<Result<_>>()?;
    let vae = [vae::decoder(&config.vae, 8, 8)?, vae::encoder(&config.vae, 64, 64)?];
    for weight in texts.iter().chain(&vae).chain([&unet(config)?]).flat_map(Graph::weights) {
        for (name, shape) in weight.sources.iter().zip(&weight.shapes) {
            checkpoint.expect(name, shape)?;
        }
    }
    Ok(())
}

#[derive(Default)]
struct Part(Mutex<Option<Arc<Weights>>>);

impl Part {
    fn get(&self, load: impl FnOnce() -> Result<Weights>) -> Result<Arc<Weights>> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(weights) = &*held {
            return Ok(weights.clone());
        }
        let weights = Arc::new(load()?);
        *held = Some(weights.clone());
        Ok(weights)
    }

    fn bytes(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map_or(0, |w| w.bytes())
    }
}

/// The networks of a model.
#[derive(Default)]
pub struct Parts {
    text: [Part; 2],
    unet: Part,
    /// In f32 and in f16, as the encoder: what overflows is run again.
    decoder: [Part; 2],
    encoder: [Part; 2],
}

impl Parts {
    /// Those of text encoder `i`; no model has more than two.
    pub fn text(&self, i: usize, load: impl FnOnce() -> Result<Weights>) -> Result<Arc<Weights>> {
        self.text[i.min(1)].get(load)
    }

    /// The UNet's.
    pub fn unet(&self, load: impl FnOnce() -> Result<Weights>) -> Result<Arc<Weights>> {
        self.unet.get(load)
    }

    /// The VAE decoder's.
    pub fn decoder(
        &self,
        precision: Precision,
        load: impl FnOnce() -> Result<Weights>,
    ) -> Result<Arc<Weights>> {
        self.decoder[usize::from(precision == Precision::F16)].get(load)
    }

    /// The VAE encoder's.
    pub fn encoder(
        &self,
        precision: Precision,
        load: impl FnOnce() -> Result<Weights>,
    ) -> Result<Arc<Weights>> {
        self.encoder[usize::from(precision == Precision::F16)].get(load)
    }

    /// Bytes held on the device.
    pub fn bytes(&self) -> u64 {
        let coders = self.decoder.iter().chain(&self.encoder);
        self.text.iter().chain(coders).chain([&self.unet]).map(Part::bytes).sum()
    }
}
