//! The options of a plan, and the bytes of a tensor in it.

use super::Storage;
use crate::graph::{Store, TensorInfo};
use crate::kernels::{DeviceProfile, Precision};

/// The options of a plan.
#[derive(Debug, Clone)]
pub struct PlanOptions {
    /// Rows computed together.
    pub rows: usize,
    /// Storage of activations and weights.
    pub storage: Storage,
    /// The device.
    pub device: DeviceProfile,
    /// Unused bytes after every tensor. Tests fill them with a pattern, to find kernels that write beyond their result.
    pub guard: u64,
}

impl PlanOptions {
    /// Storage of activations.
    pub fn precision(&self) -> Precision {
        self.storage.precision()
    }
}

/// Bytes of a tensor for `rows` rows; `u64::MAX` if the number overflows.
pub fn tensor_bytes(info: &TensorInfo, rows: usize, precision: Precision) -> u64 {
    let positions = rows.saturating_mul(info.shape.positions()) as u64;
    let (quads, channels) = (info.shape.quads() as u64, info.shape.channels as u64);
    match info.store {
        Store::Elem => positions.saturating_mul(quads).saturating_mul(4 * precision.bytes()),
        Store::F32 => positions.saturating_mul(quads).saturating_mul(16),
        Store::Plain => positions.saturating_mul(channels).saturating_mul(4),
    }
}
