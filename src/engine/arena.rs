//! Memory for activations. It is kept for the next work: a driver takes some milliseconds to allocate a few hundred MiB,
//! and as long to free them (measured on an H200).

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::buffers::{TENSORS, buffer};
use crate::Result;
use crate::gpu::Gpu;
use crate::plan::Plan;

/// Memory for activations. Plans that run one after the other share an arena. When the last of them is dropped, the
/// engine keeps the memory for the next plan that fits.
#[derive(Clone)]
pub struct Arena(Arc<Slabs>);

struct Slabs {
    buffers: Vec<wgpu::Buffer>,
    /// Where the buffers are kept when the arena is dropped.
    spare: Weak<Spare>,
}

/// A larger arena is freed: its work takes long compared with an allocation, and others may need so much memory.
pub const MOST_SPARE: u64 = 1 << 30;

/// The buffers of the last arena, while they are not in use.
#[derive(Default)]
pub(super) struct Spare(Mutex<Vec<wgpu::Buffer>>);

impl Spare {
    pub(super) fn take(&self) -> Vec<wgpu::Buffer> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put(&self, buffers: Vec<wgpu::Buffer>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = buffers;
    }
}

impl Slabs {
    fn bytes(&self) -> u64 {
        self.buffers.iter().map(wgpu::Buffer::size).sum()
    }
}

impl Drop for Slabs {
    fn drop(&mut self) {
        if let Some(spare) = self.spare.upgrade().filter(|_| self.bytes() <= MOST_SPARE) {
            spare.put(std::mem::take(&mut self.buffers));
        }
    }
}

impl Arena {
    /// Buffers of these sizes or larger ones: those of `spare` if they are large enough.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`](crate::ErrorKind::Memory) if the device has not enough.
    pub(super) fn new(gpu: &Gpu, spare: &Arc<Spare>, slabs: &[u64]) -> Result<Self> {
        let left = spare.take();
        let buffers = if hold(&left, slabs) {
            left
        } else {
            // The old one is dropped before the new one is made.
            drop(left);
            gpu.checked("make room for activations", || {
                slabs.iter().map(|bytes| buffer(gpu, "arena", *bytes, TENSORS)).collect()
            })?
        };
        Ok(Self(Arc::new(Slabs { buffers, spare: Arc::downgrade(spare) })))
    }

    /// Whether it is large enough for `plan`.
    pub fn holds(&self, plan: &Plan) -> bool {
        hold(&self.0.buffers, &plan.slabs)
    }

    /// Its buffers.
    pub(super) fn slabs(&self) -> &[wgpu::Buffer] {
        &self.0.buffers
    }

    /// Sizes of its buffers.
    pub(crate) fn sizes(&self) -> Vec<u64> {
        self.0.buffers.iter().map(wgpu::Buffer::size).collect()
    }

    /// Bytes of all buffers.
    pub fn bytes(&self) -> u64 {
        self.0.bytes()
    }
}

/// Whether `buffers` are at least as large as `sizes`.
fn hold(buffers: &[wgpu::Buffer], sizes: &[u64]) -> bool {
    sizes.len() <= buffers.len() && sizes.iter().zip(buffers).all(|(want, has)| *want <= has.size())
}
