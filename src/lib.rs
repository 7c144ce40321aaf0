#![doc = include_str!("../README.md")]
#![warn(missing_docs)]
// Tests may stop where something is not as they expect; the library tells.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::todo,
        clippy::unimplemented
    )
)]

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
pub mod verify;
mod whole;
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
