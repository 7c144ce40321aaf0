//! The kinds of machine that kernels are written for, and their limits.

use super::{Const, Precision};

/// Which kind of machine the variants are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// Many cores with workgroup memory.
    Gpu,
    /// The same with cooperative matrices for f16. On a device that has no such matrices they are written out in plain
    /// WGSL: slow, for testing those kernels.
    Cooperative {
        /// The matrices.
        matrices: Matrices,
        /// Bytes of workgroup memory, from [`LEAST_MEMORY`] on.
        memory: u32,
    },
    /// A driver that runs shaders on the CPU.
    Cpu,
}

/// Cooperative matrices of a device: side × side × side, f16 in and f32 out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Matrices {
    /// 16 or 8.
    pub side: u32,
    /// Lanes of a subgroup: 32 or 64 on GPUs; 8 on Mesa's CPU driver, with a side of 8.
    pub lanes: u32,
}

impl Matrices {
    /// Those that kernels are written for.
    pub const ALL: [Self; 5] = [
        Self { side: 16, lanes: 32 },
        Self { side: 16, lanes: 64 },
        Self { side: 8, lanes: 32 },
        Self { side: 8, lanes: 64 },
        Self { side: 8, lanes: 8 },
    ];

    /// Lanes that share a row of a block of 16×16.
    pub(super) fn lanes_of_row(self) -> u32 {
        (self.lanes / 16).max(1)
    }

    /// Rows of a block that a subgroup works on at a time.
    pub(super) fn rows_at_once(self) -> u32 {
        self.lanes / self.lanes_of_row()
    }

    /// The constants of a shader that uses them.
    pub(super) fn consts(self) -> [Const; 8] {
        [
            Const::U32("EACH", self.lanes_of_row()),
            Const::U32("ROWS", self.rows_at_once()),
            Const::U32("ROW_FOLD", self.rows_at_once() / self.side),
            Const::U32("SIDE", self.side),
            Const::U32("QUADS", self.side / 4),
            Const::U32("FOLD", 16 / self.side),
            Const::U32("LANES", self.lanes),
            Const::Bool("SIDE_8", self.side == 8),
        ]
    }
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
