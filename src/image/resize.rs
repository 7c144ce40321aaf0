//! Bringing a picture to the size it is drawn in.

use super::picture::{Picture, room_for};
use crate::Result;

/// Lobes of the kernel on each side of its centre.
const LOBES: f64 = 3.0;

/// `picture` at another size by Lanczos's kernel of three lobes, widened when scaling down, first
/// along rows, then along columns, each rounded to 8 bits: what Pillow's `LANCZOS` does, and with it
/// ComfyUI's and A1111's of that name.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for a picture without pixels or whose bytes do not fit its size, and
/// for a size without pixels or too large for memory.
pub fn lanczos(picture: &Picture, width: usize, height: usize) -> Result<Picture> {
    picture.check()?;
    let (mut across, mut rgb) = (room_for(width, picture.height)?, room_for(width, height)?);
    let rows = Taps::new(picture.width, width);
    let columns = Taps::new(picture.height, height);
    for y in 0..picture.height {
        for x in 0..width {
            across.extend((0..3).map(|c| rows.sum(x, |k| picture.rgb[(y * picture.width + k) * 3 + c])));
        }
    }
    for y in 0..height {
        for at in 0..width * 3 {
            rgb.push(columns.sum(y, |k| across[k * width * 3 + at]));
        }
    }
    Ok(Picture { width, height, rgb })
}

/// The middle of `picture`, as ComfyUI's VAE encoder takes it; shorter sides are kept.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for a picture without pixels or whose bytes do not fit its size.
pub fn centre(picture: &Picture, width: usize, height: usize) -> Result<Picture> {
    picture.check()?;
    let (width, height) = (width.min(picture.width), height.min(picture.height));
    let (left, top) = middle((picture.width, picture.height), (width, height));
    let row = |y: usize| {
        let from = (y * picture.width + left) * 3;
        &picture.rgb[from..from + width * 3]
    };
    Ok(Picture { width, height, rgb: (top..top + height).flat_map(row).copied().collect() })
}

/// Left and top of the middle of `whole` (width, height) that is `part` large.
pub(super) fn middle(whole: (usize, usize), part: (usize, usize)) -> (usize, usize) {
    ((whole.0 - part.0) / 2, (whole.1 - part.1) / 2)
}

/// For each new position the first old one that counts, and the weights from there on.
struct Taps(Vec<(usize, Vec<f64>)>);

impl Taps {
    fn new(from: usize, to: usize) -> Self {
        let scale = from as f64 / to as f64;
        let stretch = scale.max(1.0);
        let reach = LOBES * stretch;
        let taps_of = |at: usize| {
            let centre = (at as f64 + 0.5) * scale;
            let first = (centre - reach + 0.5).max(0.0) as usize;
            let end = ((centre + reach + 0.5) as usize).min(from);
            let weight = |k: usize| kernel((k as f64 - centre + 0.5) / stretch);
            let weights: Vec<f64> = (first..end).map(weight).collect();
            let sum: f64 = weights.iter().sum();
            (first, weights.into_iter().map(|w| w / sum).collect())
        };
        Self((0..to).map(taps_of).collect())
    }

    fn sum(&self, at: usize, value: impl Fn(usize) -> u8) -> u8 {
        let (first, weights) = &self.0[at];
        let sum: f64 = weights.iter().enumerate().map(|(i, w)| w * f64::from(value(first + i))).sum();
        (sum + 0.5).clamp(0.0, 255.0) as u8
    }
}

/// sinc(x) · sinc(x / 3) within three lobes.
fn kernel(x: f64) -> f64 {
    let sinc = |x: f64| {
        let x = x * std::f64::consts::PI;
        if x == 0.0 { 1.0 } else { x.sin() / x }
    };
    if (-LOBES..LOBES).contains(&x) { sinc(x) * sinc(x / LOBES) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gradient(width: usize, height: usize) -> Picture {
        let pixel = |i: usize| [(i % width * 7) as u8, (i / width * 11) as u8, 200];
        Picture { width, height, rgb: (0..width * height).flat_map(pixel).collect() }
    }

    #[test]
    fn the_same_size_is_the_same_picture() {
        assert_eq!(lanczos(&gradient(13, 9), 13, 9).unwrap(), gradient(13, 9));
        assert_eq!(centre(&gradient(13, 9), 13, 9).unwrap(), gradient(13, 9));
    }

    #[test]
    fn flat_stays_flat_and_gradients_stay_gradients() {
        for (width, height) in [(8, 8), (1, 1), (40, 3), (3, 40), (64, 64)] {
            let scaled = lanczos(&gradient(13, 9), width, height).unwrap();
            assert_eq!((scaled.width, scaled.height, scaled.rgb.len()), (width, height, width * height * 3));
            assert!(scaled.rgb.chunks(3).all(|p| p[2] == 200), "{width}x{height}");
            // Right of the middle is brighter than left of it, wherever the kernel does not ring.
            let at = |x: usize| i32::from(scaled.rgb[(height / 2 * width + x) * 3]);
            assert!(width < 8 || at(width * 3 / 4) > at(width / 4), "{width}x{height}");
        }
        let one = Picture { width: 1, height: 1, rgb: vec![3, 2, 1] };
        assert_eq!(lanczos(&one, 8, 8).unwrap().rgb, [3, 2, 1].repeat(64));
    }

    /// One row of 0, 0, 255, 0, 0, 0 halved: the kernel at ±¼, … of its stretched width.
    #[test]
    fn halving_weighs_by_the_stretched_kernel() {
        let row = [0, 0, 255, 0, 0, 0];
        let picture = Picture { width: 6, height: 1, rgb: row.iter().flat_map(|v| [*v; 3]).collect() };
        let got: Vec<u8> = lanczos(&picture, 3, 1).unwrap().rgb.chunks(3).map(|p| p[0]).collect();
        let weight = |at: f64, k: f64| kernel((k + 0.5 - (at + 0.5) * 2.0) / 2.0);
        for (at, got) in got.iter().enumerate() {
            let all: f64 = (0..6).map(|k| weight(at as f64, f64::from(k))).sum();
            let want = (255.0 * weight(at as f64, 2.0) / all).max(0.0);
            assert!((f64::from(*got) - want).abs() <= 0.5, "{at}: {got} for {want}");
        }
    }

    #[test]
    fn the_middle_is_cut_out() {
        let cut = centre(&gradient(13, 9), 8, 8).unwrap();
        assert_eq!((cut.width, cut.height), (8, 8));
        assert_eq!(cut.rgb[..2], [2 * 7, 0]);
        assert_eq!(centre(&gradient(5, 9), 8, 8).unwrap().width, 5);
    }
}
