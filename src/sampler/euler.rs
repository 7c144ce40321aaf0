//! Euler's method, plain and ancestral (Karras et al. 2022, algorithm 2; k-diffusion's
//! `sample_euler` and `sample_euler_ancestral`), and with CFG++ (Chung et al. 2024, arXiv 2406.08070).

use super::sampler_run::SamplerRun;
use super::step::{ancestral_step, plus, slope, steps, towards};
use super::step_noise::FreshNoise;
use crate::Result;
use crate::latent::Value;

/// `x += d·(σ' - σ)` with the slope `d = (x - D) / σ`.
pub(super) fn euler(sampling: &mut SamplerRun<'_>, mut x: Value, sigmas: &[f32]) -> Result<Value> {
    for (index, sigma, next) in steps(sigmas) {
        let denoised = sampling.step(index, &mut x, sigma)?.denoised;
        x = towards(&x, &denoised, sigma, next);
    }
    Ok(x)
}

/// Euler's step to σ_down, then new noise of deviation σ_up: together they give σ'.
pub(super) fn euler_ancestral(sampling: &mut SamplerRun<'_>, mut x: Value, sigmas: &[f32]) -> Result<Value> {
    let eta = sampling.options.eta;
    let mut noise = FreshNoise::new(sampling, eta)?;
    for (index, sigma, next) in steps(sigmas) {
        let denoised = sampling.step(index, &mut x, sigma)?.denoised;
        let (down, up) = ancestral_step(sigma, next, eta);
        x = if down == 0.0 {
            denoised
        } else {
            noise.add(sampling, &towards(&x, &denoised, sigma, down), up)?
        };
    }
    Ok(x)
}

pub(super) fn euler_cfg_pp(sampling: &mut SamplerRun<'_>, x: Value, sigmas: &[f32]) -> Result<Value> {
    cfg_pp(sampling, x, sigmas, 0.0)
}

pub(super) fn euler_ancestral_cfg_pp(
    sampling: &mut SamplerRun<'_>,
    x: Value,
    sigmas: &[f32],
) -> Result<Value> {
    let eta = sampling.options.eta;
    cfg_pp(sampling, x, sigmas, eta)
}

/// `x = D + σ_down·d` with the slope of the prediction without the prompt, `d = (x - U) / σ`:
/// guidance changes the picture, not the noise.
fn cfg_pp(sampling: &mut SamplerRun<'_>, mut x: Value, sigmas: &[f32], eta: f32) -> Result<Value> {
    let mut noise = FreshNoise::new(sampling, eta)?;
    for (index, sigma, next) in steps(sigmas) {
        let out = sampling.step(index, &mut x, sigma)?;
        x = if next == 0.0 {
            out.denoised
        } else {
            let (down, up) = ancestral_step(sigma, next, eta);
            noise.add(sampling, &plus(&out.denoised, down, &slope(&x, out.unprompted()?, sigma)), up)?
        };
    }
    Ok(x)
}

#[cfg(test)]
mod tests {
    use super::super::test_model::{Gaussian, mean_square, order_of_convergence, run};
    use super::super::{SampleOptions, Sampler};

    #[test]
    fn euler_is_of_first_order() {
        let order = order_of_convergence(Sampler::Euler);
        assert!((0.9..1.15).contains(&order), "{order}");
    }

    #[test]
    fn ancestral_noise_keeps_the_variance() {
        // Data that are all 0: at every level x must be pure noise of variance σ².
        let sigmas = [14.0, 9.0, 5.0, 2.0, 1.0, 0.5];
        for eta in [0.0, 0.6, 1.0] {
            let options = SampleOptions { seed: 7, eta, ..Default::default() };
            let mut seen = Vec::new();
            run(Sampler::EulerAncestral, &mut Gaussian { variance: 0.0 }, &sigmas, &options, &mut |step| {
                seen.push(mean_square(&step.x()?) / f64::from(step.sigma).powi(2));
                Ok(())
            })
            .unwrap();
            assert_eq!(seen.len(), 5);
            assert!(seen.iter().all(|v| (v - 1.0).abs() < 0.03), "{eta} {seen:?}");
        }
    }

    #[test]
    fn without_eta_ancestral_is_euler() {
        let sigmas = [14.0, 5.0, 1.0, 0.3];
        let options = SampleOptions { eta: 0.0, ..Default::default() };
        let mut model = Gaussian { variance: 1.0 };
        let a = run(Sampler::Euler, &mut model, &sigmas, &options, &mut |_| Ok(())).unwrap();
        let b = run(Sampler::EulerAncestral, &mut model, &sigmas, &options, &mut |_| Ok(())).unwrap();
        assert_eq!(a, b);
    }
}
