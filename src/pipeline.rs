//! From a checkpoint, a device and a request to pictures.
//!
//! [`Model::generate`] does all of it, [`Model::run`] does it with progress, in a thread of its own if you like.
//! [`Model::encode`], [`Model::sample`] and [`Model::decode`] are its parts, for custom guidance or
//! sampling.

mod autoencoder;
mod cancel;
mod conditioning;
mod device_context;
mod diffusion;
mod dry_run;
mod estimate;
mod extras;
mod generation;
mod memory;
mod model;
mod options;
pub(crate) mod parameters;
mod parts;
mod pictures;
mod progress;
pub mod report;
mod request;
mod sampling;
mod settings;
mod sizes;
mod source;
mod text;
mod tiles;
mod workload;

pub use autoencoder::Autoencoder;
pub use cancel::CancelToken;
pub use device_context::DeviceContext;
pub use diffusion::{DiffusionModel, Sampled};
#[cfg(feature = "workflow")]
pub(crate) use diffusion::{check_prompts, noise_levels};
pub use generation::{Generation, Handle};
pub use model::Model;
pub use options::ModelOptions;
pub use progress::Progress;
pub use request::{Generated, Noise, Request, Start};
pub use sampling::Sampling;
pub use settings::{Levels, Limits, Schedule, Solver};
pub use sizes::Sizes;
pub use text::TextEncoders;
#[cfg(feature = "workflow")]
pub(crate) use text::layer as text_layer;
pub use tiles::{LEAST_SIDE, Tiling};
#[cfg(feature = "workflow")]
pub(crate) use workload::Workload;
