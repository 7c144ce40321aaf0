//! What guidance needs from a network: predictions of rows.

use super::{Columns, Entry};
use crate::Result;
use crate::graph::Perturbation;
use crate::latent::Latent;

/// One row of a network call: one image of the batch under one entry of the conditioning.
#[derive(Debug, Clone)]
pub struct Row<'a> {
    /// The conditioning.
    pub entry: &'a Entry,
    /// The noisy latent of one image, `[1, channels, height, width]`, cropped to the entry's area.
    pub x: Latent,
    /// Its noise level σ.
    pub sigma: f32,
    /// Whether the column sums of the middle block's self-attention must be returned.
    pub record: bool,
    /// How the self-attention of the middle block is perturbed; a perturbed row records nothing.
    pub perturbation: Perturbation,
}

/// The result of a row.
#[derive(Debug, Clone)]
pub struct RowResult {
    /// The denoised prediction, of the shape of [`Row::x`].
    pub denoised: Latent,
    /// The column sums, if [`Row::record`] is set.
    pub columns: Option<Columns>,
}

/// A network that predicts rows.
pub trait Network {
    /// Predicts the rows, and returns one result for each, in the same order. A result must depend on its row
    /// alone, not on the other rows of the call.
    ///
    /// # Errors
    /// Any error of the network; the run ends with it.
    fn predict(&mut self, rows: &[Row<'_>]) -> Result<Vec<RowResult>>;
}
