//! Latents: what a sampler turns from noise into a picture.
//!
//! A [`Latent`] is in host memory: the input and the output of a sampling. During a sampling latents are [`Value`]s,
//! which may be on a device: sums that an implementation of [`Latents`] computes when they are needed.

pub(crate) mod attention_map;
pub mod file;
pub(crate) mod host;
#[doc(hidden)]
pub mod resize;
mod vae_latent;
pub(crate) mod value;
#[cfg(feature = "serde")]
mod written;

use crate::{Error, Result};
pub use vae_latent::VaeLatent;
pub use value::{Latents, Value};

/// A batch of latents in host memory, `[batch, channels, height, width]`, row-major. A cell is 8×8 pixels.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "written::WrittenLatent", into = "written::WrittenLatent")
)]
pub struct Latent {
    batch: usize,
    channels: usize,
    height: usize,
    width: usize,
    data: Vec<f32>,
}

impl Latent {
    /// All zeros: the latent that text-to-image starts from. If there is not enough memory for it, the result is empty,
    /// `[0, 0, 0, 0]`, and using it is an error; [`of_shape`](Self::of_shape) reports that at once.
    pub fn zeros(batch: usize, channels: usize, height: usize, width: usize) -> Self {
        Self::of_shape([batch, channels, height, width]).unwrap_or(Self {
            batch: 0,
            channels: 0,
            height: 0,
            width: 0,
            data: Vec::new(),
        })
    }

    /// All zeros, `[batch, channels, height, width]`.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if there is not enough memory for it.
    pub fn of_shape(shape: [usize; 4]) -> Result<Self> {
        let [batch, channels, height, width] = shape;
        let mut data = Vec::new();
        let size = size_of(shape).filter(|size| data.try_reserve_exact(*size).is_ok());
        let size = size.ok_or_else(|| {
            Error::usage("the latent is too large for memory").found(format!("{shape:?} values"))
        })?;
        data.resize(size, 0.0);
        Ok(Self { batch, channels, height, width, data })
    }

    /// A latent of these values, in the order `[batch, channels, height, width]`.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if the number of values is not the product of the sizes.
    pub fn from_vec(shape: [usize; 4], data: Vec<f32>) -> Result<Self> {
        let [batch, channels, height, width] = shape;
        if size_of(shape) != Some(data.len()) {
            return Err(Error::usage("a latent's values do not fit its shape")
                .expected(format!("a value for each cell of {shape:?}"))
                .found(format!("{} values", data.len())));
        }
        Ok(Self { batch, channels, height, width, data })
    }

    /// `[batch, channels, height, width]`.
    pub fn shape(&self) -> [usize; 4] {
        [self.batch, self.channels, self.height, self.width]
    }

    /// Number of images.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Height in latent cells (8 pixels each).
    pub fn height(&self) -> usize {
        self.height
    }

    /// Width in latent cells (8 pixels each).
    pub fn width(&self) -> usize {
        self.width
    }

    /// The values, `[batch, channels, height, width]`.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// The values as a mutable slice.
    pub fn data_mut(&mut self) -> &mut [f32] {
        &mut self.data
    }

    /// The values of image `image` of the batch, `[channels, height, width]`; empty if there is no such image.
    pub fn image(&self, image: usize) -> &[f32] {
        self.range(image).and_then(|range| self.data.get(range)).unwrap_or_default()
    }

    /// The same as a mutable slice.
    pub fn image_mut(&mut self, image: usize) -> &mut [f32] {
        self.range(image).and_then(|range| self.data.get_mut(range)).unwrap_or_default()
    }

    /// The range of an image's values.
    fn range(&self, image: usize) -> Option<std::ops::Range<usize>> {
        let n = self.data.len().checked_div(self.batch).filter(|_| image < self.batch)?;
        Some(image * n..(image + 1) * n)
    }

    /// Image `image` as a batch of one; an empty batch if there is no such image.
    pub fn row(&self, image: usize) -> Latent {
        let batch = usize::from(image < self.batch);
        Self { batch, data: self.image(image).to_vec(), ..*self }
    }

    /// A batch of `batch` copies of the first image; an empty batch if there is no image, or not enough memory.
    pub fn repeated(&self, batch: usize) -> Latent {
        let [_, channels, height, width] = self.shape();
        let wanted = if self.batch == 0 { 0 } else { batch };
        match Self::of_shape([wanted, channels, height, width]) {
            Ok(mut all) => {
                (0..wanted).for_each(|i| all.image_mut(i).copy_from_slice(self.image(0)));
                all
            }
            Err(_) => Self { batch: 0, data: Vec::new(), ..*self },
        }
    }

    /// The images of all `parts`, one after the other.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if `parts` is empty, or they differ in channels, height or width.
    pub fn stacked(parts: &[&Latent]) -> Result<Latent> {
        let Some(first) = parts.first() else { return Err(Error::usage("a batch of no latents")) };
        if let Some(other) = parts.iter().find(|p| p.shape()[1..] != first.shape()[1..]) {
            return Err(Error::usage("latents of different sizes in a batch")
                .expected(format!("[batch, {}, {}, {}]", first.channels, first.height, first.width))
                .found(format!("{:?}", other.shape())));
        }
        let data = parts.iter().flat_map(|p| p.data.iter().copied()).collect();
        Ok(Self { batch: parts.iter().map(|p| p.batch).sum(), data, ..**first })
    }

    /// `a · self`.
    pub fn scaled(&self, a: f32) -> Latent {
        Self { data: self.data.iter().map(|v| v * a).collect(), ..*self }
    }

    /// `Σ coefficient · latent` in f32, added in the given order.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if there are no terms, or their shapes differ.
    pub fn combine(terms: &[(f32, &Latent)]) -> Result<Latent> {
        let Some((&(a, first), rest)) = terms.split_first() else {
            return Err(Error::usage("a sum of no latents"));
        };
        let mut out = first.scaled(a);
        for &(a, term) in rest {
            out.same_shape(term)?;
            for (o, v) in out.data.iter_mut().zip(&term.data) {
                *o += a * v;
            }
        }
        Ok(out)
    }

    /// `f` of two latents of the same shape, element by element.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if the shapes differ.
    pub fn zip(&self, other: &Latent, f: impl Fn(f32, f32) -> f32) -> Result<Latent> {
        self.same_shape(other)?;
        Ok(self.zipped(other, f))
    }

    /// The same for latents that are known to have the same shape.
    pub(crate) fn zipped(&self, other: &Latent, f: impl Fn(f32, f32) -> f32) -> Latent {
        debug_assert_eq!(self.shape(), other.shape(), "latents of different shapes");
        Self { data: self.data.iter().zip(&other.data).map(|(&a, &b)| f(a, b)).collect(), ..*self }
    }

    fn same_shape(&self, other: &Latent) -> Result<()> {
        if self.shape() == other.shape() {
            return Ok(());
        }
        Err(Error::usage("latents of different shapes cannot be combined")
            .expected(format!("{:?}", self.shape()))
            .found(format!("{:?}", other.shape())))
    }

    /// Whether every value is finite.
    pub fn is_finite(&self) -> bool {
        self.data.iter().all(|v| v.is_finite())
    }
}

/// Number of values of a shape; None if it overflows. An empty batch of a size that would overflow is None too.
fn size_of(shape: [usize; 4]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, side| n.checked_mul((*side).max(1)))?;
    Some(shape.iter().product())
}
