//! The cost of a request: memory, network calls, dispatches.

use std::collections::BTreeMap;
use std::fmt;

/// The cost of a request.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Report {
    /// Network calls of a step in which all guidance is active, in order; samplers of higher order evaluate more than
    /// once per step.
    pub calls: Vec<Call>,
    /// All work of that step, in order.
    pub step: Vec<Work>,
    /// Bytes of latents, and of tables for them.
    pub latent_bytes: u64,
    /// Bytes that the UNet's calls need for activations; they share one arena.
    pub arena_bytes: u64,
    /// Bytes that the VAE decoder needs for activations, for one picture.
    pub decoder_arena_bytes: u64,
    /// Tiles of a picture in the decoder; 1 means no tiling.
    pub decoder_tiles: usize,
    /// Bytes that the VAE encoder needs for the picture to start from; 0 without one.
    pub encoder_arena_bytes: u64,
    /// Tiles of that picture.
    pub encoder_tiles: usize,
    /// Whether the UNet's weights do not fit and are streamed at every call.
    pub weights_in_turn: bool,
    /// Peak device memory, bytes.
    pub peak_bytes: u64,
    /// Bytes of weights by network; not all have to be on the device at the same time.
    pub weight_bytes: Vec<(&'static str, u64)>,
    /// Dispatches of a step, by kernel variant.
    pub variants: BTreeMap<String, usize>,
    /// Features of the adapter that the app's device lacks and that would make it faster, one text each:
    /// [`Gpu::unused`](crate::Gpu::unused).
    pub unused: Vec<String>,
}

/// Work of a step.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// A network call.
    Network(Call),
    /// A dispatch of latent arithmetic between the calls.
    Latents {
        /// What it does.
        path: String,
        /// Bytes that it is bound to.
        bytes: u64,
    },
}

/// One network call.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Call {
    /// The purpose of its rows.
    pub purpose: Purpose,
    /// Rows computed together.
    pub rows: usize,
    /// Dispatches.
    pub dispatches: usize,
    /// Floating-point operations: two per multiply-add.
    pub flops: u64,
    /// Bytes that its dispatches are bound to, weights included.
    pub bytes: u64,
}

/// The purpose of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Purpose {
    /// The predictions with and without the prompt.
    Guidance,
    /// The prediction for the picture that SAG has blurred in places.
    Sag,
    /// A prediction that a custom term requests, or SAG beside such a term.
    Term,
}

impl fmt::Display for Purpose {
    /// One word: `guidance`, `sag` or `term`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Guidance => "guidance",
            Self::Sag => "sag",
            Self::Term => "term",
        })
    }
}

impl Report {
    /// Rows of a step: pictures × conditioning entries × perturbations.
    pub fn rows_per_step(&self) -> usize {
        self.calls.iter().map(|c| c.rows).sum()
    }

    /// The largest number of rows computed together.
    pub fn rows_per_call(&self) -> usize {
        self.calls.iter().map(|c| c.rows).max().unwrap_or(0)
    }

    /// Dispatches of a step.
    pub fn dispatches_per_step(&self) -> usize {
        let dispatches = |work: &Work| if let Work::Network(call) = work { call.dispatches } else { 1 };
        self.step.iter().map(dispatches).sum()
    }

    /// Floating-point operations of a step: two per multiply-add.
    pub fn flops_per_step(&self) -> u64 {
        self.calls.iter().map(|c| c.flops).sum()
    }

    /// Bytes of all weights on the device.
    pub fn all_weight_bytes(&self) -> u64 {
        self.weight_bytes.iter().map(|(_, bytes)| bytes).sum()
    }
}
