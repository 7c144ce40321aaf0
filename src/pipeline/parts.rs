//! Weights on the device, by part of the model, brought over when first asked for.

use std::sync::{Arc, Mutex, PoisonError};

use super::memory::{Need, leaving};
use crate::Result;
use crate::checkpoint::Checkpoint;
use crate::engine::Weights;
use crate::graph::Graph;
use crate::kernels::Precision;
use crate::model::config::TextConfig;
use crate::model::{ModelConfig, unet, vae};
use crate::text::clip;

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
    let unet = unet::weights(&config.unet)?;
    for weight in texts.iter().chain(&vae).flat_map(Graph::weights).chain(&unet) {
        for (name, shape) in weight.sources.iter().zip(&weight.shapes) {
            checkpoint.expect(name, shape)?;
        }
    }
    Ok(())
}

/// A network of a model whose weights come and go. In the order in which they leave where memory
/// is short: a text encoder is back soonest, the UNet last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Network {
    /// By number.
    Text(usize),
    /// Of the autoencoder; one that overflows f16 is run again in f32.
    Encoder(Precision),
    /// Of the autoencoder, likewise.
    Decoder(Precision),
    /// It alone is needed at every step.
    Unet,
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Text(_) => "the text encoder",
            Self::Encoder(_) => "the VAE encoder",
            Self::Decoder(_) => "the VAE decoder",
            Self::Unet => "the UNet",
        })
    }
}

impl From<crate::lora::Part> for Network {
    fn from(part: crate::lora::Part) -> Self {
        match part {
            crate::lora::Part::Text(i) => Self::Text(i),
            crate::lora::Part::Unet => Self::Unet,
        }
    }
}

/// The networks of a model on the device.
#[derive(Default)]
pub struct Parts(Mutex<Vec<(Network, Arc<Weights>)>>);

impl Parts {
    /// The weights of `network`, brought over by `load` unless they are there as `need` has them.
    /// With its activations they will stay below `limit`: other networks leave first.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`](crate::ErrorKind::Memory) if `need` is over the limit by itself; those
    /// of `load`.
    pub fn get(
        &self,
        network: Network,
        need: Need,
        limit: Option<u64>,
        load: impl FnOnce() -> Result<Weights>,
    ) -> Result<Arc<Weights>> {
        need.within(limit, network)?;
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<(Network, u64)> = held.iter().map(|(n, w)| (*n, w.bytes())).collect();
        let leaving = leaving(&bytes, network, need, limit);
        held.retain(|(n, w)| !leaving.contains(n) && (*n != network || w.bytes() == need.weights));
        if let Some((_, weights)) = held.iter().find(|(n, _)| *n == network) {
            return Ok(weights.clone());
        }
        let weights = Arc::new(load()?);
        held.push((network, weights.clone()));
        Ok(weights)
    }

    /// Drops the weights of a network, so that they are brought over again.
    pub fn forget(&self, network: Network) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|(n, _)| *n != network);
    }
}
