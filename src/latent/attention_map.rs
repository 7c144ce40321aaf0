//! The attention that a network gives to the positions of a map, and which position belongs to a latent cell.

/// Attention received at each position of the middle block's map; the mean over positions is 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Columns {
    /// True height of the map.
    pub height: usize,
    /// True width of the map.
    pub width: usize,
    /// `[height, width]`.
    pub values: Vec<f32>,
}

/// The position of a map of `size` that stands for cell `at` of `full`: nearest, as PyTorch's
/// `interpolate` computes it in f32; 0 for a map without positions.
pub fn nearest(at: usize, size: usize, full: usize) -> usize {
    let position = at as f32 * (size as f32 / full as f32);
    (position as usize).min(size.saturating_sub(1))
}
