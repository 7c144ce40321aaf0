//! What the planner must know of a device: which kernels run on it, and how its buffers are bound.

use crate::kernels::Target;

/// What the planner must know of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Which kernel variants to choose.
    pub target: Target,
    /// Largest binding, bytes.
    pub max_binding: u64,
    /// Largest buffer, bytes.
    pub max_buffer: u64,
    /// Bindings begin at multiples of this, bytes.
    pub alignment: u64,
}

impl Capabilities {
    /// What every WebGPU device offers: 128 MiB bindings, 256 MiB buffers.
    pub fn baseline(target: Target) -> Self {
        Self { target, max_binding: 128 << 20, max_buffer: 256 << 20, alignment: 256 }
    }
}
