//! Resizing of latents and pictures, by the methods of ComfyUI's *Upscale* nodes.
//!
//! All methods but `Bislerp` are PyTorch's `interpolate` without antialiasing, in f32.

use super::Latent;
use crate::{Error, Result};

/// How the values of the resized latent are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// The value of the old cell that contains the centre of the new cell.
    NearestExact,
    /// Linear interpolation between the four nearest old values.
    Bilinear,
    /// The mean of the old cells that the new one covers.
    Area,
    /// Cubic convolution of the 4×4 nearest old values, with a = -0.75.
    Bicubic,
    /// Spherical interpolation (slerp) between the vectors of channels of the nearest old values, first along rows,
    /// then along columns, as ComfyUI computes it.
    Bislerp,
}

impl Method {
    /// The method that ComfyUI calls `name`; None if there is none.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "nearest-exact" => Self::NearestExact,
            "bilinear" => Self::Bilinear,
            "area" => Self::Area,
            "bicubic" => Self::Bicubic,
            "bislerp" => Self::Bislerp,
            _ => return None,
        })
    }
}

/// `x` resized to `height` × `width` cells.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if the latent or the new size is empty, or if there is not
/// enough memory.
pub fn resized(x: &Latent, height: usize, width: usize, method: Method) -> Result<Latent> {
    let [batch, channels, from_height, from_width] = x.shape();
    if height == 0 || width == 0 || x.data().is_empty() {
        return Err(Error::usage("an empty latent cannot be scaled")
            .found(format!("{from_width}x{from_height} to {width}x{height} cells")));
    }
    let mut out = Latent::of_shape([batch, channels, height, width])?;
    let (rows, columns) = ((from_height, height), (from_width, width));
    for image in 0..batch {
        let (from, to) = (x.image(image), out.image_mut(image));
        if method == Method::Bislerp {
            to.copy_from_slice(&bislerp(from, channels, rows, columns));
            continue;
        }
        let planes = from.chunks_exact(from_height * from_width).zip(to.chunks_exact_mut(height * width));
        for (from, to) in planes {
            plane(from, to, rows, columns, method);
        }
    }
    Ok(out)
}

/// The centre of `x` with the aspect ratio of `height` : `width`, as ComfyUI's `center` crop cuts it: the same number
/// of cells is removed at both sides.
pub fn middle(x: &Latent, height: usize, width: usize) -> Latent {
    let (old_width, old_height) = (x.width() as f64, x.height() as f64);
    let (old, new) = (old_width / old_height, width as f64 / height as f64);
    let cut = |old_side: f64, share: f64| ((old_side - old_side * share) / 2.0).round_ties_even() as usize;
    let (left, top) = match old {
        old if old > new => (cut(old_width, new / old), 0),
        old if old < new => (0, cut(old_height, old / new)),
        _ => (0, 0),
    };
    cropped(x, (top, x.height().saturating_sub(2 * top)), (left, x.width().saturating_sub(2 * left)))
}

/// A rectangle of `x`: rows and columns, each as (first, number), clipped to the latent.
pub fn cropped(x: &Latent, rows: (usize, usize), columns: (usize, usize)) -> Latent {
    let [batch, channels, height, width] = x.shape();
    let (top, left) = (rows.0.min(height), columns.0.min(width));
    let (rows, columns) = (rows.1.min(height - top), columns.1.min(width - left));
    let mut out = Latent::zeros(batch, channels, rows, columns);
    if rows * columns > 0 {
        let lines = out.data_mut().chunks_exact_mut(columns).enumerate();
        for (i, line) in lines {
            let from = (i / rows * height + top + i % rows) * width + left;
            line.copy_from_slice(&x.data()[from..from + columns]);
        }
    }
    out
}

type Side = (usize, usize);

fn plane(from: &[f32], to: &mut [f32], rows: Side, columns: Side, method: Method) {
    let width = columns.0;
    match method {
        Method::NearestExact => {
            let (ys, xs) = (nearest(rows), nearest(columns));
            let mut out = to.iter_mut();
            for y in &ys {
                xs.iter().zip(&mut out).for_each(|(x, o)| *o = from[y * width + x]);
            }
        }
        Method::Bilinear | Method::Bislerp => {
            let (ys, xs) = (between(rows), between(columns));
            for (i, o) in to.iter_mut().enumerate() {
                let ((top, bottom, down), (left, right, along)) = (ys[i / columns.1], xs[i % columns.1]);
                let line =
                    |y: usize| (1.0 - along) * from[y * width + left] + along * from[y * width + right];
                *o = (1.0 - down) * line(top) + down * line(bottom);
            }
        }
        Method::Area => {
            for (i, o) in to.iter_mut().enumerate() {
                let (ys, xs) = (covered(i / columns.1, rows), covered(i % columns.1, columns));
                let count = (ys.len() * xs.len()) as f32;
                let sum: f32 =
                    ys.map(|y| from[y * width + xs.start..y * width + xs.end].iter().sum::<f32>()).sum();
                *o = sum / count;
            }
        }
        Method::Bicubic => {
            let (ys, xs) = (cubic(rows), cubic(columns));
            for (i, o) in to.iter_mut().enumerate() {
                let ((rows, down), (columns, along)) = (&ys[i / columns.1], &xs[i % columns.1]);
                let line = |y: &usize| weighted(columns, along, |x| from[y * width + x]);
                *o = rows.iter().zip(down).map(|(y, w)| line(y) * w).sum();
            }
        }
    }
}

fn weighted(at: &[usize; 4], weights: &[f32; 4], value: impl Fn(usize) -> f32) -> f32 {
    at.iter().zip(weights).map(|(x, w)| value(*x) * w).sum()
}

/// For each new position the nearest old one.
fn nearest((from, to): Side) -> Vec<usize> {
    let scale = from as f32 / to as f32;
    (0..to).map(|at| (((at as f32 + 0.5) * scale) as usize).min(from - 1)).collect()
}

/// For each new position the two old ones around its centre, and the weight of the second.
pub(crate) fn between((from, to): Side) -> Vec<(usize, usize, f32)> {
    let scale = from as f32 / to as f32;
    let place = |at: usize| {
        let centre = ((at as f32 + 0.5) * scale - 0.5).max(0.0);
        let first = (centre as usize).min(from - 1);
        (first, (first + 1).min(from - 1), centre - first as f32)
    };
    (0..to).map(place).collect()
}

/// The old positions that a new one covers.
fn covered(at: usize, (from, to): Side) -> std::ops::Range<usize> {
    at * from / to..((at + 1) * from).div_ceil(to)
}

/// For each new position the four old ones around its centre, and their weights.
fn cubic((from, to): Side) -> Vec<([usize; 4], [f32; 4])> {
    const A: f32 = -0.75;
    let scale = from as f32 / to as f32;
    let near = |x: f32| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f32| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let place = |at: usize| {
        let centre = (at as f32 + 0.5) * scale - 0.5;
        let t = centre - centre.floor();
        let first = centre.floor() as isize - 1;
        let inside = |k: isize| (first + k).clamp(0, from as isize - 1) as usize;
        let weights = [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)];
        ([0, 1, 2, 3].map(inside), weights)
    };
    (0..to).map(place).collect()
}

/// One image `[channels, height, width]`: the width first, then the height.
fn bislerp(from: &[f32], channels: usize, rows: Side, columns: Side) -> Vec<f32> {
    let (height, width) = (rows.0, columns.0);
    let xs = between(columns);
    let mut across = vec![0.0; channels * height * columns.1];
    for y in 0..height {
        for (x, (left, right, ratio)) in xs.iter().enumerate() {
            let vector = |at: usize| (0..channels).map(move |c| from[(c * height + y) * width + at]);
            let turned =
                slerp(&vector(*left).collect::<Vec<_>>(), &vector(*right).collect::<Vec<_>>(), *ratio);
            turned.iter().enumerate().for_each(|(c, v)| across[(c * height + y) * columns.1 + x] = *v);
        }
    }
    let width = columns.1;
    let mut out = vec![0.0; channels * rows.1 * width];
    for (y, (top, bottom, ratio)) in between(rows).iter().enumerate() {
        for x in 0..width {
            let vector =
                |at: usize| (0..channels).map(|c| across[(c * height + at) * width + x]).collect::<Vec<_>>();
            let turned = slerp(&vector(*top), &vector(*bottom), *ratio);
            turned.iter().enumerate().for_each(|(c, v)| out[(c * rows.1 + y) * width + x] = *v);
        }
    }
    out
}

/// From `a` at 0 to `b` at 1: the direction rotates at constant speed, the length changes linearly. Parallel vectors
/// give `a`, opposite ones are interpolated linearly.
fn slerp(a: &[f32], b: &[f32], ratio: f32) -> Vec<f32> {
    let length = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>().sqrt();
    let (long_a, long_b) = (length(a), length(b));
    let unit = |v: f32, length: f32| if length == 0.0 { 0.0 } else { v / length };
    let dot: f32 = a.iter().zip(b).map(|(x, y)| unit(*x, long_a) * unit(*y, long_b)).sum();
    if dot > 1.0 - 1e-5 {
        return a.to_vec();
    }
    if dot < 1e-5 - 1.0 {
        return a.iter().zip(b).map(|(x, y)| x * (1.0 - ratio) + y * ratio).collect();
    }
    let angle = dot.acos();
    let (first, second) = (((1.0 - ratio) * angle).sin() / angle.sin(), (ratio * angle).sin() / angle.sin());
    let long = long_a * (1.0 - ratio) + long_b * ratio;
    a.iter().zip(b).map(|(x, y)| (first * unit(*x, long_a) + second * unit(*y, long_b)) * long).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Method; 5] =
        [Method::NearestExact, Method::Bilinear, Method::Area, Method::Bicubic, Method::Bislerp];

    fn latent(height: usize, width: usize, value: impl Fn(usize, usize, usize) -> f32) -> Latent {
        let at = |i: usize| value(i / (height * width), i / width % height, i % width);
        Latent::from_vec([1, 4, height, width], (0..4 * height * width).map(at).collect()).unwrap()
    }

    #[test]
    fn the_same_size_is_the_same_and_flat_stays_flat() {
        let x = latent(5, 7, |c, y, x| ((c * 31 + y * 7 + x * 3) % 11) as f32 - 5.0);
        let flat = latent(5, 7, |c, _, _| c as f32 + 0.5);
        for method in ALL {
            let same = resized(&x, 5, 7, method).unwrap();
            let far = same.zipped(&x, |a, b| (a - b).abs()).data().iter().copied().fold(0.0, f32::max);
            assert!(far < 1e-5, "{method:?} {far}");
            for (height, width) in [(1, 1), (10, 14), (3, 20), (8, 4)] {
                let y = resized(&flat, height, width, method).unwrap();
                assert_eq!(y.shape(), [1, 4, height, width]);
                let all = y.data().iter().enumerate();
                assert!(
                    all.into_iter().all(|(i, v)| (v - (i / (height * width)) as f32 - 0.5).abs() < 1e-5),
                    "{method:?}"
                );
            }
        }
        assert!(resized(&x, 0, 4, Method::Area).is_err());
    }

    /// One row of 0, 1, 2, 3 by hand.
    #[test]
    fn values_by_hand() {
        let row = Latent::from_vec([1, 1, 1, 4], vec![0.0, 1.0, 2.0, 3.0]).unwrap();
        let at = |width: usize, method: Method| resized(&row, 1, width, method).unwrap().data().to_vec();
        assert_eq!(at(2, Method::NearestExact), [1.0, 3.0]);
        assert_eq!(at(8, Method::NearestExact), [0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0]);
        assert_eq!(at(2, Method::Area), [0.5, 2.5]);
        assert_eq!(at(3, Method::Area), [0.5, 1.5, 2.5]);
        assert_eq!(at(2, Method::Bilinear), [0.5, 2.5]);
        assert_eq!(at(8, Method::Bilinear), [0.0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0]);
        // Weights at 1/4 and 3/4 with a = -0.75: -0.10546875, 0.87890625, 0.26171875, -0.03515625.
        let cubic = at(8, Method::Bicubic);
        let want = 0.87890625 + 2.0 * 0.26171875 - 3.0 * 0.03515625;
        assert!((cubic[3] - want).abs() < 1e-6, "{cubic:?}");
    }

    #[test]
    fn bislerp_turns_and_keeps_the_length() {
        let x = Latent::from_vec([1, 2, 1, 2], vec![2.0, 0.0, 0.0, 2.0]).unwrap();
        let y = resized(&x, 1, 4, Method::Bislerp).unwrap();
        let angle = |i: usize| y.data()[4 + i].atan2(y.data()[i]).to_degrees();
        for (i, want) in [0.0, 22.5, 67.5, 90.0].into_iter().enumerate() {
            assert!((angle(i) - want).abs() < 1e-3, "{i}: {}", angle(i));
            assert!((y.data()[i].hypot(y.data()[4 + i]) - 2.0).abs() < 1e-5);
        }
    }

    #[test]
    fn the_middle_in_another_proportion() {
        let x = latent(4, 10, |_, y, x| (y * 10 + x) as f32);
        let cut = middle(&x, 8, 8);
        assert_eq!((cut.shape(), cut.data()[0]), ([1, 4, 4, 4], 3.0));
        assert_eq!(middle(&x, 2, 5).shape(), [1, 4, 4, 10]);
        assert_eq!(middle(&x, 1, 5).shape(), [1, 4, 2, 10]);
    }
}
