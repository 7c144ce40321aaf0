//! The configuration of a text encoder.

use crate::families::Tower;

/// The nonlinearity in the MLPs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// x · sigmoid(1.702 x), of OpenAI's CLIP.
    QuickGelu,
    /// x · Φ(x), of OpenCLIP.
    Gelu,
}

/// A text encoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextConfig {
    /// Which one; decides the layout of its tensors.
    pub tower: Tower,
    /// Prefix of its tensors, with the last dot.
    pub prefix: String,
    /// Width of a token.
    pub width: usize,
    /// Attention heads, of 64 channels each (one if the width is less than 64), unless the file says
    /// otherwise.
    pub heads: usize,
    /// Number of transformer layers.
    pub layers: usize,
    /// Layers behind these that the network was trained with and the file leaves out, because
    /// no network reads them. Clip skip counts them.
    pub absent: usize,
    /// Width inside the MLPs.
    pub mlp_width: usize,
    /// Places in the table of positions: 77, or more (LongCLIP: 248), of which the first 77 are used.
    pub positions: usize,
    /// Number of token embeddings (49,408).
    pub vocab: usize,
    /// The nonlinearity in the MLPs.
    pub activation: Activation,
    /// Columns of `text_projection`, applied to the pooled token, if there is one.
    pub projection: Option<usize>,
}
