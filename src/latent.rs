//! The latent: what a sampler moves from noise to picture.
//!
//! [`Latent`] is one on the host, for what comes in and goes out. In a sampling latents are [`Value`]s, which may be on
//! a device: sums that are formed when they are needed, by an implementation of [`Latents`].

pub mod file;
pub mod host;
pub mod resize;
pub mod value;

use crate::{Error, Result};
pub use value::{Latents, Value};

/// A batch of latents, `[batch, channels, height, width]`, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Latent {
    batch: usize,
    channels: usize,
    height: usize,
    width: usize,
    data: Vec<f32>,
}

impl Latent {
    /// All zeros: the latent of an empty picture.
    pub fn zeros(batch: usize, channels: usize, height: usize, width: usize) -> Self {
        Self { batch, channels, height, width, data: vec![0.0; batch * channels * height * width] }
    }

    /// From values in `[batch, channels, height, width]` order.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if the number of values is not the product of the sizes.
    pub fn from_vec(shape: [usize; 4], data: Vec<f32>) -> Result<Self> {
        let [batch, channels, height, width] = shape;
        let size = shape.iter().try_fold(1usize, |n, side| n.checked_mul(*side));
        if size != Some(data.len()) {
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

    /// Number of pictures.
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

    /// The values, to be changed in place.
    pub fn data_mut(&mut self) -> &mut [f32] {
        &mut self.data
    }

    /// The values of picture `image`, `[channels, height, width]`.
    ///
    /// # Panics
    /// If there is no such picture, as indexing does.
    pub fn image(&self, image: usize) -> &[f32] {
        let n = self.channels * self.height * self.width;
        &self.data[image * n..(image + 1) * n]
    }

    /// The values of picture `image`, to be changed in place.
    pub fn image_mut(&mut self, image: usize) -> &mut [f32] {
        let n = self.channels * self.height * self.width;
        &mut self.data[image * n..(image + 1) * n]
    }

    /// Picture `image` alone, as a batch of one.
    pub fn row(&self, image: usize) -> Latent {
        Self { batch: 1, data: self.image(image).to_vec(), ..*self }
    }

    /// A batch of `batch` times the first picture.
    pub fn repeated(&self, batch: usize) -> Latent {
        Self { batch, data: self.image(0).repeat(batch), ..*self }
    }

    /// The pictures of all `parts`, one after the other.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if there are none, or they differ in size.
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

    /// `self * a`, element by element.
    pub fn scaled(&self, a: f32) -> Latent {
        Self { data: self.data.iter().map(|v| v * a).collect(), ..*self }
    }

    /// `Σ coefficient · latent`, summed in the order given; all terms have one shape.
    ///
    /// # Panics
    /// If `terms` is empty or the shapes differ: both are faults of the calling sampler.
    pub fn combine(terms: &[(f32, &Latent)]) -> Latent {
        let (a, first) = terms[0];
        let mut out = first.scaled(a);
        for &(a, term) in &terms[1..] {
            assert_eq!(out.shape(), term.shape(), "latents of different shapes combined");
            for (o, v) in out.data.iter_mut().zip(&term.data) {
                *o += a * v;
            }
        }
        out
    }

    /// Combines two latents of one shape element by element.
    ///
    /// # Panics
    /// If the shapes differ.
    pub fn zip(&self, other: &Latent, f: impl Fn(f32, f32) -> f32) -> Latent {
        assert_eq!(self.shape(), other.shape(), "latents of different shapes combined");
        Self { data: self.data.iter().zip(&other.data).map(|(&a, &b)| f(a, b)).collect(), ..*self }
    }

    /// Whether every value is finite.
    pub fn is_finite(&self) -> bool {
        self.data.iter().all(|v| v.is_finite())
    }
}
