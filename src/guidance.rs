//! Guidance: several predictions of the network, combined linearly in denoised space.
//!
//! A *row* is one batch element of a network call: one image of the batch under one [`Entry`] of the conditioning,
//! of the network as it is or of a perturbed one. A backend evaluates the rows of a step in chunks of any size, by
//! a [`Network`] on the host or on the device. [`Guided`] combines the results in a canonical order, so that neither
//! the size of the chunks nor the order of the entries changes a bit of the result. Classifier-free guidance comes
//! first; then each [`Term`] of a list adds its part.
//!
//! With D_c and D_u the denoised predictions with the prompt and with the negative prompt:
//!
//! ```text
//! CFG       R = D_u + (D_c - D_u) · cfg                   Ho and Salimans 2022, arXiv 2207.12598
//! SAG       R + (D_g - S) · scale                         Hong et al. 2022, arXiv 2210.00939
//!           D_g is D_u, blurred where attention is high; S is the prediction for D_g under the same noise
//! PAG, SEG  R + (D_c - P) · scale                         arXiv 2403.17377, arXiv 2408.00760
//!           P is the prediction with the prompt of a network whose self-attention is perturbed
//! ```

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

pub use crate::graph::Perturbation;
pub use crate::latent::attention_map::Columns;
