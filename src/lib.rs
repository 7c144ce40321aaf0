//! sagittal
pub mod engine;
pub mod error;
pub mod gpu;
pub mod graph;
pub mod kernels;
pub mod latent;
pub mod plan;
pub mod shader;

pub use error::{Error, ErrorKind, Result};
pub use latent::Latent;
pub use wgpu;
