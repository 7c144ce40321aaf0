//! What nodes are, as data without behaviour: types, inputs with defaults and ranges, outputs, titles, categories.
//!
//! Inputs, defaults and ranges are ComfyUI's; their order is that of the widgets in the UI format. The classes
//! themselves are declared beside their functions, and [`classes`](super::classes) lists them.

mod choices;
mod class;
mod slot;
mod types;

pub use choices::Choices;
pub use class::Class;
pub use slot::{Kind, Slot};
pub(crate) use slot::{cells, choice, file, float, int, pixels, prompt, seed, socket, switch, words};
pub use types::{FileKind, Type};
