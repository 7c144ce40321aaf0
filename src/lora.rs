//! LoRA files: small changes to a model's weights, W + weight · alpha/rank · up · down, and their relatives LoCon,
//! DoRA, LoHa, LoKr, GLoRA, OFT, BOFT and whole differences.
//!
//! ```text
//! Lora::open     file              →  changes of modules, under whatever names the file has
//! Patches::new   changes, a model  →  which tensor each of them changes, all shapes checked
//! Patched        tensor name       →  its values with the changes, when they are brought over
//! ```
//!
//! It is done in f32 when a weight is read, before it is rounded to the storage of the device:
//! on a GPU a model with LoRAs costs no more to run than one without, and its file stays as it is. On a CPU
//! driver in f32, what LoRAs change of a file in f16 is no longer kept in f16.

mod change;
mod file;
mod foreign;
mod merge;
mod names;
mod patches;
mod roles;
mod rotation;
pub mod tags;
mod trained;

use std::sync::Arc;

pub use file::Lora;
#[doc(hidden)]
pub use merge::Patched;
#[doc(hidden)]
pub use patches::{Networks, Part, Patches};

/// A LoRA and how strongly it acts.
#[derive(Debug, Clone)]
pub struct LoraUse {
    /// The file.
    pub lora: Arc<Lora>,
    /// Factor on its change of the UNet; 1 is as trained, 0 none, negative the opposite.
    pub unet: f32,
    /// Factor on its change of the text encoders.
    pub text: f32,
}

impl LoraUse {
    /// `lora` with the same weight everywhere.
    pub fn new(lora: impl Into<Arc<Lora>>, weight: f32) -> Self {
        Self { lora: lora.into(), unet: weight, text: weight }
    }

    fn weight(&self, part: Part) -> f32 {
        match part {
            Part::Unet => self.unet,
            Part::Text(_) => self.text,
        }
    }
}
