//! Masks: which part of a picture is drawn.

use super::resize;
use crate::latent::Latent;
use crate::latent::resize::between;
use crate::{Error, Result};

/// A weight from 0 to 1 for each pixel.
#[derive(Debug, Clone, PartialEq)]
pub struct Mask {
    width: usize,
    height: usize,
    weights: Vec<f32>,
}

impl Mask {
    /// From weights, `[height, width]`.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if their number is not that of the pixels, or
    /// there are none.
    pub fn new(width: usize, height: usize, weights: Vec<f32>) -> Result<Self> {
        if weights.is_empty() || width.checked_mul(height) != Some(weights.len()) {
            return Err(Error::usage("the weights do not fit the mask")
                .expected(format!("a weight for each of {width}x{height} pixels"))
                .found(weights.len().to_string()));
        }
        Ok(Self { width, height, weights })
    }

    /// `[height, width]`.
    pub fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// Columns and rows.
    pub fn size(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    /// The middle of the mask: the part that [`resize::centre`] cuts out of a picture of its size; a pixel is the
    /// least.
    pub fn centre(&self, width: usize, height: usize) -> Self {
        let (width, height) = (width.clamp(1, self.width), height.clamp(1, self.height));
        let (left, top) = resize::middle(self.size(), (width, height));
        let row = |y: usize| &self.weights[y * self.width + left..][..width];
        Self { width, height, weights: (top..top + height).flat_map(row).copied().collect() }
    }

    /// The mask for a latent of `height` × `width` cells, `[1, 1, height, width]`: at each cell's
    /// centre, linear between the four pixels around it, as PyTorch's `interpolate` and thereby
    /// ComfyUI does. At an eighth of the size that is the mean of the cell's four innermost pixels.
    /// Weights are not rounded: grey is drawn in part.
    pub fn to_latent(&self, height: usize, width: usize) -> Latent {
        let mut latent = Latent::zeros(1, 1, height, width);
        let (rows, columns) =
            (between((self.height, latent.height())), between((self.width, latent.width())));
        for (i, out) in latent.data_mut().iter_mut().enumerate() {
            let ((top, bottom, down), (left, right, along)) = (rows[i / width], columns[i % width]);
            let at = |y: usize, x: usize| self.weights[y * self.width + x];
            let line = |y: usize| (1.0 - along) * at(y, left) + along * at(y, right);
            *out = ((1.0 - down) * line(top) + down * line(bottom)).clamp(0.0, 1.0);
        }
        latent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_eighth_is_the_mean_of_the_four_innermost() {
        let weights: Vec<f32> = (0..16 * 24).map(|i| (i * 37 % 101) as f32 / 100.0).collect();
        let latent = Mask::new(24, 16, weights.clone()).unwrap().to_latent(2, 3);
        for (i, got) in latent.data().iter().enumerate() {
            let (y, x) = (i / 3 * 8 + 3, i % 3 * 8 + 3);
            let at = |dy: usize, dx: usize| weights[(y + dy) * 24 + x + dx];
            let mean = (at(0, 0) + at(0, 1) + at(1, 0) + at(1, 1)) / 4.0;
            assert!((got - mean).abs() < 1e-6, "cell {i}: {got} for {mean}");
        }
    }

    #[test]
    fn any_size_fits_any_latent() {
        let mask = Mask::new(2, 1, vec![0.0, 1.0]).unwrap();
        assert_eq!(mask.to_latent(2, 4).data(), [0.0, 0.25, 0.75, 1.0, 0.0, 0.25, 0.75, 1.0]);
        assert_eq!(Mask::new(1, 1, vec![0.5]).unwrap().to_latent(3, 1).data(), [0.5; 3]);
        assert_eq!(Mask::new(9, 5, vec![1.0; 45]).unwrap().to_latent(3, 2).data(), [1.0; 6]);
        let middle = Mask::new(4, 3, (0..12).map(|i| i as f32 / 12.0).collect()).unwrap().centre(2, 1);
        assert_eq!((middle.size(), middle.weights), ((2, 1), vec![5.0 / 12.0, 6.0 / 12.0]));
        assert!(Mask::new(2, 2, vec![0.0; 3]).is_err() && Mask::new(0, 5, vec![]).is_err());
    }
}
