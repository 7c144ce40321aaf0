//! Weights on the device, by part of the model, brought over when first asked for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::memory::{Need, leaving};
use crate::Result;
use crate::checkpoint::Checkpoint;
use crate::engine::Weights;
use crate::graph::{Graph, Weight};
use crate::kernels::Precision;
use crate::model::config::{TextConfig, UnetConfig, VaeConfig};
use crate::model::vae;
use crate::network::DenoisingNetwork;
use crate::text::clip;

/// The whole graph of a text encoder, whose weights serve every clip skip.
pub fn text(config: &TextConfig) -> Result<Graph> {
    clip::build(config, &clip::Options { skip: 1, norm: true, pooled: true })
}

/// Looks for every tensor that the weights of graphs are made of, so that none is missed after
/// minutes of sampling.
///
/// # Errors
/// [`ErrorKind::Model`](crate::ErrorKind::Model) naming the tensor.
pub fn check<'a>(checkpoint: &Checkpoint, weights: impl IntoIterator<Item = &'a Weight>) -> Result<()> {
    for weight in weights {
        for (name, shape) in weight.sources.iter().zip(&weight.shapes) {
            checkpoint.expect(name, shape)?;
        }
    }
    Ok(())
}

/// Looks for all tensors of a UNet.
///
/// # Errors
/// As [`check`].
pub fn check_unet(checkpoint: &Checkpoint, config: &UnetConfig) -> Result<Vec<Weight>> {
    let wanted = config.weights()?;
    check(checkpoint, &wanted)?;
    Ok(wanted)
}

/// Looks for all tensors of text encoders.
///
/// # Errors
/// As [`check`].
pub fn check_text(checkpoint: &Checkpoint, configs: &[TextConfig]) -> Result<()> {
    configs.iter().try_for_each(|config| check(checkpoint, text(config)?.weights()))
}

/// Looks for all tensors of an autoencoder.
///
/// # Errors
/// As [`check`].
pub fn check_vae(checkpoint: &Checkpoint, config: &VaeConfig) -> Result<()> {
    let graphs = [vae::decoder(config, 8, 8)?, vae::encoder(config, 64, 64)?];
    check(checkpoint, graphs.iter().flat_map(Graph::weights))
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

/// Whose weights: several models may be on a device at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner(u64);

impl Owner {
    /// One that nobody else is.
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The networks on a device, whichever model they belong to.
#[derive(Default)]
pub struct Parts(Mutex<Vec<Held>>);

/// A network and its weights. The order of networks is that in which they leave.
type Held = ((Network, Owner), Arc<Weights>);

impl Parts {
    /// The weights of a network, brought over by `load` unless they are there as `need` has them.
    /// With its activations they will stay below `limit`: other networks leave first.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`](crate::ErrorKind::Memory) if `need` is over the limit by itself; those
    /// of `load`.
    pub fn get(
        &self,
        (network, owner): (Network, Owner),
        need: Need,
        limit: Option<u64>,
        load: impl FnOnce() -> Result<Weights>,
    ) -> Result<Arc<Weights>> {
        need.within(limit, network)?;
        let key = (network, owner);
        let mut held = self.held();
        let bytes: Vec<((Network, Owner), u64)> = held.iter().map(|(k, w)| (*k, w.bytes())).collect();
        let leaving = leaving(&bytes, key, need, limit);
        held.retain(|(k, w)| !leaving.contains(k) && (*k != key || w.bytes() == need.weights));
        if let Some((_, weights)) = held.iter().find(|(k, _)| *k == key) {
            return Ok(weights.clone());
        }
        let weights = Arc::new(load()?);
        held.push((key, weights.clone()));
        Ok(weights)
    }

    /// Drops all that belongs to `owner`.
    pub fn leave(&self, owner: Owner) {
        self.held().retain(|((_, o), _)| *o != owner);
    }

    fn held(&self) -> MutexGuard<'_, Vec<Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
