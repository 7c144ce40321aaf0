//! SA-Solver (Xue et al. 2023, arXiv 2309.05019): a stochastic Adams method, predictor of third and
//! corrector of fourth order. The noise τ is η between two noise levels and 0 outside of them.

use std::collections::VecDeque;

use super::quadrature::weights;
use super::sampler_run::SamplerRun;
use super::step::{SdeStep, lambda, plus, steps};
use super::step_noise::FreshNoise;
use crate::Result;
use crate::latent::Value;

const PREDICTOR: usize = 3;
const CORRECTOR: usize = 4;

pub(super) fn sa_solver(sampling: &mut SamplerRun<'_>, x: Value, sigmas: &[f32]) -> Result<Value> {
    run(sampling, x, sigmas, false)
}

/// Predict, evaluate, correct, evaluate: evaluates the model again after each correction.
pub(super) fn sa_solver_pece(sampling: &mut SamplerRun<'_>, x: Value, sigmas: &[f32]) -> Result<Value> {
    run(sampling, x, sigmas, true)
}

/// The linear part of a step, its τ² and its noise: the corrector repeats the step with the same noise and one more
/// prediction.
struct Taken {
    linear: SdeStep,
    tau_squared: f32,
    noise: Option<Value>,
}

impl Taken {
    /// From `x` with the predictions at `nodes`, newest first.
    fn step(&self, x: &Value, nodes: &[f32], end: f32, predictions: &VecDeque<Value>) -> Value {
        let weights = adams_weights(nodes, end - self.linear.h, end, self.tau_squared);
        let mut terms = vec![(self.linear.keep, x)];
        terms.extend(weights.into_iter().zip(predictions));
        let stepped = Value::combine(&terms);
        self.noise.as_ref().map_or(stepped.clone(), |noise| plus(&stepped, 1.0, noise))
    }
}

fn run(sampling: &mut SamplerRun<'_>, x: Value, sigmas: &[f32], pece: bool) -> Result<Value> {
    let (eta, (high, low)) = (sampling.options.eta, sampling.options.noise_window);
    let mut noise = FreshNoise::new(sampling, eta)?;
    let lambdas: Vec<f32> = sigmas.iter().map(|&sigma| lambda(sigma)).collect();
    // The λ of the last `order` predictions up to `index`, newest first.
    let nodes = |index: usize, order: usize| -> Vec<f32> {
        lambdas[..=index].iter().rev().take(order).copied().collect()
    };
    let to_zero = sigmas.last() == Some(&0.0);
    let (mut x, mut predicted) = (x.clone(), x);
    let mut predictions = VecDeque::new();
    let mut taken: Option<Taken> = None;
    for (index, sigma, next) in steps(sigmas) {
        let mut denoised = sampling.step(index, &mut predicted, sigma)?.denoised;
        predictions.push_front(denoised.clone());
        predictions.truncate(CORRECTOR);
        // Near 0 the order is lowered for stability: the last predictor step is of first order.
        let left = if to_zero { sigmas.len() - 2 - index } else { usize::MAX - 1 };

        x = match taken.take().filter(|_| next > 0.0 || pece) {
            Some(taken) => {
                let order = CORRECTOR.min(predictions.len()).min(left + 1);
                let corrected = taken.step(&x, &nodes(index, order), lambdas[index], &predictions);
                let corrected = sampling.store(&corrected)?;
                if pece {
                    denoised = sampling.predict(index, &corrected, sigma)?.denoised;
                    predictions[0] = denoised.clone();
                }
                corrected
            }
            None => predicted,
        };
        if next == 0.0 {
            return Ok(denoised);
        }
        let tau = if high >= next && next > low { eta } else { 0.0 };
        let linear = SdeStep::new(sigma, next, tau * tau);
        let drawn = match tau > 0.0 {
            true => Some(noise.add(sampling, &x.scaled(0.0), linear.noise)?),
            false => None,
        };
        let step = Taken { linear, tau_squared: tau * tau, noise: drawn };
        let order = PREDICTOR.min(predictions.len()).min(left);
        predicted = step.step(&x, &nodes(index, order), lambdas[index + 1], &predictions);
        taken = Some(step);
    }
    Ok(predicted)
}

/// The weights of predictions at `nodes` over a step in λ: the integral of the polynomial through
/// them under `m e^{m(λ - end)}` with `m = 1 + τ²`, whose moments follow from one another by parts.
fn adams_weights(nodes: &[f32], start: f32, end: f32, tau_squared: f32) -> Vec<f32> {
    let (start, end, m) = (f64::from(start), f64::from(end), 1.0 + f64::from(tau_squared));
    let decayed = (-m * (end - start)).exp();
    let mut moments = Vec::new();
    for p in 0..nodes.len() as i32 {
        let below = moments.last().map_or(0.0, |below| f64::from(p) / m * below);
        moments.push(end.powi(p) - start.powi(p) * decayed - below);
    }
    let nodes: Vec<f64> = nodes.iter().map(|&node| node.into()).collect();
    weights(&nodes, moments).into_iter().map(|weight| weight as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::super::test_model::order_of_convergence_with;
    use super::super::{SampleOptions, Sampler};
    use super::*;

    #[test]
    fn the_weights_sum_to_that_of_a_constant_prediction() {
        for tau_squared in [0.0, 1.0] {
            let sum: f32 = adams_weights(&[1.0, 0.4, -0.3], 1.0, 1.5, tau_squared).iter().sum();
            let expected = 1.0 - (-0.5 * (1.0 + tau_squared)).exp();
            assert!((sum - expected).abs() < 1e-5, "{sum} {expected}");
        }
    }

    #[test]
    fn sa_solver_is_of_high_order_without_noise() {
        let options = SampleOptions { eta: 0.0, ..Default::default() };
        let order = order_of_convergence_with(Sampler::SaSolver, &options);
        assert!(order > 2.5, "{order}");
    }
}
