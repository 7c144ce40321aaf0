//! Counts of what moves between host and device.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that were moved between host and device, without weights.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Coefficients, noise levels and embeddings of steps, uploaded.
    pub scalars: AtomicU64,
    /// Latents, noise, masks and tables, uploaded.
    pub latents: AtomicU64,
    /// Parameters of dispatches and inputs of plans that run by themselves, uploaded.
    pub set_up: AtomicU64,
    /// Flags that say whether all values are finite, read back.
    pub flags: AtomicU64,
    /// All else that was read back.
    pub read: AtomicU64,
    /// How often something was read back, without flags.
    pub reads: AtomicU64,
}

/// A kind of upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upload {
    /// Values of every step.
    Scalars,
    Latents,
    SetUp,
}

/// A kind of readback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readback {
    Flags,
    Results,
}

impl Traffic {
    pub(super) fn uploaded(&self, what: Upload, bytes: u64) {
        let to = match what {
            Upload::Scalars => &self.scalars,
            Upload::Latents => &self.latents,
            Upload::SetUp => &self.set_up,
        };
        to.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn read_back(&self, what: Readback, bytes: u64) {
        let to = match what {
            Readback::Flags => &self.flags,
            Readback::Results => {
                self.reads.fetch_add(1, Ordering::Relaxed);
                &self.read
            }
        };
        to.fetch_add(bytes, Ordering::Relaxed);
    }
}
