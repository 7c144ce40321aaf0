//! The extended reverse-time SDE solver of third order (Cui et al. 2023, arXiv 2309.06169), with the
//! noise scale that its authors recommend: `φ(σ) = σ·(e^{σ^0.3} + 10)`.

use super::sampler_run::SamplerRun;
use super::step::{change, plus, steps};
use super::step_noise::FreshNoise;
use crate::Result;
use crate::latent::Value;

/// Points at which the integrals over a step are evaluated.
const POINTS: usize = 200;

pub(super) fn er_sde(sampling: &mut SamplerRun<'_>, mut x: Value, sigmas: &[f32]) -> Result<Value> {
    let mut noise = FreshNoise::new(sampling, 1.0)?;
    // The last prediction and the last slope of predictions over σ.
    let (mut before, mut slope_before): (Option<Value>, Option<Value>) = (None, None);
    for (index, sigma, next) in steps(sigmas) {
        let denoised = sampling.step(index, &mut x, sigma)?.denoised;
        if next == 0.0 {
            x = denoised;
            continue;
        }
        let ratio = scale(next) / scale(sigma);
        x = Value::combine(&[(ratio, &x), (1.0 - ratio, &denoised)]);
        if let Some(previous) = &before {
            let (first, second) = integrals(sigma, next);
            let slope = change(previous, &denoised).scaled(1.0 / (sigma - sigmas[index - 1]));
            x = plus(&x, first, &slope);
            if let Some(slope_before) = &slope_before {
                let span = (sigma - sigmas[index - 2]) / 2.0;
                x = plus(&x, second / span, &change(slope_before, &slope));
            }
            slope_before = Some(slope);
        }
        let left = next * next - sigma * sigma * (ratio * ratio);
        x = noise.add(sampling, &x, left.max(0.0).sqrt())?;
        before = Some(denoised);
    }
    Ok(x)
}

/// φ at a noise level.
fn scale(sigma: f32) -> f32 {
    sigma * ((f64::from(sigma).powf(0.3).exp()) as f32 + 10.0)
}

/// The weights of slope and curvature: `Δ + φ(σ') ∫ ds/φ(s)` and `Δ²/2 + φ(σ') ∫ (s - σ)/φ(s) ds` with
/// `Δ = σ' - σ`; the integrals from σ' to σ are sums over evenly spaced points that begin at σ'.
fn integrals(sigma: f32, next: f32) -> (f32, f32) {
    let delta = next - sigma;
    let spacing = -delta / POINTS as f32;
    let points = (0..POINTS).map(|k| next + k as f32 * spacing);
    let (mut first, mut second) = (0.0, 0.0);
    for s in points {
        first += f64::from(1.0 / scale(s));
        second += f64::from((s - sigma) / scale(s));
    }
    let (first, second) = (first as f32 * spacing, second as f32 * spacing);
    (delta + first * scale(next), delta * delta / 2.0 + second * scale(next))
}
