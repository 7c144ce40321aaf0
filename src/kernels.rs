//! The kernels, one module a kernel, with the base name of its shader: what there is to know of it for all that
//! goes through every kernel ([`KernelSpec`]), parameters as the shader reads them, the size of the grid, and a
//! plain reference in f64 that tests hold the shader to.
//!
//! A [`Call`] is one dispatch as data. Nothing here knows wgpu.
//!
//! A new kernel costs a WGSL file, a module with its `KernelSpec`, and a line below. If no network's graph leads to it,
//! it also makes samples, which are listed in `kernels/registry.rs`.

mod activation;
pub mod attention;
pub mod attention_columns;
mod binding;
pub mod blur;
mod call;
pub mod cfg_rescale;
mod class;
pub mod combine;
mod costs;
pub mod elementwise;
pub mod entries_mean;
pub mod error_norm;
pub mod gemm;
pub mod group_norm;
pub mod latents;
pub mod layer_norm;
pub mod network_input;
pub mod network_output;
mod operand;
mod params;
mod precision;
mod profile;
mod registry;
pub mod repack;
pub mod sag_degrade;
mod spec;

pub use activation::{activation_code, activation_reference};
pub use binding::{Binding, Holds};
pub use call::{Call, Const, Variant};
pub use class::Class;
pub use costs::{Asked, CostTable, KernelCost, Question};
pub use operand::{Buf, Operand, Stretch, Strided};
pub use params::Field;
use params::params;
pub(crate) use params::{Uniforms, room};
pub use precision::Precision;
pub use profile::{DeviceProfile, LANES, LEAST_MEMORY, MAX_GROUPS, Matrices, spread};
pub use registry::samples;
pub(crate) use registry::{alternatives, fingerprint};
pub use spec::{CoreSpec, Form, KernelSpec};
