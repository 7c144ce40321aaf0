//! Samplers that replace the noise, or a part of it, by new noise for the next sigma.

use super::sampler_run::SamplerRun;
use super::step::{slope, steps};
use super::step_noise::FreshNoise;
use crate::Result;
use crate::latent::Value;

/// Consistency models (Luo et al. 2023, arXiv 2310.04378): `x = D + σ'·z`.
pub(super) fn lcm(sampling: &mut SamplerRun<'_>, mut x: Value, sigmas: &[f32]) -> Result<Value> {
    let mut noise = FreshNoise::new(sampling, 1.0)?;
    for (index, sigma, next) in steps(sigmas) {
        let denoised = sampling.step(index, &mut x, sigma)?.denoised;
        x = if next > 0.0 { noise.add(sampling, &denoised, next)? } else { denoised };
    }
    Ok(x)
}

/// DDPM (Ho et al. 2020, arXiv 2006.11239, algorithm 2): mean and noise of the posterior, in the variance-preserving
/// scale `x/√(1 + σ²)` in which they are defined.
pub(super) fn ddpm(sampling: &mut SamplerRun<'_>, mut x: Value, sigmas: &[f32]) -> Result<Value> {
    let mut noise = FreshNoise::new(sampling, 1.0)?;
    for (index, sigma, next) in steps(sigmas) {
        let denoised = sampling.step(index, &mut x, sigma)?.denoised;
        let epsilon = slope(&x, &denoised, sigma);
        let (product, product_next) = (1.0 / (sigma * sigma + 1.0), 1.0 / (next * next + 1.0));
        let alpha = product / product_next;
        let (inward, outward) = ((1.0 + sigma * sigma).sqrt(), (1.0 + next * next).sqrt());
        let (mean, share) = ((1.0 / alpha).sqrt(), (1.0 - alpha) / (1.0 - product).sqrt());
        x = Value::combine(&[(mean / inward, &x), (-mean * share, &epsilon)]);
        if next > 0.0 {
            let variance = (1.0 - alpha) * (1.0 - product_next) / (1.0 - product);
            x = noise.add(sampling, &x, variance.sqrt())?.scaled(outward);
        }
    }
    Ok(x)
}
