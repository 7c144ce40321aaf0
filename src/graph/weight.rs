//! The weights of a graph: their tensors in the checkpoint, and their layout on the device.

/// Handle of a weight in its [`Graph`](super::Graph).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WeightId(pub(crate) usize);

/// How a weight is laid out on the device; `in` and `out` padded to multiples of four with zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Biases and parameters of norms: f32 in every precision.
    Vector,
    /// `[out, in]` (or `[out, in, 1, 1]`) in the file, `[in][out]` on the device.
    Linear,
    /// `[out, in, 3, 3]` in the file, `[3][3][in][out]` on the device.
    Conv3x3,
    /// The same in the file, for a convolution of a map upsampled x2, `[py][px][dy][dx][in][out]` on the device. For
    /// each parity of the line and column of the result (`py`, `px`), the three taps of an axis read two stored
    /// positions (`dy`, `dx`), and the taps that read the same one are added: 4 products instead of 9.
    Conv3x3Doubled,
}

impl Layout {
    /// Taps of a window in the file and on the device.
    pub fn taps(self) -> [usize; 2] {
        match self {
            Self::Vector | Self::Linear => [1, 1],
            Self::Conv3x3 => [9, 9],
            Self::Conv3x3Doubled => [9, 16],
        }
    }
}

/// A weight of a graph.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Weight {
    /// Names in the checkpoint; several are joined along `out`, in this order.
    pub sources: Vec<String>,
    /// Shape of each source in the checkpoint.
    pub shapes: Vec<Vec<usize>>,
    /// Layout on the device.
    pub layout: Layout,
}

impl Weight {
    /// Sum of the sources' output features.
    pub fn out_features(&self) -> usize {
        self.shapes.iter().filter_map(|s| s.first()).fold(0, |sum, out| sum.saturating_add(*out))
    }

    /// Input features, 1 for vectors.
    pub fn in_features(&self) -> usize {
        self.shapes.first().and_then(|s| s.get(1)).copied().unwrap_or(1)
    }

    /// Number of values on the device, including padding; `usize::MAX` if it overflows.
    pub fn device_len(&self) -> usize {
        let quads = |n: usize| n.checked_next_multiple_of(4).unwrap_or(usize::MAX);
        let (out, inp) = (quads(self.out_features()), quads(self.in_features()));
        match self.layout {
            Layout::Vector => out,
            layout => layout.taps()[1].saturating_mul(inp).saturating_mul(out),
        }
    }
}
