//! What guidance may do to the self-attentions of the middle block, in all of its transformer blocks.

/// A network made a little worse on purpose: guidance leads away from what it predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Perturbation {
    /// The network as it is.
    #[default]
    None,
    /// Each position attends to itself alone, so that attention gives the values: Perturbed-Attention
    /// Guidance (Ahn et al. 2024, arXiv 2403.17377), as ComfyUI's node has it.
    Identity,
    /// Queries are blurred over the map, which smoothes the energy of attention: Smoothed Energy
    /// Guidance (Hong 2024, arXiv 2408.00760).
    BlurredQueries(Width),
}

/// The standard deviation of a blur, in positions of the middle block's map; by its bits, so that
/// networks of equal widths are known to be the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Width(u32);

impl Width {
    /// Above this a blur is the mean over the map, as the method's own code has it.
    pub const WIDEST: f32 = 9999.0;

    /// `sigma` above 0; [`WIDEST`](Self::WIDEST) and more is the mean.
    pub fn new(sigma: f32) -> Self {
        Self(if sigma < Self::WIDEST { sigma } else { f32::INFINITY }.to_bits())
    }

    /// Positions; infinity for the mean.
    pub fn sigma(self) -> f32 {
        f32::from_bits(self.0)
    }
}
