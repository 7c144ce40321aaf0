//! Self-Attention Guidance (Hong et al. 2022, arXiv 2210.00939): its settings, and its mask and blur on the host, the
//! reference for `sag_degrade.wgsl`.
//!
//! The network returns the column sums c\[j\] = Σ_i mean_h P\[h, i, j\] of the first self-attention of the middle
//! block, P being the attention matrix of head h, at the size of the map. Their mean is 1. Positions above the
//! threshold are blurred.

use crate::latent::Latent;
#[doc(hidden)]
pub use crate::latent::attention_map::nearest;
use crate::{Error, Result};

/// Taps on each side of the blur's centre: the kernel is 9×9 for every standard deviation.
const REACH: usize = 4;

/// Settings of Self-Attention Guidance: `scale · (D_g - S)` is added to the prediction, where D_g is the prediction
/// blurred where attention is high, and S the prediction for D_g under the same noise. The defaults are those of
/// ComfyUI's node.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
pub struct Sag {
    /// Strength, -2 to 5. 0 turns SAG off; otherwise it takes one extra row per image.
    pub scale: f32,
    /// Standard deviation of the blur in latent cells, 0 to 10. 0 turns SAG off as well.
    pub blur_sigma: f32,
    /// Positions whose column sum is above this are blurred, 0 to 1,000,000; 1 is the mean.
    pub threshold: f32,
    /// Where in the sampling SAG starts to act: 0 is the start, 1 the end.
    pub start: f64,
    /// Where in the sampling SAG stops acting, on the same scale.
    pub end: f64,
    /// At CFG scale 1, use the attention of the prediction with the prompt, and do not compute the one with the
    /// negative prompt: two rows per image instead of three.
    pub cond_at_cfg_1: bool,
}

impl Default for Sag {
    fn default() -> Self {
        Self { scale: 0.5, blur_sigma: 2.0, threshold: 1.0, start: 0.0, end: 1.0, cond_at_cfg_1: false }
    }
}

impl Sag {
    /// SAG turned off.
    pub fn off() -> Self {
        Self { scale: 0.0, ..Self::default() }
    }

    /// Whether SAG can have any effect during a sampling.
    pub fn is_on(&self) -> bool {
        self.scale != 0.0 && self.blur_sigma != 0.0
    }

    /// Whether SAG can act on latents of this size: its blur reflects four cells at each edge, so both sides must be
    /// longer.
    pub(super) fn acts_on(&self, (height, width): (usize, usize)) -> bool {
        self.is_on() && height.min(width) > REACH
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage), naming the setting and its range.
    pub fn check(&self) -> Result<()> {
        let inside = |name: &str, value: f64, from: f64, to: f64| {
            if (from..=to).contains(&value) {
                return Ok(());
            }
            Err(Error::usage(format!("the {name} is outside its range"))
                .expected(format!("{from} to {to}"))
                // Settings are f32: with more digits than it has, this would not be the number that was given.
                .found((value as f32).to_string()))
        };
        inside("SAG scale", self.scale.into(), -2.0, 5.0)?;
        inside("SAG blur sigma", self.blur_sigma.into(), 0.0, 10.0)?;
        inside("SAG threshold", self.threshold.into(), 0.0, 1e6)?;
        inside("SAG start", self.start, 0.0, 1.0)?;
        inside("SAG end", self.end, 0.0, 1.0)?;
        if self.start >= self.end {
            return Err(Error::usage("SAG would never act")
                .expected("a start before the end")
                .found(format!("{} to {}", self.start, self.end)));
        }
        Ok(())
    }
}

/// `x` with those cells blurred where `mask`, `[batch, height, width]`, is not 0. Where the mask is too short, cells
/// are kept.
#[doc(hidden)]
pub fn degrade(x: &Latent, mask: &[u8], blur_sigma: f32) -> Latent {
    let mut out = blur(x, blur_sigma);
    let [_, channels, height, width] = x.shape();
    let plane = height * width;
    for image in 0..x.batch() {
        let mask = mask.iter().skip(image * plane).copied().chain(std::iter::repeat(0)).take(plane);
        let kept = x.image(image);
        for c in 0..channels {
            let blurred = &mut out.image_mut(image)[c * plane..][..plane];
            for ((b, m), k) in blurred.iter_mut().zip(mask.clone()).zip(&kept[c * plane..]) {
                if m == 0 {
                    *b = *k;
                }
            }
        }
    }
    out
}

/// Gaussian blur of each channel with 9 taps along each axis; the edges are reflected without repeating the outermost
/// cell. Returns `x` if `sigma` is 0, or if a side has 4 cells or less, which is too short to reflect.
#[doc(hidden)]
pub fn blur(x: &Latent, sigma: f32) -> Latent {
    if sigma == 0.0 || x.height().min(x.width()) <= REACH {
        return x.clone();
    }
    let kernel = kernel(sigma);
    let [_, _, height, width] = x.shape();
    let mut out = x.clone();
    let mut across = vec![0.0f32; height * width];
    let mut line = vec![0.0f32; width + 2 * REACH];
    for plane in out.data_mut().chunks_exact_mut(height * width) {
        for (from, to) in plane.chunks_exact(width).zip(across.chunks_exact_mut(width)) {
            // With the reflections copied to both ends, the sums below need no special case at the edges.
            line[REACH..REACH + width].copy_from_slice(from);
            for k in 0..REACH {
                line[k] = from[reflect(k as isize - REACH as isize, width)];
                line[REACH + width + k] = from[reflect((width + k) as isize, width)];
            }
            taps(&kernel, to, |k| &line[k..k + width]);
        }
        for (y, to) in plane.chunks_exact_mut(width).enumerate() {
            let of = |k: usize| reflect(y as isize + k as isize - REACH as isize, height) * width;
            taps(&kernel, to, |k| &across[of(k)..][..width]);
        }
    }
    out
}

/// w_k ∝ exp(-½ (k/σ)²), k = -4..4, normalised over the nine taps.
fn kernel(sigma: f32) -> [f32; 2 * REACH + 1] {
    let mut w = std::array::from_fn(|i| {
        let k = (i as f32 - REACH as f32) / sigma;
        (-0.5 * k * k).exp()
    });
    let sum: f32 = w.iter().sum();
    w.iter_mut().for_each(|v| *v /= sum);
    w
}

/// The weights of the blur by distance from its centre, 0 to 4, as the kernel on the device needs them.
#[doc(hidden)]
pub fn half_kernel(sigma: f32) -> [f32; REACH + 1] {
    let all = kernel(sigma);
    std::array::from_fn(|k| all[REACH + k])
}

/// Σ_k w_k · values(k), element by element, added in the order of the taps.
fn taps<'v>(kernel: &[f32; 2 * REACH + 1], to: &mut [f32], values: impl Fn(usize) -> &'v [f32]) {
    to.fill(0.0);
    for (k, w) in kernel.iter().enumerate() {
        for (to, value) in to.iter_mut().zip(values(k)) {
            *to += w * value;
        }
    }
}

/// The index in a line of `len` cells that index `i` is reflected to; `i` may be up to `len - 1` cells outside.
fn reflect(i: isize, len: usize) -> usize {
    let last = len as isize - 1;
    let i = i.abs();
    (if i > last { 2 * last - i } else { i }) as usize
}
