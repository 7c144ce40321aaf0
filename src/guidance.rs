//! Guidance: several predictions of the network combined linearly in denoised space.
//!
//! A step is a list of rows (picture × conditioning entry × perturbation). A [`Backend`] evaluates
//! them in whatever portions it likes, on the host by a [`Network`] or on the device; [`Guided`] combines
//! their results in a canonical order, so that neither the portions nor the order of entries can change a
//! bit of the result. Beside classifier-free guidance, guidance is a list of [`Term`]s, each of which adds
//! its pull.
//!
//! CFG:  R = D_u + (D_c - D_u) · cfg
//! SAG:  R + (D_g - S) · scale, with D_g = D_u blurred where attention is high, and S the
//!       prediction for D_g under the same noise (Hong et al. 2022, arXiv 2210.00939).
//! PAG, SEG:  R + (D_c - P) · scale, with P the prediction with the prompt of a network whose
//!       self-attention is perturbed.

pub(crate) mod backend;
mod compose;
pub mod entry;
mod evaluation;
mod guided;
mod host;
mod network;
mod perturbed;
mod rescale;
pub mod sag;
mod settings;
pub mod term;
pub(crate) mod weighted_mean;

#[doc(hidden)]
pub use backend::Backend;
pub use entry::{Area, Conditioning, Entry};
pub use evaluation::{Evaluation, SagEvaluation};
pub use guided::{Guided, Watch};
#[doc(hidden)]
pub use host::HostBackend;
pub use network::{Network, Row, RowResult};
pub use perturbed::Perturbed;
pub use sag::Sag;
pub use settings::Guidance;
pub use term::Term;

pub use crate::latent::attention_map::Columns;
