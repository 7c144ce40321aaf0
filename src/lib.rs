//! sagittal
pub mod checkpoint;
pub mod embedded;
pub mod engine;
pub mod error;
pub mod gpu;
pub mod graph;
pub mod guidance;
pub mod kernels;
pub mod image;
pub mod latent;
pub mod model;
pub mod network;
pub mod pipeline;
pub mod plan;
pub mod sampler;
pub mod shader;
pub mod text;
pub mod verify;

pub use error::{Error, ErrorKind, Result};
pub use latent::Latent;
pub use wgpu;
