//! How guidance perturbs the self-attention of the middle block, in all of its transformer blocks.

/// A perturbation that makes predictions worse on purpose: guidance moves away from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Perturbation {
    /// The network as it is.
    #[default]
    None,
    /// Each position attends to itself alone, so the result of attention is the values: Perturbed-Attention
    /// Guidance (Ahn et al. 2024, arXiv 2403.17377), as ComfyUI's node has it.
    Identity,
    /// Queries are blurred over the map, which smoothes the energy of attention: Smoothed Energy
    /// Guidance (Hong 2024, arXiv 2408.00760).
    BlurredQueries(Width),
}

/// The standard deviation of a blur, in positions of the middle block's map. Compared by its bits, so that equal widths
/// mean the same network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(from = "f32", into = "f32")
)]
pub struct Width(u32);

impl Width {
    /// From this on the blur is the mean over the map, as in the code of the paper.
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

#[cfg(feature = "serde")]
impl From<f32> for Width {
    fn from(sigma: f32) -> Self {
        Self::new(sigma)
    }
}

#[cfg(feature = "serde")]
impl From<Width> for f32 {
    /// The mean is [`Width::WIDEST`], since JSON has no infinity.
    fn from(width: Width) -> Self {
        width.sigma().min(Width::WIDEST)
    }
}
