//! What guidance asks of a network: predictions of rows.

use super::{Columns, Entry};
use crate::Result;
use crate::graph::Perturbation;
use crate::latent::Latent;

/// One evaluation of the network: a picture under one entry.
#[derive(Debug, Clone)]
pub struct Row<'a> {
    /// The conditioning.
    pub entry: &'a Entry,
    /// The noisy latent of one picture, cropped to the entry's area.
    pub x: Latent,
    /// Its noise level.
    pub sigma: f32,
    /// Whether the column sums of the middle block's self-attention are wanted.
    pub record: bool,
    /// What is done to the self-attentions of the middle block; rows with one record nothing.
    pub perturbation: Perturbation,
}

/// What the network says of a row.
#[derive(Debug, Clone)]
pub struct RowResult {
    /// The prediction of the picture under the noise, of the row's shape.
    pub denoised: Latent,
    /// The column sums, if they were wanted.
    pub columns: Option<Columns>,
}

/// A network that predicts rows.
pub trait Network {
    /// Predicts each row by itself: a result may depend on its row alone, not on its company.
    ///
    /// # Errors
    /// Whatever stops the network.
    fn predict(&mut self, rows: &[Row<'_>]) -> Result<Vec<RowResult>>;
}
