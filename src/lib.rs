#![doc = include_str!("../README.md")]
#![warn(missing_docs)]
// Tests may panic.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
// What tests and tools alone look at is there without them.
#![cfg_attr(not(feature = "internals"), allow(dead_code, unused_imports))]

#[cfg(feature = "internals")]
mod bench;
pub mod checkpoint;
pub mod embedded;
mod engine;
pub mod error;
mod families;
mod folder;
pub mod gpu;
mod graph;
pub mod guidance;
pub mod image;
#[cfg(feature = "workflow")]
pub mod inspect;
#[cfg(feature = "internals")]
pub mod internals;
mod kernels;
pub mod latent;
pub mod lora;
mod model;
mod network;
pub mod pipeline;
mod plan;
pub mod sampler;
mod shader;
mod text;
#[cfg(feature = "internals")]
mod verify;
mod whole;
#[cfg(feature = "workflow")]
pub mod workflow;

pub use checkpoint::Checkpoint;
pub use error::{Error, ErrorKind, Remedy, Resource, Result};
pub use gpu::Gpu;
pub use guidance::{Guidance, Sag};
pub use image::{Mask, Picture};
pub use kernels::Precision;
pub use latent::Latent;
pub use lora::{Lora, LoraUse};
pub use model::{Family, Prediction};
pub use pipeline::{Event, Generated, Limits, Model, ModelOptions, Request, Schedule, Solver, Tiling};
pub use plan::chunk::ChunkPolicy;
pub use sampler::{Sampler, Scheduler};
pub use wgpu;
