//! What a tensor of a graph is: its shape, how it is stored, and whether it is a slice of another.

/// The shape of one row: `height × width` positions of `channels`, channels innermost (NHWC).
/// A token sequence has `width` 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Rows of positions, or tokens.
    pub height: usize,
    /// Positions in a row; 1 for token sequences.
    pub width: usize,
    /// Values at each position.
    pub channels: usize,
}

impl Shape {
    /// A map of `height × width` positions.
    pub fn new(height: usize, width: usize, channels: usize) -> Self {
        Self { height, width, channels }
    }

    /// A sequence of `tokens`.
    pub fn tokens(tokens: usize, channels: usize) -> Self {
        Self { height: tokens, width: 1, channels }
    }

    /// Number of positions; `usize::MAX` if it overflows.
    pub fn positions(&self) -> usize {
        self.height.saturating_mul(self.width)
    }

    /// Channels in groups of four, the unit in which kernels load and store.
    /// Storage is padded with zeros to a multiple of four channels.
    pub fn quads(&self) -> usize {
        self.channels.div_ceil(4)
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}x{}", self.height, self.width, self.channels)
    }
}

/// Handle of a tensor in its [`Graph`](super::Graph).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tensor(pub(crate) usize);

/// How a tensor is stored on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Store {
    /// In the plan's precision, f32 or f16.
    Elem,
    /// In f32 quads: results to be read back.
    F32,
    /// In f32 without padding: log-sum-exp, column sums.
    Plain,
}

/// What a tensor is: its shape in one row, its storage, its name.
#[derive(Debug, Clone)]
pub struct TensorInfo {
    /// Shape in one row.
    pub shape: Shape,
    /// Storage.
    pub store: Store,
    /// The path of the layer that makes it, as in the original checkpoint layout.
    pub path: String,
    /// The tensor that it is a slice of, if it is one.
    pub slice: Option<TensorSlice>,
    /// Whether it stays on the device between runs: an input that another plan has left there, or a result that is not
    /// read back.
    pub kept: bool,
}

/// A slice of each row of another tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorSlice {
    /// The other tensor.
    pub of: Tensor,
    /// The first value of the slice in a row.
    pub first: usize,
}
