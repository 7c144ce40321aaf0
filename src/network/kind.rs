//! What rows must share to be computed together.

use crate::graph::Perturbation;
use crate::guidance::Row;

/// What rows must share to be computed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowKind {
    /// Latent height and width.
    pub size: (usize, usize),
    /// Tokens of the conditioning.
    pub tokens: usize,
    /// Whether column sums are recorded: for all rows if for one.
    pub record: bool,
    /// How the self-attention of the middle block is perturbed.
    pub perturbation: Perturbation,
}

impl RowKind {
    /// The kind of `row`, without regard to other rows.
    pub fn of(row: &Row<'_>) -> Self {
        let size = (row.x.height(), row.x.width());
        Self { size, tokens: row.entry.tokens, record: row.record, perturbation: row.perturbation }
    }
}
