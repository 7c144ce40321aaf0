//! The weighted mean of several entries' results, cell by cell: Σ_e w_e r_e / Σ_e w_e.
//!
//! Denoised predictions and attention scores are averaged by the same weights, so that the mask
//! belongs to the prediction it is applied to. A single entry that counts everywhere alike gives
//! its own results, bit for bit.

use super::entry::{Area, Entry};
use super::{Columns, sag};
use crate::latent::Latent;

/// The entries of one side with their weights on a latent.
pub(crate) struct Weighted {
    /// Of each entry, where it counts and how much at each cell of that.
    pub(crate) parts: Vec<(Area, Vec<f32>)>,
    shape: [usize; 4],
}

impl Weighted {
    /// Weights of `entries` on latents of `shape`.
    pub(crate) fn new(entries: &[&Entry], shape: [usize; 4]) -> Self {
        let [_, _, height, width] = shape;
        let part = |e: &&Entry| {
            let area = e.area_in((height, width));
            (area, e.weights(area, (height, width)))
        };
        Self { parts: entries.iter().map(part).collect(), shape }
    }

    /// Whether one entry stands for the whole.
    pub(crate) fn is_single(&self) -> bool {
        let [_, _, height, width] = self.shape;
        match self.parts.as_slice() {
            [(area, weights)] => {
                (area.height, area.width) == (height, width)
                    && weights.first().is_some_and(|w| *w > 0.0)
                    && weights.iter().all(|w| *w == weights[0])
            }
            _ => false,
        }
    }

    /// The mean prediction; `results` entry by entry, picture by picture.
    pub(super) fn denoised(&self, results: &[&Latent]) -> Latent {
        let [batch, channels, height, width] = self.shape;
        let mut out = Latent::zeros(batch, channels, height, width);
        let single = self.is_single();
        for image in 0..batch {
            if single {
                out.image_mut(image).copy_from_slice(results[image].data());
                continue;
            }
            for c in 0..channels {
                let plane = self.mean(|part, area, cell| {
                    results[part * batch + image].data()[c * area.height * area.width + cell]
                });
                out.image_mut(image)[c * height * width..][..height * width].copy_from_slice(&plane);
            }
        }
        out
    }

    /// The mean score at each latent cell, `[batch, height, width]`: column sums brought to the
    /// latent's size by the nearest position. Cells that no entry covers score 0.
    pub(super) fn scores(&self, columns: &[Columns]) -> Vec<f32> {
        let batch = self.shape[0];
        (0..batch)
            .flat_map(|image| {
                self.mean(|part, area, cell| {
                    let c = &columns[part * batch + image];
                    let y = sag::nearest(cell / area.width, c.height, area.height);
                    let x = sag::nearest(cell % area.width, c.width, area.width);
                    c.values[y * c.width + x]
                })
            })
            .collect()
    }

    /// The mean over parts of `value(part, its area, cell in the area)`, `[height, width]`.
    fn mean(&self, value: impl Fn(usize, Area, usize) -> f32) -> Vec<f32> {
        let [_, _, height, width] = self.shape;
        if self.is_single() {
            return (0..height * width).map(|cell| value(0, self.parts[0].0, cell)).collect();
        }
        let mut sums = vec![0.0f32; height * width];
        let mut totals = vec![0.0f32; height * width];
        for (part, (area, weights)) in self.parts.iter().enumerate() {
            for (cell, w) in weights.iter().enumerate() {
                let at = (area.y + cell / area.width) * width + area.x + cell % area.width;
                sums[at] += w * value(part, *area, cell);
                totals[at] += w;
            }
        }
        // ComfyUI starts its count at 1e-37, which gives 0 where nothing counts.
        sums.iter().zip(&totals).map(|(s, t)| if *t == 0.0 { 0.0 } else { s / t }).collect()
    }
}
