//! The kinds of machine that kernels are written for, and their limits.

use super::Precision;

/// Which kind of machine the variants are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// Many cores with workgroup memory.
    Gpu,
    /// The same with cooperative matrices of 16×16×16 for f16 and subgroups of 32. On a device that has
    /// no such matrices they are written out in plain WGSL: slow, for testing those kernels.
    Cooperative {
        /// Bytes of workgroup memory, from [`LEAST_MEMORY`] on.
        memory: u32,
    },
    /// A driver that runs shaders on the CPU.
    Cpu,
}

impl Target {
    /// Whether shaders run on the CPU.
    pub fn is_cpu(self) -> bool {
        self == Target::Cpu
    }

    /// The storage to take where none is asked for: f16, but f32 where conversions cost more than
    /// memory.
    pub fn usual_precision(self) -> Precision {
        if self.is_cpu() { Precision::F32 } else { Precision::F16 }
    }
}

/// Workgroup memory that kernels with cooperative matrices take at the least, bytes.
pub const LEAST_MEMORY: u32 = 32 << 10;

/// SIMD lanes of a workgroup of the kernels for CPU drivers, of one subgroup if they share what they load.
pub const LANES: u32 = 8;

/// Largest number of workgroups in one direction on every device.
pub const MAX_GROUPS: u32 = 65_535;

/// Spreads `n` workgroups over two directions.
pub fn spread(n: u32) -> [u32; 2] {
    let y = n.div_ceil(MAX_GROUPS).max(1);
    [n.div_ceil(y), y]
}

/// Mesa's CPU driver ends all loops of an invocation after 65,535 iterations in sum, and goes on
/// with what it has. Short loops are unrolled and do not count; the rest of the distance is for
/// what its compiler may do otherwise one day.
pub(super) const MOST_ITERATIONS: u64 = 50_000;
