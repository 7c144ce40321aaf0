//! The text chunk `parameters` of a PNG, written the way A1111's web UI does, so that its "PNG
//! info" and the galleries that read it fill in the settings of a picture.
//!
//! ```text
//! a fox
//! Negative prompt: blurry
//! Steps: 20, Sampler: Euler, Schedule type: Normal, CFG scale: 7, Seed: 1, Size: 512x512, …
//! ```

pub use super::infotext::KEYWORD;
#[doc(hidden)]
pub use crate::pipeline::parameters::needs_batch;
pub use crate::pipeline::parameters::{Origin, parameters};
