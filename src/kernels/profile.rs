//! What kernels and plans must know of a device, as data. No decision asks for a vendor.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use super::{Asked, Const, CostTable, Form, Precision};

/// What kernels and plans must know of a device.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceProfile {
    /// Whether shaders run on the CPU.
    pub cpu: bool,
    /// Lanes of a subgroup, the fewest and the most.
    pub subgroups: [u32; 2],
    /// Whether shaders compute with f16. Stored in f16 are values on every device.
    pub f16: bool,
    /// The cooperative matrices that kernels may use, of f16 in and f32 out. Those that the device does not have are
    /// written out in plain WGSL: slow, for testing these kernels.
    pub matrices: Arc<[Matrices]>,
    /// Whether kernels with cooperative matrices are taken wherever they can be, whatever they cost.
    pub prefers_matrices: bool,
    /// Bytes of workgroup memory.
    pub workgroup_memory: u32,
    /// Largest binding, bytes.
    pub max_binding: u64,
    /// Largest buffer, bytes.
    pub max_buffer: u64,
    /// Bindings begin at multiples of this, bytes.
    pub alignment: u64,
    /// What kernels cost.
    pub costs: Arc<CostTable>,
    /// Kernels and cores, by name, that compute wrong results on this device, or more slowly than plain ones.
    pub distrusted: Arc<BTreeSet<String>>,
    /// Notes what is asked while networks are planned; for tuning.
    pub asked: Option<Arc<Asked>>,
}

/// Cooperative matrices of a device: side × side × side, f16 in and f32 out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Matrices {
    /// 16 or 8.
    pub side: u32,
    /// Lanes of a subgroup: 32 or 64 on GPUs; 8 on Mesa's CPU driver, with a side of 8.
    pub lanes: u32,
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

impl DeviceProfile {
    /// A GPU with what every WebGPU device offers: bindings of 128 MiB, buffers of 256 MiB, no features.
    pub fn gpu() -> Self {
        Self {
            cpu: false,
            subgroups: [32, 32],
            f16: false,
            matrices: Arc::default(),
            prefers_matrices: false,
            workgroup_memory: 16 << 10,
            max_binding: 128 << 20,
            max_buffer: 256 << 20,
            alignment: 256,
            costs: CostTable::of_gpus(),
            distrusted: Arc::default(),
            asked: None,
        }
    }

    /// The same of a driver that runs shaders on the CPU, with subgroups as wide as its SIMD lanes.
    pub fn cpu() -> Self {
        Self { cpu: true, subgroups: [LANES; 2], costs: CostTable::of_cpus(), ..Self::gpu() }
    }

    /// The same of a GPU with cooperative matrices and `memory` bytes of workgroup memory, [`LEAST_MEMORY`] or more.
    pub fn with_matrices(matrices: Matrices, memory: u32) -> Self {
        Self {
            subgroups: [matrices.lanes; 2],
            f16: true,
            matrices: Arc::new([matrices]),
            workgroup_memory: memory,
            ..Self::gpu()
        }
    }

    /// The same device with plain kernels alone.
    pub fn plain(&self) -> Self {
        let Self { max_binding, max_buffer, alignment, .. } = *self;
        Self { max_binding, max_buffer, alignment, ..Self::gpu() }
    }

    /// The compiled-in costs of its kind.
    pub fn compiled_in_costs(&self) -> Arc<CostTable> {
        if self.has_simd() { CostTable::of_cpus() } else { CostTable::of_gpus() }
    }

    /// Whether the kernels are for it in which an invocation is a SIMD lane: on CPUs whose subgroups are as wide as
    /// these kernels are written for.
    pub fn has_simd(&self) -> bool {
        self.cpu && self.subgroups[0] >= LANES
    }

    /// Iterations of all loops of an invocation after which a driver may end it.
    pub(super) fn most_iterations(&self) -> u64 {
        if self.has_simd() { MOST_ITERATIONS } else { u64::MAX }
    }

    /// Whether a kernel or core of this name and form can run here, and is trusted.
    pub(super) fn takes(&self, name: &str, form: Form) -> bool {
        let runs = match form {
            Form::Plain => true,
            Form::Simd { .. } => self.has_simd(),
            Form::Cooperative => !self.matrices.is_empty() && self.workgroup_memory >= LEAST_MEMORY,
        };
        runs && !self.distrusted.contains(name)
    }

    /// The storage to take where none is asked for: f16, but f32 where conversions cost more than memory.
    pub fn usual_precision(&self) -> Precision {
        if self.cpu && !self.prefers_matrices { Precision::F32 } else { Precision::F16 }
    }

    /// Whether f16 is computed with cooperative matrices.
    pub fn uses_matrices(&self) -> bool {
        !self.matrices.is_empty() && (!self.cpu || self.prefers_matrices)
    }
}

/// Which kernels it takes, in words.
impl fmt::Display for DeviceProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.matrices.first() {
            Some(Matrices { side, lanes }) if self.uses_matrices() => {
                write!(f, "cooperative matrices of {side}x{side}x{side}, subgroups of {lanes}")
            }
            _ if self.has_simd() => write!(f, "SIMD, for a CPU"),
            _ => write!(f, "plain"),
        }
    }
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
