//! Counts of what moves between host and device.

use std::sync::atomic::{AtomicU64, Ordering};

/// What moved between host and device so far, bytes, weights left out.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Coefficients, noise levels and embeddings of steps.
    pub scalars: AtomicU64,
    /// Latents, noise, masks and tables that were brought over.
    pub latents: AtomicU64,
    /// Parameters of dispatches, when they are bound, and inputs of plans that run by themselves.
    pub set_up: AtomicU64,
    /// Flags that tell whether all was finite.
    pub flags: AtomicU64,
    /// Everything else that was read.
    pub read: AtomicU64,
    /// How often something was read, flags left out.
    pub reads: AtomicU64,
}

/// What is brought over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upload {
    /// What comes with every step.
    Scalars,
    Latents,
    SetUp,
}

/// What is read.
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
