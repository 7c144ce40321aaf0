//! Weights on the device, by network, uploaded on first use.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::memory::{Need, leaving};
use crate::Result;
use crate::engine::Weights;
use crate::kernels::Precision;

/// A network of a model, in the order of eviction if memory is short: text encoders are the quickest to upload
/// again, the UNet the slowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Network {
    /// Text encoder, by number.
    Text(usize),
    /// VAE encoder in this precision; one that overflows f16 is run again in f32.
    Encoder(Precision),
    /// VAE decoder, likewise.
    Decoder(Precision),
    /// The only one that is needed at every step.
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
    /// A new, unique owner.
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The networks on a device, of all models.
#[derive(Default)]
pub struct Parts(Mutex<Vec<Held>>);

/// A network and its weights, ordered by eviction.
type Held = ((Network, Owner), Arc<Weights>);

impl Parts {
    /// The weights of a network, uploaded by `load` unless they are on the device in the size of `need`. Other
    /// networks are evicted first, so that weights and activations stay below `limit`.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`](crate::ErrorKind::Memory) if `need` alone is over the limit; those
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
