//! Width and height, always by name: programs and formats disagree about their order.

use std::fmt;

/// A size in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Size {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl Size {
    /// A size of this width and height.
    pub const fn new(width: usize, height: usize) -> Self {
        Self { width, height }
    }

    /// A square of this side.
    pub const fn square(side: usize) -> Self {
        Self::new(side, side)
    }
}

/// `WIDTHxHEIGHT`.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}
