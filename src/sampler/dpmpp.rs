//! DPM-Solver++ (Lu et al. 2022, arXiv 2211.01095): steps in `λ = -ln σ`, plain and with CFG++
//! (Chung et al. 2024, arXiv 2406.08070).

use super::Predicted;
use super::discrete::exp;
use super::sampler_run::SamplerRun;
use super::step::{ancestral_step, change, lambda, phi_1, plus, sigma as sigma_at, steps};
use super::step_noise::FreshNoise;
use crate::Result;
use crate::latent::Value;

/// The second-order multistep solver 2M (algorithm 2 of the paper; k-diffusion's `sample_dpmpp_2m`):
/// `x = (σ'/σ)·x - (e^{-h} - 1)·D*` with `h = λ' - λ`, where `D*` extrapolates the last two
/// predictions. The first step has no predecessor, and the step to 0 is infinitely long in λ: both use `D* = D`.
pub(super) fn dpmpp_2m(sampling: &mut SamplerRun<'_>, mut x: Value, sigmas: &[f32]) -> Result<Value> {
    // The previous step's prediction and length.
    let mut before: Option<(Value, f32)> = None;
    for (index, sigma, next) in steps(sigmas) {
        let denoised = sampling.step(index, &mut x, sigma)?.denoised;
        let (from, to) = (lambda(sigma), lambda(next));
        let h = to - from;
        let (keep, take) = (sigma_at(to) / sigma_at(from), phi_1(h));
        x = match &before {
            Some((previous, h_before)) if next > 0.0 => {
                let weight = 1.0 / (2.0 * (h_before / h));
                let ahead = Value::combine(&[(1.0 + weight, &denoised), (-weight, previous)]);
                Value::combine(&[(keep, &x), (take, &ahead)])
            }
            _ => Value::combine(&[(keep, &x), (take, &denoised)]),
        };
        before = Some((denoised, h));
    }
    Ok(x)
}

/// 2M with CFG++: `x = D + e^{-h}·(x - U)` plus `(1 - e^{-h})/(2r)·(D - U_before)`, where U is the
/// prediction without the prompt and r the ratio of the previous step's length to this one's.
pub(super) fn dpmpp_2m_cfg_pp(sampling: &mut SamplerRun<'_>, mut x: Value, sigmas: &[f32]) -> Result<Value> {
    let mut before: Option<(Value, f32)> = None;
    for (index, sigma, next) in steps(sigmas) {
        let out = sampling.step(index, &mut x, sigma)?;
        let uncond = out.unprompted()?.clone();
        let h = lambda(next) - lambda(sigma);
        let keep = exp(-h);
        let mut terms = vec![(1.0, &out.denoised), (-keep, &uncond), (keep, &x)];
        let extrapolation;
        if let Some((previous, h_before)) = before.as_ref().filter(|_| next > 0.0) {
            extrapolation = change(previous, &out.denoised);
            terms.push((phi_1(h) / (2.0 * (h_before / h)), &extrapolation));
        }
        x = Value::combine(&terms);
        before = Some((uncond, h));
    }
    Ok(x)
}

pub(super) fn dpmpp_2s_ancestral(sampling: &mut SamplerRun<'_>, x: Value, sigmas: &[f32]) -> Result<Value> {
    two_s(sampling, x, sigmas, false)
}

pub(super) fn dpmpp_2s_ancestral_cfg_pp(
    sampling: &mut SamplerRun<'_>,
    x: Value,
    sigmas: &[f32],
) -> Result<Value> {
    two_s(sampling, x, sigmas, true)
}

/// The second-order single-step solver 2S (algorithm 1 of the paper) to σ_down, with a second prediction at the middle
/// of the step; then new noise up to σ'. With CFG++ both parts start from an x moved by the guidance, `x + (D - U)`,
/// the second one with the U of the middle: a mistake in ComfyUI 0.16 that its pictures depend on.
fn two_s(sampling: &mut SamplerRun<'_>, mut x: Value, sigmas: &[f32], cfg_pp: bool) -> Result<Value> {
    let eta = sampling.options.eta;
    let mut noise = FreshNoise::new(sampling, eta)?;
    for (index, sigma, next) in steps(sigmas) {
        let out = sampling.step(index, &mut x, sigma)?;
        let from = |last: &Predicted| -> Result<Value> {
            Ok(if cfg_pp { plus(&x, 1.0, &change(last.unprompted()?, &out.denoised)) } else { x.clone() })
        };
        let (down, up) = ancestral_step(sigma, next, eta);
        x = if down == 0.0 {
            out.denoised
        } else {
            let h = lambda(down) - lambda(sigma);
            let middle = sigma_at(lambda(sigma) + 0.5 * h);
            let halfway = Value::combine(&[(middle / sigma, &from(&out)?), (phi_1(0.5 * h), &out.denoised)]);
            let there = sampling.predict(index, &halfway, middle)?;
            Value::combine(&[(down / sigma, &from(&there)?), (phi_1(h), &there.denoised)])
        };
        if next > 0.0 {
            x = noise.add(sampling, &x, up)?;
        }
    }
    Ok(x)
}

#[cfg(test)]
mod tests {
    use super::super::Sampler;
    use super::super::test_model::order_of_convergence;

    #[test]
    fn dpmpp_2m_is_of_second_order() {
        let order = order_of_convergence(Sampler::Dpmpp2m);
        assert!((1.8..2.3).contains(&order), "{order}");
    }
}
