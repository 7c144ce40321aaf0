//! LoRA files: small changes to a model's weights, W + weight · alpha/rank · up · down, and their relatives LoCon,
//! DoRA, LoHa, LoKr, GLoRA, OFT, BOFT and full differences of weights.
//!
//! ```text
//! Lora::open     file              →  changes of modules, under whatever names the file has
//! Patches::new   changes, a model  →  which tensor each of them changes, all shapes checked
//! Patched        tensor name       →  its values with the changes, when they are uploaded
//! ```
//!
//! It is done in f32 when a weight is read, before it is rounded to the storage of the device:
//! on a GPU a model with LoRAs costs no more to run than one without, and its file stays as it is. On a CPU
//! driver in f32, what LoRAs change of a file in f16 is no longer kept in f16.

mod family;
mod file;
mod merge;
mod module_names;
mod networks;
mod open;
mod other_kinds;
mod patches;
mod rotation;
pub mod tags;
mod tensor_roles;
mod training_settings;
mod weight_change;

pub(crate) use file::BUNDLED;
pub use file::{Lora, LoraUse};
#[doc(hidden)]
pub use merge::Patched;
#[doc(hidden)]
pub use networks::{Networks, TargetNetwork};
#[doc(hidden)]
pub use patches::Patches;
