//! Gradient estimation (Permenter and Yuan 2023, arXiv 2306.04848): Euler's steps along a slope that is extrapolated by
//! its last change, `d + (γ - 1)(d - d_before)` with γ = 2.

use super::Predicted;
use super::sampler_run::SamplerRun;
use super::step::{change, plus, slope, steps};
use crate::Result;
use crate::latent::Value;

pub(super) fn gradient_estimation(sampling: &mut SamplerRun<'_>, x: Value, sigmas: &[f32]) -> Result<Value> {
    run(sampling, x, sigmas, |out| Ok(&out.denoised))
}

/// With CFG++: the slope is that of the prediction without the prompt.
pub(super) fn gradient_estimation_cfg_pp(
    sampling: &mut SamplerRun<'_>,
    x: Value,
    sigmas: &[f32],
) -> Result<Value> {
    run(sampling, x, sigmas, Predicted::unprompted)
}

/// Euler's step as `D + d·σ'`, with the guided D; without CFG++ this equals `x + d·(σ' - σ)`.
fn run(
    sampling: &mut SamplerRun<'_>,
    mut x: Value,
    sigmas: &[f32],
    source: fn(&Predicted) -> Result<&Value>,
) -> Result<Value> {
    let mut before: Option<Value> = None;
    for (index, sigma, next) in steps(sigmas) {
        let out = sampling.step(index, &mut x, sigma)?;
        let here = slope(&x, source(&out)?, sigma);
        if next == 0.0 {
            x = out.denoised;
        } else {
            x = plus(&out.denoised, next, &here);
            if let Some(before) = &before {
                x = plus(&x, next - sigma, &change(before, &here));
            }
        }
        before = Some(here);
    }
    Ok(x)
}
