//! Stable Diffusion 1, 2 and XL with exact Self-Attention Guidance, in WGSL compute shaders through [wgpu](https://wgpu.rs): on
//! Vulkan, Metal or DX12, without Python and without CUDA.
//!
// docs/strip.png as WebP in the page itself: docs.rs has no files of the repository.
#![doc = include_str!("strip.md")]
//!
//! A [`Checkpoint`] is a file or a folder of weights. A [`Gpu`] is a device, opened here or shared by an app. A [`Model`]
//! is a checkpoint on a device. A [`Request`] says what to draw, and [`Model::generate`] draws it:
//!
//! ```no_run
//! use sagittal::{Checkpoint, Gpu, Model, ModelOptions, Request, Size};
//!
//! # fn main() -> sagittal::Result<()> {
//! let checkpoint = Checkpoint::open("model.safetensors")?;
//! let model = Model::new(Gpu::open(None)?, checkpoint, ModelOptions::default())?;
//! let request = Request::new("a lighthouse in a storm", Size::square(512));
//! let made = model.generate(&request)?;
//! let png = sagittal::image::png::encode(&made.pictures[0], &[])?;
//! // `false`: an existing file is an error.
//! sagittal::image::png::write("lighthouse.png".as_ref(), &png, false)?;
//! # Ok(()) }
//! ```
//!
//! [`image::parameters`] puts the settings into the PNG, as A1111 does.
//!
//! # What to look at next
//!
//! * [`Request`]: size, seed, sampler, scheduler, batch, image to image, inpainting.
//! * [`Model::run`]: the same with [`Progress`], previews and cancel, in a thread of its own.
//! * [`Gpu::from_adapter`] and [`Gpu::device_descriptor`]: the app's own device; [`Gpu::with_longest_wait`]: how long its
//!   frames may wait.
//! * [`Sag`] and [`Guidance`]: the guidance; your own terms are in [`guidance::term`].
//! * [`Lora`], [`Model::set_loras`]: LoRAs.
//! * [`Model::report`]: memory and work, known before anything runs.
//! * [`Error`]: every error has what was expected, what was found, where, and a [`Remedy`] as data.
//! * [`sampler`] and [`guidance::Network`]: samplers and guidance for your own network.
//!
//! # Features
//!
//! None is on by default.
//!
//! * `pictures`: reading JPEG and WebP, and PNG of every kind; conversions between [`Picture`] and the crate `image`.
//! * `workflow`: ComfyUI's workflows; the contents of files (`inspect`). It includes `pictures`.
//! * `serde`: `Serialize` and `Deserialize` for [`Request`] and everything in it.
//! * `embedded-model`: a small model inside the library (31 MB), for tests and first steps. The package on
//!   crates.io does not contain its weights: build from the repository.
//! * `internals`: modules for tests and tools of the repository, without any stability guarantee.
//!
//! # Guarantees
//!
//! The library never prints, exits or panics on what a caller passes, and sets no callback of the device. It runs on
//! `wgpu::Limits::default()` without optional features, and is faster with them. The same device and seed give the same
//! bytes, independent of the batch size, the chunk size and the memory limit.
//!
//! Items hidden from these docs are for the repository's tests, like the feature `internals`.
#![warn(missing_docs)]
// docs.rs, whose compiler can, shows which feature an item needs.
#![cfg_attr(docsrs, feature(doc_cfg))]
// Tests may panic.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable))]
// Code for tests and tools alone is compiled without them, too.
#![cfg_attr(not(feature = "internals"), allow(dead_code, unused_imports))]

mod atomic_file;
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
mod nearest_name;
mod network;
pub mod pipeline;
mod plan;
pub mod sampler;
mod shader;
mod size;
mod text;
mod trust;
#[cfg(feature = "internals")]
mod verify;
#[cfg(feature = "workflow")]
pub mod workflow;

pub use checkpoint::Checkpoint;
pub use error::{Error, ErrorKind, Remedy, Resource, Result};
pub use gpu::Gpu;
pub use guidance::{Guidance, Sag};
pub use image::{Mask, Picture};
pub use kernels::Precision;
pub use latent::{Latent, VaeLatent};
pub use lora::{Lora, LoraUse};
pub use model::{Family, Prediction};
pub use pipeline::{
    CancelToken, Generated, Generation, Handle, Limits, Model, ModelOptions, Progress, Request, Schedule,
    Solver, Tiling,
};
pub use plan::chunk::ChunkPolicy;
pub use sampler::{Sampler, Scheduler};
pub use size::Size;
pub use wgpu;

/// The README's examples, which are compiled and run as tests.
#[cfg(all(doctest, feature = "internals"))]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../docs/LIBRARY.md")]
struct Readme;
