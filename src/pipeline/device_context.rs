//! What all models on a device share: the engine with its compiled shaders, and the memory.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::memory::Need;
use super::parts::{Network, Owner, Parts};
use crate::Result;
use crate::checkpoint::Checkpoint;
use crate::engine::{Engine, Weights};
use crate::gpu::Gpu;
use crate::graph::Weight;
use crate::kernels::Precision;
use crate::lora::{Patched, Patches};
use crate::plan::Storage;
use crate::text::Tokenizer;
use crate::trust;

/// A device with an engine on it, for any number of models: UNets, text encoders and autoencoders of
/// several files, with and without LoRAs. A memory limit applies to all of them together.
pub struct DeviceContext {
    engine: Engine,
    tokenizer: Tokenizer,
    parts: Parts,
}

impl fmt::Debug for DeviceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceContext").finish_non_exhaustive()
    }
}

impl DeviceContext {
    /// A context on `gpu`, without models. Kernels that were not checked before on this adapter and driver are checked
    /// now, if `gpu` has a folder to keep what is found.
    pub fn new(gpu: Gpu) -> Result<Arc<Self>> {
        let (engine, tokenizer) = (Engine::new(trust::check(gpu))?, Tokenizer::new());
        Ok(Arc::new(Self { engine, tokenizer, parts: Parts::default() }))
    }

    /// The engine and, through it, the device.
    #[doc(hidden)]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(super) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }
}

/// Weights of one model's networks: where they are read from, and which are on the device.
pub(super) struct Stock {
    pub context: Arc<DeviceContext>,
    pub checkpoint: Arc<Checkpoint>,
    /// LoRAs.
    pub patches: Arc<Patches>,
    owner: Owner,
}

impl Stock {
    pub fn new(context: Arc<DeviceContext>, checkpoint: Arc<Checkpoint>, patches: Arc<Patches>) -> Self {
        Self { context, checkpoint, patches, owner: Owner::new() }
    }

    pub fn engine(&self) -> &Engine {
        &self.context.engine
    }

    /// The checkpoint's weights with the LoRAs added.
    pub fn source(&self) -> Patched<'_> {
        Patched { checkpoint: &self.checkpoint, patches: &self.patches }
    }

    /// How the weights `wanted` are stored on the device in a network of `precision`.
    pub fn storage(&self, wanted: &[Weight], precision: Precision) -> Storage {
        self.engine().storage(wanted, &self.source(), precision)
    }

    /// Bytes that [`weights`](Self::weights) would upload to the device.
    pub fn weight_bytes(&self, (wanted, storage, most): (&[Weight], &Storage, Option<u64>)) -> Result<u64> {
        self.engine().weight_bytes(wanted, storage, most)
    }

    /// The weights `wanted` of `network`: those on the device, or uploaded now. At most `most` bytes of
    /// them stay there, the rest is streamed.
    pub fn weights(
        &self,
        network: Network,
        (wanted, storage, most): (&[Weight], &Storage, Option<u64>),
        need: Need,
        limit: Option<u64>,
        cancel: &AtomicBool,
    ) -> Result<Arc<Weights>> {
        if limit.is_some() {
            // Spare memory is not part of a forecast, so a limit has no room for it.
            self.engine().release_spare_memory();
        }
        let load = || {
            // It would add to the staging ring of the upload.
            self.engine().release_spare_memory();
            self.engine().upload(wanted, &self.source(), storage, most, cancel)
        };
        self.context.parts.get((network, self.owner), need, limit, load)
    }
}

impl Drop for Stock {
    /// These weights cannot be requested again.
    fn drop(&mut self) {
        self.context.parts.leave(self.owner);
    }
}
