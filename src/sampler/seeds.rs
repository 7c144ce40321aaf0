//! SEEDS (Gonzalez et al. 2023, arXiv 2305.14267): exponential solvers of the reverse SDE with several evaluations in a
//! step; and the exponential Heun methods of the same form.

use super::sampler_run::SamplerRun;
use super::step::{SdeStep, lambda, lerp, phi_1, phi_2, sigma as sigma_at, steps};
use super::step_noise::FreshNoise;
use crate::Result;
use crate::latent::Value;

/// The weights of the two predictions of a two-stage step. Both rules are of second order: a constant from the middle
/// of the step is as good as a line through its ends.
#[derive(Clone, Copy, PartialEq)]
enum Rule {
    /// The second one alone, as a constant.
    Constant,
    /// The line through both.
    Linear,
}

pub(super) fn seeds_2(sampling: &mut SamplerRun<'_>, x: Value, sigmas: &[f32]) -> Result<Value> {
    let eta = sampling.options.eta;
    two_stages(sampling, x, sigmas, eta, (0.5, Rule::Constant))
}

/// The second prediction is at the end of the step.
pub(super) fn exp_heun_2_x0(sampling: &mut SamplerRun<'_>, x: Value, sigmas: &[f32]) -> Result<Value> {
    two_stages(sampling, x, sigmas, 0.0, (1.0, Rule::Linear))
}

pub(super) fn exp_heun_2_x0_sde(sampling: &mut SamplerRun<'_>, x: Value, sigmas: &[f32]) -> Result<Value> {
    let eta = sampling.options.eta;
    two_stages(sampling, x, sigmas, eta, (1.0, Rule::Linear))
}

/// Two stages; the second prediction is at the fraction `r` of the step in λ.
fn two_stages(
    sampling: &mut SamplerRun<'_>,
    mut x: Value,
    sigmas: &[f32],
    eta: f32,
    (r, rule): (f32, Rule),
) -> Result<Value> {
    let mut noise = FreshNoise::new(sampling, eta)?;
    for (index, sigma, next) in steps(sigmas) {
        let denoised = sampling.step(index, &mut x, sigma)?.denoised;
        if next == 0.0 {
            x = denoised;
            continue;
        }
        let place = sigma_at(lerp(lambda(sigma), lambda(next), r));
        let (part, full) = (SdeStep::new(sigma, place, eta), SdeStep::new(sigma, next, eta));
        let shape = x.shape();

        let moved = Value::combine(&[(part.keep, &x), (phi_1(r * full.h_eta), &denoised)]);
        let drawn = noise.decay(sampling, None, shape, r * full.h * eta)?;
        let there = sampling.predict(index, &with(moved, place, &drawn), place)?.denoised;

        let second = match rule {
            Rule::Constant => phi_1(full.h_eta),
            Rule::Linear => phi_2(full.h_eta) / r,
        };
        let first = phi_1(full.h_eta) - second;
        let moved = Value::combine(&[(full.keep, &x), (first, &denoised), (second, &there)]);
        let drawn = noise.decay(sampling, drawn, shape, (1.0 - r) * full.h * eta)?;
        x = with(moved, next, &drawn);
    }
    Ok(x)
}

/// Three stages, with predictions at one and two thirds of the step. Each stage starts from `x`, with the noise that has
/// been added up to that point.
pub(super) fn seeds_3(sampling: &mut SamplerRun<'_>, mut x: Value, sigmas: &[f32]) -> Result<Value> {
    let eta = sampling.options.eta;
    let (r1, r2) = (1.0 / 3.0, 2.0 / 3.0);
    let mut noise = FreshNoise::new(sampling, eta)?;
    for (index, sigma, next) in steps(sigmas) {
        let denoised = sampling.step(index, &mut x, sigma)?.denoised;
        if next == 0.0 {
            x = denoised;
            continue;
        }
        let place = |r| sigma_at(lerp(lambda(sigma), lambda(next), r));
        let full = SdeStep::new(sigma, next, eta);
        let (shape, growth) = (x.shape(), full.h * eta);
        let keep = |to| SdeStep::new(sigma, to, eta).keep;

        let moved = Value::combine(&[(keep(place(r1)), &x), (phi_1(r1 * full.h_eta), &denoised)]);
        let drawn = noise.decay(sampling, None, shape, r1 * growth)?;
        let second = sampling.predict(index, &with(moved, place(r1), &drawn), place(r1))?.denoised;

        let later = r2 / r1 * phi_2(r2 * full.h_eta);
        let here = phi_1(r2 * full.h_eta) - later;
        let moved = Value::combine(&[(keep(place(r2)), &x), (here, &denoised), (later, &second)]);
        let drawn = noise.decay(sampling, drawn, shape, (r2 - r1) * growth)?;
        let third = sampling.predict(index, &with(moved, place(r2), &drawn), place(r2))?.denoised;

        let later = phi_2(full.h_eta) / r2;
        let here = phi_1(full.h_eta) - later;
        let moved = Value::combine(&[(full.keep, &x), (here, &denoised), (later, &third)]);
        let drawn = noise.decay(sampling, drawn, shape, (1.0 - r2) * growth)?;
        x = with(moved, next, &drawn);
    }
    Ok(x)
}

/// `x` plus noise of deviation `sigma`, if there is any.
fn with(x: Value, sigma: f32, noise: &Option<Value>) -> Value {
    match noise {
        Some(noise) => super::step::plus(&x, sigma, noise),
        None => x,
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_model::order_of_convergence_with;
    use super::super::{SampleOptions, Sampler};

    #[test]
    fn orders_without_noise() {
        let options = SampleOptions { eta: 0.0, ..Default::default() };
        for (sampler, expected) in
            [(Sampler::Seeds2, 1.8..2.3), (Sampler::ExpHeun2X0, 1.8..2.3), (Sampler::Seeds3, 2.7..4.0)]
        {
            let order = order_of_convergence_with(sampler, &options);
            assert!(expected.contains(&order), "{sampler} {order}");
        }
    }
}
