//! The networks whose weights a LoRA may change.

use crate::checkpoint::Checkpoint;
use crate::families::Family;
use crate::model::config::TextConfig;

/// A network whose weights a LoRA may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TargetNetwork {
    /// The denoising network.
    Unet,
    /// A text encoder, counted from 0.
    Text(usize),
}

/// Networks that LoRAs are fitted to, all from one file.
#[derive(Clone, Copy)]
pub struct Networks<'a> {
    /// For messages.
    pub family: Family,
    /// The file.
    pub model: &'a Checkpoint,
    /// Whether its UNet is one of them.
    pub unet: bool,
    /// Those of its text encoders that are.
    pub text: &'a [TextConfig],
}
