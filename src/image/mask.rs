//! Masks: which part of a picture is drawn.

use super::resize;
use crate::latent::Latent;
use crate::latent::resize::between;
use crate::{Error, Result, Size};

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
    pub fn new(size: Size, weights: Vec<f32>) -> Result<Self> {
        let Size { width, height } = size;
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

    /// Of the mask, pixels.
    pub fn size(&self) -> Size {
        Size::new(self.width, self.height)
    }

    /// The middle of the mask: the part that [`resize::centre`] cuts out of a picture of its size; at least one
    /// pixel.
    pub fn centre(&self, size: Size) -> Self {
        let (width, height) = (size.width.clamp(1, self.width), size.height.clamp(1, self.height));
        let (left, top) = resize::middle((self.width, self.height), (width, height));
        let row = |y: usize| &self.weights[y * self.width + left..][..width];
        Self { width, height, weights: (top..top + height).flat_map(row).copied().collect() }
    }

    /// The mask for a latent of this many cells, `[1, 1, height, width]`: at each cell's
    /// centre, linear between the four pixels around it, as PyTorch's `interpolate` and thereby
    /// ComfyUI does. At an eighth of the size that is the mean of the cell's four innermost pixels.
    /// Weights are not rounded: grey is drawn in part.
    pub fn to_latent(&self, cells: Size) -> Latent {
        let Size { width, height } = cells;
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
        let latent = Mask::new(Size::new(24, 16), weights.clone()).unwrap().to_latent(Size::new(3, 2));
        for (i, got) in latent.data().iter().enumerate() {
            let (y, x) = (i / 3 * 8 + 3, i % 3 * 8 + 3);
            let at = |dy: usize, dx: usize| weights[(y + dy) * 24 + x + dx];
            let mean = (at(0, 0) + at(0, 1) + at(1, 0) + at(1, 1)) / 4.0;
            assert!((got - mean).abs() < 1e-6, "cell {i}: {got} for {mean}");
        }
    }

    #[test]
    fn any_size_fits_any_latent() {
        let mask = Mask::new(Size::new(2, 1), vec![0.0, 1.0]).unwrap();
        assert_eq!(mask.to_latent(Size::new(4, 2)).data(), [0.0, 0.25, 0.75, 1.0, 0.0, 0.25, 0.75, 1.0]);
        assert_eq!(
            Mask::new(Size::square(1), vec![0.5]).unwrap().to_latent(Size::new(1, 3)).data(),
            [0.5; 3]
        );
        assert_eq!(
            Mask::new(Size::new(9, 5), vec![1.0; 45]).unwrap().to_latent(Size::new(2, 3)).data(),
            [1.0; 6]
        );
        let middle = Mask::new(Size::new(4, 3), (0..12).map(|i| i as f32 / 12.0).collect())
            .unwrap()
            .centre(Size::new(2, 1));
        assert_eq!((middle.size(), middle.weights), (Size::new(2, 1), vec![5.0 / 12.0, 6.0 / 12.0]));
        assert!(
            Mask::new(Size::square(2), vec![0.0; 3]).is_err() && Mask::new(Size::new(0, 5), vec![]).is_err()
        );
    }
}
