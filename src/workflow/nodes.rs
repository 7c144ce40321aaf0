//! The nodes that run here: each class's declaration with the function that does its work, and what else is known
//! of it.
//!
//! Only the files here know classes by their names. A family of nodes is one file with one table.

mod catalogue;
mod conditioning;
mod custom;
mod guidance;
mod images;
mod latents;
mod loaders;
mod lora;
mod masks;
mod node_class;
mod older_names;
mod primitives;
mod sampling;
mod save;
mod screen_only;

pub use catalogue::{class, classes};
pub(super) use catalogue::{find, is_comfyuis, misspelt, title};
pub(super) use node_class::{Function, NodeClass};
pub(super) use older_names::{class_today, inputs_today};
pub(super) use primitives::is_constant;
pub(super) use sampling::without_negative;
pub(super) use screen_only::{ScreenOnly, screen_only};
