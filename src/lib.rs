#![doc = include_str!("../README.md")]
#![warn(missing_docs)]
// Tests may panic.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
// What tests and tools alone look at is there without them.
#![cfg_attr(not(feature = "internals"), allow(dead_code))]

#[cfg(feature = "internals")]
pub mod bench;
pub mod checkpoint;
pub mod embedded;
pub mod engine;
pub mod error;
pub mod families;
pub mod folder;
pub mod gpu;
pub mod graph;
pub mod guidance;
pub mod image;
#[cfg(feature = "workflow")]
pub mod inspect;
// Shaders and their arguments, for this crate's tests: apps reach them through the engine, which looks at what it is
// given.
#[doc(hidden)]
pub mod kernels;
pub mod latent;
pub mod lora;
pub mod model;
pub mod network;
pub mod pipeline;
pub mod plan;
pub mod sampler;
#[doc(hidden)]
pub mod shader;
pub mod text;
#[cfg(feature = "internals")]
pub mod verify;
mod whole;
#[cfg(feature = "workflow")]
pub mod workflow;

pub use checkpoint::Checkpoint;
pub use error::{Error, ErrorKind, Remedy, Resource, Result};
pub use gpu::Gpu;
pub use guidance::Sag;
pub use image::Picture;
pub use kernels::Precision;
pub use latent::Latent;
pub use lora::{Lora, LoraUse};
pub use pipeline::{Event, Generated, Model, ModelOptions, Request};
pub use wgpu;
