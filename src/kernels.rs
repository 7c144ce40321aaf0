//! The kernels, one module a kernel, with the base name of its shader: what there is to know of it for all that
//! goes through every kernel ([`KernelSpec`]), parameters as the shader reads them, the size of the grid, and a
//! plain reference in f64 that tests hold the shader to. [`Kernel`] lists them.
//!
//! A [`Call`] is one dispatch as data. Nothing here knows wgpu.

pub mod attention;
pub mod attention_columns;
pub mod blur;
pub mod cfg_rescale;
pub mod combine;
pub mod elementwise;
pub mod entries_mean;
pub mod error_norm;
pub mod gemm;
pub mod group_norm;
pub mod latents;
pub mod layer_norm;
pub mod network_input;
pub mod network_output;
mod params;
mod registry;
pub mod repack;
pub mod sag_degrade;

use crate::graph::{Activation, WeightId};
use crate::{Error, Result};
pub use params::Field;
use params::params;
pub(crate) use params::{Uniforms, room};
pub use registry::{Binding, Class, Core, CoreSpec, Form, Holds, Kernel, KernelSpec};
use registry::{input, result, scalars, updated, weight};
use std::fmt;
use std::str::FromStr;

/// Storage precision of activations and weights. Arithmetic is f32 in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Precision {
    /// 4 bytes a value.
    F32,
    /// 2 bytes a value; about three decimal digits.
    F16,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Precision {
    type Err = Error;

    /// `f32` or `f16`, or what other programs call them: `fp16`, `float16`, `half`, `fp32`, `float32`, `float`,
    /// `full`.
    fn from_str(name: &str) -> Result<Self> {
        match name.trim().to_ascii_lowercase().as_str() {
            "f32" | "fp32" | "float32" | "float" | "full" => Ok(Self::F32),
            "f16" | "fp16" | "float16" | "half" => Ok(Self::F16),
            _ => Err(Error::usage("unknown precision").expected("f32 or f16").found(name)),
        }
    }
}

impl Precision {
    /// Bytes of a stored value.
    pub fn bytes(self) -> u64 {
        match self {
            Precision::F32 => 4,
            Precision::F16 => 2,
        }
    }

    /// `f32` or `f16`.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::F16 => "f16",
        }
    }
}

/// A line of a shader's generated header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Const {
    /// `const NAME = 4u;`
    U32(&'static str, u32),
    /// `const NAME = true;`
    Bool(&'static str, bool),
}

/// A kernel in one variant: what has to be compiled.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Variant {
    /// Which kernel.
    pub kernel: Kernel,
    /// Constants of the header.
    pub consts: Vec<Const>,
    /// What sums, in a kernel of products.
    pub core: Option<Core>,
    /// Storage precision.
    pub precision: Precision,
    /// Whether the result is f32 whatever the precision.
    pub out_f32: bool,
}

impl Variant {
    /// The value of its constant `name`: of a truth 1 or 0.
    pub(crate) fn constant(&self, name: &str) -> Option<u32> {
        self.consts.iter().find_map(|c| match *c {
            Const::U32(n, v) => (n == name).then_some(v),
            Const::Bool(n, v) => (n == name).then_some(v.into()),
        })
    }
}

impl std::fmt::Display for Variant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.kernel)?;
        if let Some(core) = self.core {
            write!(f, "+{core}")?;
        }
        write!(f, " {}", self.precision.name())?;
        if self.out_f32 {
            write!(f, ">f32")?;
        }
        for c in &self.consts {
            match c {
                Const::U32(n, v) => write!(f, " {n}={v}")?,
                Const::Bool(n, true) => write!(f, " {n}")?,
                Const::Bool(_, false) => {}
            }
        }
        Ok(())
    }
}

/// A stretch of device memory that calls read and write; the planner gives it a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Buf(pub usize);

/// A part of a [`Buf`], bytes. A tensor that is too large to be bound is bound in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stretch {
    /// Of what.
    pub buf: Buf,
    /// First byte, where a binding may begin.
    pub offset: u64,
    /// Length.
    pub bytes: u64,
}

/// What a binding holds, in the order of the shader's binding numbers from 1 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operand {
    /// Read by the call.
    Read(Stretch),
    /// Written by the call.
    Write(Stretch),
    /// A weight, read.
    Weight(WeightId),
    /// What changes from step to step, a uniform of [`latents::SCALARS`] vec4s: networks have none.
    Scalars,
    /// Not used in this variant.
    Unused,
}

/// What each row has a stretch of, in quads of one binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strided {
    /// The binding.
    pub operand: Operand,
    /// Where the first row's stretch begins.
    pub first: usize,
    /// From a row's stretch to the next row's.
    pub row: usize,
}

impl Strided {
    /// Not used in this variant.
    pub const UNUSED: Self = Self { operand: Operand::Unused, first: 0, row: 0 };
}

/// One dispatch as data.
#[derive(Debug, Clone)]
pub struct Call {
    /// What is run.
    pub variant: Variant,
    /// The uniform parameters, binding 0.
    pub params: Vec<u8>,
    /// Bindings from 1 on.
    pub operands: Vec<Operand>,
    /// Workgroups.
    pub groups: [u32; 3],
    /// The layer's path.
    pub path: String,
    /// Multiply-adds counted twice.
    pub flops: u64,
}

/// Which kind of machine the variants are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// Many cores with workgroup memory.
    Gpu,
    /// The same with cooperative matrices of 16×16×16 for f16 and subgroups of 32. On a device that has
    /// no such matrices they are written out in plain WGSL: slow, for testing those kernels.
    Matrices {
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

/// The number that `shaders/helpers/activation.wgsl` knows `f` by.
pub fn activation_code(f: Option<Activation>) -> u32 {
    match f {
        None => 0,
        Some(Activation::Silu) => 1,
        Some(Activation::Gelu) => 2,
        Some(Activation::QuickGelu) => 3,
    }
}

/// `f(x)` in f64.
pub fn activation_reference(f: Option<Activation>, x: f64) -> f64 {
    match f {
        None => x,
        Some(Activation::Silu) => x / (1.0 + (-x).exp()),
        Some(Activation::Gelu) => 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        Some(Activation::QuickGelu) => x / (1.0 + (-1.702 * x).exp()),
    }
}

/// erf in f64 by its series 2/√π · e^(-x²) · Σ 2ⁿ x^(2n+1) / (2n+1)!!, all terms of one sign.
fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum, mut n) = (x, x, 1.0);
    while term.abs() > 1e-18 * sum.abs() {
        n += 2.0;
        term *= 2.0 * x * x / n;
        sum += term;
    }
    std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
}
