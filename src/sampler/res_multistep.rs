//! The refined exponential solver, second-order multistep (Zhang et al. 2023, arXiv 2308.02157):
//! `x' = e^{-h}·x + h·(b₁ D + b₂ D_before)`, where `b₂ = φ₂(-h)/c₂` and `b₁ = φ₁(-h) - b₂` meet the order
//! conditions.

use super::discrete::{exp, exp_m1};
use super::sampler_run::SamplerRun;
use super::step::{ancestral_step, change, lambda, plus, slope, steps};
use super::step_noise::FreshNoise;
use crate::Result;
use crate::latent::Value;

pub(super) fn res_multistep(sampling: &mut SamplerRun<'_>, x: Value, sigmas: &[f32]) -> Result<Value> {
    run(sampling, x, sigmas, 0.0, false)
}

pub(super) fn res_multistep_cfg_pp(sampling: &mut SamplerRun<'_>, x: Value, sigmas: &[f32]) -> Result<Value> {
    run(sampling, x, sigmas, 0.0, true)
}

pub(super) fn res_multistep_ancestral(
    sampling: &mut SamplerRun<'_>,
    x: Value,
    sigmas: &[f32],
) -> Result<Value> {
    let eta = sampling.options.eta;
    run(sampling, x, sigmas, eta, false)
}

pub(super) fn res_multistep_ancestral_cfg_pp(
    sampling: &mut SamplerRun<'_>,
    x: Value,
    sigmas: &[f32],
) -> Result<Value> {
    let eta = sampling.options.eta;
    run(sampling, x, sigmas, eta, true)
}

/// Steps to σ_down, then new noise up to σ'. With CFG++ the solver uses the prediction without the prompt, from an x
/// moved by the guidance `D - U`.
fn run(sampling: &mut SamplerRun<'_>, mut x: Value, sigmas: &[f32], eta: f32, cfg_pp: bool) -> Result<Value> {
    let mut noise = FreshNoise::new(sampling, eta)?;
    // The previous step's prediction, sigma and σ_down.
    let mut before: Option<(Value, f32, f32)> = None;
    for (index, sigma, next) in steps(sigmas) {
        let out = sampling.step(index, &mut x, sigma)?;
        let target = if cfg_pp { out.unprompted()? } else { &out.denoised };
        let (down, up) = ancestral_step(sigma, next, eta);
        x = match &before {
            Some((previous, sigma_before, down_before)) if down > 0.0 => {
                let h = lambda(down) - lambda(sigma);
                let c2 = (lambda(*sigma_before) - lambda(*down_before)) / h;
                let (b1, b2) = weights(h, c2);
                let start = if cfg_pp { plus(&x, 1.0, &change(target, &out.denoised)) } else { x.clone() };
                Value::combine(&[(exp(-h), &start), (h * b1, target), (h * b2, previous)])
            }
            _ => plus(&out.denoised, down, &slope(&x, target, sigma)),
        };
        if next > 0.0 {
            x = noise.add(sampling, &x, up)?;
        }
        before = Some((target.clone(), sigma, down));
    }
    Ok(x)
}

/// `(b₁, b₂)`; 0 if a step has no length.
fn weights(h: f32, c2: f32) -> (f32, f32) {
    let phi_1 = exp_m1(-h) / -h;
    let phi_2 = (phi_1 - 1.0) / -h;
    let or_zero = |v: f32| if v.is_nan() { 0.0 } else { v };
    (or_zero(phi_1 - phi_2 / c2), or_zero(phi_2 / c2))
}

#[cfg(test)]
mod tests {
    use super::super::Sampler;
    use super::super::test_model::order_of_convergence;

    #[test]
    fn res_multistep_is_of_second_order() {
        let order = order_of_convergence(Sampler::ResMultistep);
        assert!((1.8..2.3).contains(&order), "{order}");
    }
}
