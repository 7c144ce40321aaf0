//! What the kernels of a sampling step share: latents on the device, the tables that say where rows and
//! conditioning entries are, the flags that say what went wrong.
//!
//! A latent there is f32, `[image, y, x, quad]` with its channels in quads and zeros in the padding channels of
//! the last, which every kernel keeps.

use super::{Buf, Const, KernelSpec, Operand, Precision, Stretch, Variant};
use crate::graph::Shape;

/// vec4s that [`Operand::Scalars`] has room for: 1 KiB.
pub const SCALARS: usize = 64;

/// The flag for a prediction of the network that is not finite. A flag holds the first step at which it was so.
pub const FLAG_PREDICTION: usize = 0;

/// The flag for a latent that is not finite.
pub const FLAG_LATENT: usize = 1;

/// What flags start from: at no step so far.
pub const NO_STEP: u32 = u32::MAX;

/// Where something begins inside a binding, in the binding's elements: quads for latents and tables, values for
/// what is not in quads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperandAt {
    /// The binding.
    pub operand: Operand,
    /// Its first element there.
    pub first: usize,
}

impl OperandAt {
    /// Not used in this variant.
    pub const UNUSED: Self = Self { operand: Operand::Unused, first: 0 };
}

/// A batch of latents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latents {
    /// Number of images.
    pub images: usize,
    /// Height, width and true channels of one.
    pub shape: Shape,
}

impl Latents {
    /// Cells of all images.
    pub fn cells(&self) -> usize {
        self.images * self.shape.positions()
    }

    /// Quads of all images.
    pub fn quads(&self) -> usize {
        self.cells() * self.shape.quads()
    }
}

/// A row of a network call: which part of which image it is, and where its results go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RowPlace {
    /// Number of the image.
    pub image: u32,
    /// First line of its area.
    pub y: u32,
    /// First column of its area.
    pub x: u32,
    /// First quad of its prediction.
    pub prediction: u32,
    /// First value of its column sums.
    pub columns: u32,
}

impl RowPlace {
    /// As `shaders/helpers/rows.wgsl` reads it: two vec4s.
    pub fn words(&self) -> [u32; 8] {
        [self.image, self.y, self.x, 0, self.prediction, self.columns, 0, 0]
    }
}

/// A conditioning entry: its rectangle, and where its weights and predictions are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EntryPlace {
    /// First line of its area.
    pub y: u32,
    /// First column of its area.
    pub x: u32,
    /// Lines of its area.
    pub height: u32,
    /// Columns of its area.
    pub width: u32,
    /// First quad of its prediction for image 0, `[height, width, quad]`.
    pub prediction: u32,
    /// Quads from an image's prediction to the next.
    pub prediction_stride: u32,
    /// First of its weights, `[height, width]`.
    pub weights: u32,
}

impl EntryPlace {
    /// As `shaders/kernels/entries_mean.wgsl` reads it: two vec4s.
    pub fn words(&self) -> [u32; 8] {
        let Self { y, x, height, width, prediction, prediction_stride, weights } = *self;
        [y, x, height, width, prediction, prediction_stride, weights, 0]
    }

    /// The place in its area of a cell of the latent, if it is in there.
    pub(super) fn cell(&self, line: usize, column: usize) -> Option<(usize, usize)> {
        let y = line.checked_sub(self.y as usize).filter(|y| *y < self.height as usize)?;
        let x = column.checked_sub(self.x as usize).filter(|x| *x < self.width as usize)?;
        Some((y, x))
    }
}

/// Where the column sums of an entry's rows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MapPlace {
    /// True height of the map of attention.
    pub height: u32,
    /// Its true width.
    pub width: u32,
    /// First column sum for image 0, `[height, width]`.
    pub columns: u32,
    /// Values from an image's column sums to the next.
    pub stride: u32,
}

impl MapPlace {
    /// `entry` with its map as `shaders/kernels/sag_degrade.wgsl` reads them: four vec4s. The ratios are those of
    /// [`sag::nearest`](crate::guidance::sag::nearest).
    pub fn words(&self, entry: &EntryPlace) -> [u32; 16] {
        let ratio = |size: u32, full: u32| (size as f32 / full as f32).to_bits();
        let map = [self.height, self.width, self.columns, self.stride];
        let ratios = [ratio(self.height, entry.height), ratio(self.width, entry.width), 0, 0];
        let mut words = [0; 16];
        words[..8].copy_from_slice(&entry.words());
        words[8..12].copy_from_slice(&map);
        words[12..].copy_from_slice(&ratios);
        words
    }
}

/// A kernel whose operands are all f32.
pub(super) fn variant(kernel: &'static KernelSpec, consts: Vec<Const>) -> Variant {
    Variant { kernel, consts, core: None, precision: Precision::F32, out_f32: false }
}

/// What samples of these kernels are calls on.
pub(super) const SAMPLE: Latents = Latents { images: 1, shape: Shape { height: 5, width: 7, channels: 4 } };

/// What samples bind: any operand will do, since they are not run.
pub(super) const SAMPLE_PLACE: OperandAt =
    OperandAt { operand: Operand::Write(Stretch { buf: Buf(0), offset: 0, bytes: 256 }), first: 0 };
