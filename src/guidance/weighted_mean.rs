//! The weighted mean over the results of several entries, cell by cell: Σ_e w_e r_e / Σ_e w_e.
//!
//! Predictions and attention scores are averaged by the same weights, so that the mask of SAG fits the prediction that
//! it is applied to. For a single entry with the same weight everywhere, the mean is that entry's result, bit for bit.

use super::entry::{Area, Entry};
use super::{Columns, sag};
use crate::latent::Latent;

/// The entries of one side with their weights on a latent.
pub(crate) struct WeightedMean {
    /// The area of each entry, and its weight at each cell of the area; a single entry may have no weights.
    pub(crate) parts: Vec<(Area, Vec<f32>)>,
    shape: [usize; 4],
    single: bool,
}

impl WeightedMean {
    /// Weights of `entries` on latents of `shape`.
    pub(crate) fn new(entries: &[&Entry], shape: [usize; 4]) -> Self {
        let [_, _, height, width] = shape;
        let all = Area { y: 0, x: 0, height, width };
        // The usual case. A forecast must not allocate memory for each cell.
        if let [Entry { area: None, mask: None, strength, .. }] = entries
            && *strength > 0.0
        {
            return Self { parts: vec![(all, Vec::new())], shape, single: true };
        }
        let part = |e: &&Entry| {
            let area = e.area_in((height, width));
            (area, e.weights(area, (height, width)))
        };
        let parts: Vec<_> = entries.iter().map(part).collect();
        let single = match parts.as_slice() {
            [(area, weights)] => *area == all && weights.iter().all(|w| *w > 0.0 && *w == weights[0]),
            _ => false,
        };
        Self { parts, shape, single }
    }

    /// Whether the mean is the result of the only entry.
    pub(crate) fn is_single(&self) -> bool {
        self.single
    }

    /// The mean prediction; `results` are entry by entry, image by image.
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

    /// The mean score of each latent cell, `[batch, height, width]`: column sums, resized to the latent by the nearest
    /// position. The score of a cell that no entry covers is 0.
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

    /// The mean over entries of `value(entry, its area, cell of the area)`, `[height, width]`.
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
        // ComfyUI starts the sum of weights at 1e-37, which gives 0 where no entry counts.
        sums.iter().zip(&totals).map(|(s, t)| if *t == 0.0 { 0.0 } else { s / t }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Shape;
    use crate::kernels::latents::{EntryPlace, MapPlace};
    use crate::kernels::{entries_mean, sag_degrade};
    use crate::sampler::noise::noise;

    /// Two rectangles that overlap, one of them behind a mask, on two pictures of 9x7.
    #[test]
    fn the_references_of_the_device_say_the_same() {
        let shape = Shape::new(9, 7, 4);
        let area = Area { y: 2, x: 3, height: 6, width: 4 };
        let mask = noise(2, [1, 1, 9, 7]).data().iter().map(|v| v.max(0.0)).collect::<Vec<f32>>();
        let all = Entry { mask: Some(mask.into()), ..Entry::new(vec![0.0], 1) };
        let part = Entry { area: Some(area), strength: 0.6, ..Entry::new(vec![1.0], 1) };
        let entries = [&all, &part];
        let weighted = WeightedMean::new(&entries, [2, 4, 9, 7]);

        let (mut results, mut places) = (Vec::new(), Vec::new());
        let (mut weights, mut predictions, mut columns) = (Vec::new(), Vec::new(), Vec::new());
        for (i, (area, of_entry)) in weighted.parts.iter().enumerate() {
            let Area { height, width, .. } = *area;
            let [y, x, h, w] = [area.y, area.x, height, width].map(|n| n as u32);
            let (map_height, map_width) = (height.div_ceil(4), width.div_ceil(3));
            let prediction = (predictions.len() / 4) as u32;
            let entry = EntryPlace {
                y,
                x,
                height: h,
                width: w,
                prediction,
                prediction_stride: h * w,
                weights: weights.len() as u32,
            };
            let stride = (map_height * map_width) as u32;
            let first = columns.len() as u32;
            let map = MapPlace { height: map_height as u32, width: map_width as u32, columns: first, stride };
            places.push((entry, map));
            weights.extend(of_entry.iter().map(|w| f64::from(*w)));
            for image in 0..2u64 {
                let seed = 10 * (i as u64 + 1) + image;
                let (denoised, sums) =
                    (noise(seed, [1, 4, height, width]), noise(seed, [1, 1, map_height, map_width]));
                let cells =
                    (0..height * width).flat_map(|cell| (0..4).map(move |c| c * height * width + cell));
                predictions.extend(cells.map(|at| f64::from(denoised.data()[at])));
                columns.extend(sums.data().iter().map(|v| f64::from(*v)));
                let values = sums.data().to_vec();
                let sums = Columns { height: map_height, width: map_width, values };
                results.push((denoised, sums));
            }
        }
        let near = |host: f32, want: f64| assert!((f64::from(host) - want).abs() < 1e-5, "{host} {want}");
        let of_host: Vec<Columns> = results.iter().map(|r| r.1.clone()).collect();
        let rows: Vec<&Latent> = results.iter().map(|r| &r.0).collect();
        let (denoised, scores) = (weighted.denoised(&rows), weighted.scores(&of_host));
        let only: Vec<EntryPlace> = places.iter().map(|(e, _)| *e).collect();
        for image in 0..2 {
            let mean = entries_mean::reference(shape, image, &only, &weights, &predictions);
            let score = sag_degrade::scores(shape, image, &places, &weights, &columns);
            for cell in 0..63 {
                near(scores[image * 63 + cell], score[cell]);
                (0..4).for_each(|c| near(denoised.image(image)[c * 63 + cell], mean[cell * 4 + c]));
            }
        }
    }
}
