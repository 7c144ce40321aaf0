//! The attention that each position of a network's map receives, and which position belongs to a latent cell.

/// The attention that each position of the middle block's map receives: column sums of the attention matrix, mean
/// over heads. Their mean over positions is 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Columns {
    /// Height of the map, positions.
    pub height: usize,
    /// Width of the map, positions.
    pub width: usize,
    /// `[height, width]`.
    pub values: Vec<f32>,
}

/// The position along an axis of a map, `size` long, that belongs to cell `at` of an axis `full` long: the nearest,
/// as PyTorch's `interpolate` computes it in f32. 0 for an empty map.
pub fn nearest(at: usize, size: usize, full: usize) -> usize {
    let position = at as f32 * (size as f32 / full as f32);
    (position as usize).min(size.saturating_sub(1))
}
