//! Methods of second order in σ with further evaluations within a step (Karras et al. 2022, arXiv 2206.00364, algorithm
//! 2, and k-diffusion): Heun's method, Heun++ with up to two further evaluations, and the midpoint method with the
//! midpoint in ln σ (DPM-Solver-2).

use super::sampler_run::SamplerRun;
use super::step::{ancestral_step, lambda, lerp, plus, sigma as sigma_at, slope, steps};
use super::step_noise::FreshNoise;
use crate::Result;
use crate::latent::Value;

/// The mean of the slopes at both ends of the step; the step to 0 is Euler's.
pub(super) fn heun(sampling: &mut SamplerRun<'_>, mut x: Value, sigmas: &[f32]) -> Result<Value> {
    for (index, sigma, next) in steps(sigmas) {
        let denoised = sampling.step(index, &mut x, sigma)?.denoised;
        let here = slope(&x, &denoised, sigma);
        let ahead = plus(&x, next - sigma, &here);
        x = if next == 0.0 {
            ahead
        } else {
            let there = sampling.slope_at(index, &ahead, next)?;
            plus(&x, next - sigma, &Value::combine(&[(0.5, &here), (0.5, &there)]))
        };
    }
    Ok(x)
}

/// Heun++: the slopes at this sigma and at the next one or two, except the last sigma, weighted by their sigmas over
/// σ₀; the weights sum to 1.
pub(super) fn heunpp2(sampling: &mut SamplerRun<'_>, mut x: Value, sigmas: &[f32]) -> Result<Value> {
    for (index, sigma, next) in steps(sigmas) {
        let denoised = sampling.step(index, &mut x, sigma)?.denoised;
        let here = slope(&x, &denoised, sigma);
        let mut ahead = plus(&x, next - sigma, &here);
        let left = &sigmas[index + 1..sigmas.len() - 1];
        let looks = &left[..left.len().min(2)];
        if looks.is_empty() {
            x = ahead;
            continue;
        }
        let total = (looks.len() + 1) as f32 * sigmas[0];
        let mut weighted = vec![(1.0, here)];
        for (k, &look) in looks.iter().enumerate() {
            let there = sampling.slope_at(index, &ahead, look)?;
            if let Some(&after) = looks.get(k + 1) {
                ahead = plus(&ahead, after - look, &there);
            }
            weighted[0].0 -= look / total;
            weighted.push((look / total, there));
        }
        let terms: Vec<_> = weighted.iter().map(|(weight, slope)| (*weight, slope)).collect();
        x = plus(&x, next - sigma, &Value::combine(&terms));
    }
    Ok(x)
}

/// The midpoint method without new noise.
pub(super) fn dpm_2(sampling: &mut SamplerRun<'_>, x: Value, sigmas: &[f32]) -> Result<Value> {
    midpoint(sampling, x, sigmas, 0.0)
}

pub(super) fn dpm_2_ancestral(sampling: &mut SamplerRun<'_>, x: Value, sigmas: &[f32]) -> Result<Value> {
    let eta = sampling.options.eta;
    midpoint(sampling, x, sigmas, eta)
}

/// A step along the slope at the midpoint to σ_down, then new noise up to σ'.
fn midpoint(sampling: &mut SamplerRun<'_>, mut x: Value, sigmas: &[f32], eta: f32) -> Result<Value> {
    let mut noise = FreshNoise::new(sampling, eta)?;
    for (index, sigma, next) in steps(sigmas) {
        let denoised = sampling.step(index, &mut x, sigma)?.denoised;
        let here = slope(&x, &denoised, sigma);
        let (down, up) = ancestral_step(sigma, next, eta);
        x = if down == 0.0 {
            plus(&x, -sigma, &here)
        } else {
            let middle = sigma_at(lerp(lambda(sigma), lambda(down), 0.5));
            let there = sampling.slope_at(index, &plus(&x, middle - sigma, &here), middle)?;
            noise.add(sampling, &plus(&x, down - sigma, &there), up)?
        };
    }
    Ok(x)
}

#[cfg(test)]
mod tests {
    use super::super::Sampler;
    use super::super::test_model::order_of_convergence;

    #[test]
    fn looking_ahead_is_of_second_order() {
        for sampler in [Sampler::Heun, Sampler::Dpm2] {
            let order = order_of_convergence(sampler);
            assert!((1.8..2.3).contains(&order), "{sampler} {order}");
        }
    }
}
