//! Self-Attention Guidance: settings, and mask and blur on the host, which `sag_degrade.wgsl` is held to.
//!
//! The network gives column sums c\[j\] = Σ_i mean_h P\[h, i, j\] of the middle block's first
//! self-attention, at its true size. Their mean is 1; positions above the threshold are blurred.

use crate::latent::Latent;
#[doc(hidden)]
pub use crate::latent::attention_map::nearest;
use crate::{Error, Result};

/// Taps on each side of the blur's centre: the kernel is 9×9 whatever its width.
const REACH: usize = 4;

/// Settings of Self-Attention Guidance. The defaults are those of ComfyUI's node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sag {
    /// Strength, -2 to 5. 0 turns SAG off, and no third row is computed.
    pub scale: f32,
    /// Standard deviation of the blur in latent cells, 0 to 10. 0 turns SAG off as well.
    pub blur_sigma: f32,
    /// Positions whose column sum is above this are blurred; 1 is the mean.
    pub threshold: f32,
    /// Part of the sampling from which SAG acts, 0 to 1.
    pub start: f64,
    /// Part of the sampling up to which SAG acts, 0 to 1.
    pub end: f64,
    /// At CFG scale 1, listen to the conditional prediction and leave the unconditional one out:
    /// two rows a picture instead of three.
    pub cond_at_cfg_1: bool,
}

impl Default for Sag {
    fn default() -> Self {
        Self { scale: 0.5, blur_sigma: 2.0, threshold: 1.0, start: 0.0, end: 1.0, cond_at_cfg_1: false }
    }
}

impl Sag {
    /// No SAG.
    pub fn off() -> Self {
        Self { scale: 0.0, ..Self::default() }
    }

    /// Whether SAG can have any effect at some point of a sampling.
    pub fn is_on(&self) -> bool {
        self.scale != 0.0 && self.blur_sigma != 0.0
    }

    /// Whether SAG can act on latents of this size: its blur reflects four cells at each edge.
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
                // Settings are f32: more digits than it has would not be what was typed.
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

/// `x` with the cells blurred where `mask` `[batch, height, width]` is not 0; cells beyond the
/// mask's end are kept.
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

/// Gaussian blur of each channel, 9 taps each way, edges reflected without repeating them.
/// `sigma` 0 returns `x`, and so does a side of 4 cells or less, which cannot be reflected so far.
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
            // With its reflections at both ends a line needs no look at its edges.
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

/// The blur's weights by distance from its centre, 0 to 4: what a kernel on the device is given.
#[doc(hidden)]
pub fn half_kernel(sigma: f32) -> [f32; REACH + 1] {
    let whole = kernel(sigma);
    std::array::from_fn(|k| whole[REACH + k])
}

/// Σ_k w_k values(k), element by element, in the order of the taps.
fn taps<'v>(kernel: &[f32; 2 * REACH + 1], to: &mut [f32], values: impl Fn(usize) -> &'v [f32]) {
    to.fill(0.0);
    for (k, w) in kernel.iter().enumerate() {
        for (to, value) in to.iter_mut().zip(values(k)) {
            *to += w * value;
        }
    }
}

/// The place in a line of `len` that stands for `i`, which may be up to a line's length outside.
fn reflect(i: isize, len: usize) -> usize {
    let last = len as isize - 1;
    let i = i.abs();
    (if i > last { 2 * last - i } else { i }) as usize
}
