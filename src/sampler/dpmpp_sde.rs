//! DPM-Solver++ for the reverse SDE (Lu et al. 2022, arXiv 2211.01095, and k-diffusion), with the
//! noise of one Brownian path: with more steps the picture converges, as it does without noise.

use super::discrete::exp;
use super::sampler_run::SamplerRun;
use super::step::{SdeStep, ancestral_step, change, lambda, phi_1, phi_2, plus, sigma as sigma_at, steps};
use super::step_noise::PathNoise;
use crate::Result;
use crate::latent::Value;

/// The single-step solver: to the middle of the step with the prediction at its start, then all of the step with the
/// prediction at the middle, each with its noise.
pub(super) fn dpmpp_sde(sampling: &mut SamplerRun<'_>, mut x: Value, sigmas: &[f32]) -> Result<Value> {
    let eta = sampling.options.eta;
    let mut noise = PathNoise::new(sampling, sigmas, eta);
    for (index, sigma, next) in steps(sigmas) {
        let denoised = sampling.step(index, &mut x, sigma)?.denoised;
        if next == 0.0 {
            x = denoised;
            continue;
        }
        let mut go = |sampling: &mut SamplerRun<'_>, to: f32, denoised: &Value| {
            let (down, up) = ancestral_step(sigma, to, eta);
            let h = lambda(down) - lambda(sigma);
            let stepped = Value::combine(&[(exp(-h), &x), (phi_1(h), denoised)]);
            noise.add(sampling, &stepped, (sigma, to), up)
        };
        let middle = sigma_at(lambda(sigma) + 0.5 * (lambda(next) - lambda(sigma)));
        let halfway = go(sampling, middle, &denoised)?;
        let there = sampling.predict(index, &halfway, middle)?.denoised;
        x = go(sampling, next, &there)?;
    }
    Ok(x)
}

pub(super) fn dpmpp_2m_sde(sampling: &mut SamplerRun<'_>, x: Value, sigmas: &[f32]) -> Result<Value> {
    // The midpoint rule: the change since the last prediction has half the weight.
    multistep(sampling, x, sigmas, |step, past| {
        vec![(0.5 * phi_1(step.h_eta) / past[0].ratio(step), past[0].change.clone())]
    })
}

pub(super) fn dpmpp_2m_sde_heun(sampling: &mut SamplerRun<'_>, x: Value, sigmas: &[f32]) -> Result<Value> {
    multistep(sampling, x, sigmas, |step, past| vec![(slope_weight(step, past), past[0].change.clone())])
}

/// Third order: slope and curvature from the last three predictions.
pub(super) fn dpmpp_3m_sde(sampling: &mut SamplerRun<'_>, x: Value, sigmas: &[f32]) -> Result<Value> {
    multistep(sampling, x, sigmas, |step, past| {
        let [last, earlier, ..] = past else {
            return vec![(slope_weight(step, past), past[0].change.clone())];
        };
        let (r0, r1) = (last.ratio(step), earlier.ratio(step));
        let (near, far) = (last.change.scaled(1.0 / r0), earlier.change.scaled(1.0 / r1));
        let bend = change(&far, &near).scaled(1.0 / (r0 + r1));
        let (phi_2, phi_3) = (phi_2(step.h_eta), phi_2(step.h_eta) / step.h_eta - 0.5);
        vec![(phi_2, plus(&near, r0, &bend)), (-phi_3, bend)]
    })
}

/// The weight of the last change if it continues at the same rate.
fn slope_weight(step: &SdeStep, past: &[Past]) -> f32 {
    phi_2(step.h_eta) / past[0].ratio(step)
}

/// An earlier step.
struct Past {
    /// The change of the prediction over it.
    change: Value,
    /// Its length in λ.
    h: f32,
}

impl Past {
    fn ratio(&self, step: &SdeStep) -> f32 {
        self.h / step.h
    }
}

/// A multistep solver: a step with a constant prediction, and a `correction` from the steps before, newest first, two
/// at most.
fn multistep(
    sampling: &mut SamplerRun<'_>,
    mut x: Value,
    sigmas: &[f32],
    correction: impl Fn(&SdeStep, &[Past]) -> Vec<(f32, Value)>,
) -> Result<Value> {
    let eta = sampling.options.eta;
    let mut noise = PathNoise::new(sampling, sigmas, eta);
    let mut past: Vec<Past> = Vec::new();
    let mut before: Option<(Value, f32)> = None;
    for (index, sigma, next) in steps(sigmas) {
        let denoised = sampling.step(index, &mut x, sigma)?.denoised;
        if next == 0.0 {
            x = denoised;
            continue;
        }
        let step = SdeStep::new(sigma, next, eta);
        x = Value::combine(&[(step.keep, &x), (phi_1(step.h_eta), &denoised)]);
        if let Some((previous, h)) = before {
            past.insert(0, Past { change: change(&previous, &denoised), h });
            past.truncate(2);
            for (weight, term) in correction(&step, &past) {
                x = plus(&x, weight, &term);
            }
        }
        x = noise.add(sampling, &x, (sigma, next), step.noise)?;
        before = Some((denoised, step.h));
    }
    Ok(x)
}

#[cfg(test)]
mod tests {
    use super::super::test_model::{Gaussian, order_of_convergence_with, run};
    use super::super::{SampleOptions, Sampler};

    #[test]
    fn orders_without_noise() {
        let options = SampleOptions { eta: 0.0, ..Default::default() };
        for (sampler, expected) in [
            (Sampler::DpmppSde, 1.8..2.3),
            (Sampler::Dpmpp2mSde, 1.8..2.3),
            (Sampler::Dpmpp2mSdeHeun, 1.8..2.3),
            // Of third order, but for its first two steps.
            (Sampler::Dpmpp3mSde, 1.8..3.3),
        ] {
            let order = order_of_convergence_with(sampler, &options);
            assert!(expected.contains(&order), "{sampler} {order}");
        }
    }

    #[test]
    fn more_steps_follow_the_same_path() {
        let end = |steps: i32| {
            let sigma = |i| 14.0 * (0.05f32 / 14.0).powf(i as f32 / steps as f32);
            let sigmas: Vec<f32> = (0..=steps).map(sigma).collect();
            let options = SampleOptions { seed: 3, ..Default::default() };
            run(Sampler::Dpmpp2mSde, &mut Gaussian { variance: 1.0 }, &sigmas, &options, &mut |_| Ok(()))
        };
        let (few, many) = (end(40).unwrap(), end(120).unwrap());
        let pairs = few.data().iter().zip(many.data());
        let off = pairs.map(|(a, b)| (a - b).powi(2)).sum::<f32>() / few.data().len() as f32;
        assert!(off < 0.01, "{off}");
    }
}
