//! UniPC (Zhao et al. 2023, arXiv 2302.04867), third order, predicting the picture: each new
//! prediction first corrects the step that led to it.
//!
//! It works in the variance-preserving scale `x/√(1 + σ²)` and ends at σ = 0.001 instead of 0. The arithmetic is f32, as
//! in other programs: at such small sigmas `1 - α²` has few significant digits, and the result depends on them.

use std::collections::VecDeque;

use super::discrete::{exp, exp_m1, ln};
use super::quadrature::weights;
use super::sampler_run::SamplerRun;
use super::step::change;
use crate::Result;
use crate::latent::Value;

/// The function `B(h)`, which the method leaves open.
type Growth = fn(f32) -> f32;

/// The last noise level of a schedule that ends in 0.
const LAST: f32 = 0.001;

pub(super) fn uni_pc(sampling: &mut SamplerRun<'_>, x: Value, sigmas: &[f32]) -> Result<Value> {
    run(sampling, x, sigmas, |hh| hh)
}

/// With `B(h) = e^h - 1`.
pub(super) fn uni_pc_bh2(sampling: &mut SamplerRun<'_>, x: Value, sigmas: &[f32]) -> Result<Value> {
    run(sampling, x, sigmas, exp_m1)
}

fn run(sampling: &mut SamplerRun<'_>, x: Value, sigmas: &[f32], growth: Growth) -> Result<Value> {
    let levels: Vec<f32> = sigmas.iter().map(|&sigma| if sigma == 0.0 { LAST } else { sigma }).collect();
    let steps = levels.len() - 1;
    // A single step is of first order, from noise to picture. ComfyUI does not support it.
    let order = 3.min(steps.saturating_sub(1)).max(1);
    let mut x = x.scaled(1.0 / expansion(levels[0]));
    let mut predictions = VecDeque::new();
    let first = sampling.step(0, &mut x.scaled(expansion(levels[0])), levels[0])?.denoised;
    predictions.push_front((Level::at(levels[0]), first));
    for (index, &sigma) in levels.iter().enumerate().skip(1) {
        let step = UniPcStep {
            to: Level::at(sigma),
            order: order.min(index).min(steps + 1 - index),
            predictions: &predictions,
            growth,
        };
        let base = step.first_order(&x);
        x = step.predicted(&base);
        if index < steps {
            let denoised = sampling.step(index, &mut x.scaled(expansion(sigma)), sigma)?.denoised;
            x = sampling.store(&step.corrected(&base, &denoised))?;
            let to = step.to;
            predictions.push_front((to, denoised));
            predictions.truncate(order);
        }
    }
    Ok(x.scaled(1.0 / Level::at(levels[steps]).alpha))
}

/// The factor from the variance-preserving scale to that of samplers.
fn expansion(sigma: f32) -> f32 {
    (1.0 + sigma * sigma).sqrt()
}

/// A noise level in the variance-preserving scale, `α² + σ² = 1`.
#[derive(Clone, Copy)]
struct Level {
    alpha: f32,
    sigma: f32,
    lambda: f32,
}

impl Level {
    fn at(sigma: f32) -> Self {
        let log_alpha = 0.5 * ln(1.0 / (sigma * sigma + 1.0));
        let variance = 1.0 - exp(2.0 * log_alpha);
        Self { alpha: exp(log_alpha), sigma: variance.sqrt(), lambda: log_alpha - 0.5 * ln(variance) }
    }
}

/// A step from the noise level of the newest prediction.
struct UniPcStep<'a> {
    to: Level,
    order: usize,
    /// Newest first.
    predictions: &'a VecDeque<(Level, Value)>,
    growth: Growth,
}

impl UniPcStep<'_> {
    /// The step's length, negative because the method predicts the picture and not the noise.
    fn length(&self) -> f32 {
        -(self.to.lambda - self.predictions[0].0.lambda)
    }

    fn first_order(&self, x: &Value) -> Value {
        let (from, denoised) = &self.predictions[0];
        let take = self.to.alpha * exp_m1(self.length());
        Value::combine(&[(self.to.sigma / from.sigma, x), (-take, denoised)])
    }

    /// The positions of earlier predictions in λ, in units of this step from its start.
    fn places(&self) -> Vec<f32> {
        let start = self.predictions[0].0.lambda;
        let earlier = self.predictions.iter().take(self.order).skip(1);
        earlier.map(|(level, _)| (level.lambda - start) / -self.length()).collect()
    }

    /// The moments that the weights must have: `k!·h·φ_{k+1}(h) / B(h)` for k from 1.
    fn moments(&self) -> Vec<f64> {
        let hh = self.length();
        let mut phi = exp_m1(hh) / hh - 1.0;
        let mut factorial = 1.0;
        let mut moments = Vec::new();
        for k in 1..=self.order {
            moments.push(f64::from(phi * factorial / (self.growth)(hh)));
            factorial *= (k + 1) as f32;
            phi = phi / hh - 1.0 / factorial;
        }
        moments
    }

    fn predicted(&self, base: &Value) -> Value {
        let places = self.places();
        let weights = match places.len() {
            0 => return base.clone(),
            // Simpler than the solution of the system, and of the same order.
            1 => vec![0.5],
            n => weights(&doubles(&places), self.moments()[..n].to_vec()),
        };
        self.bend(base, &places, &weights, None)
    }

    fn corrected(&self, base: &Value, denoised: &Value) -> Value {
        let places = self.places();
        let with_end: Vec<f32> = places.iter().copied().chain([1.0]).collect();
        let weights = match places.len() {
            0 => vec![0.5],
            _ => weights(&doubles(&with_end), self.moments()),
        };
        self.bend(base, &with_end, &weights, Some(denoised))
    }

    /// Adds the weighted changes of the prediction, from the step's start to each place: the earlier
    /// ones and, if known, the one at its end.
    fn bend(&self, base: &Value, places: &[f32], weights: &[f64], end: Option<&Value>) -> Value {
        let (_, here) = &self.predictions[0];
        let earlier = self.predictions.iter().take(self.order).skip(1).map(|(_, denoised)| denoised);
        let changes: Vec<Value> = earlier
            .chain(end)
            .zip(places)
            .map(|(denoised, place)| change(here, denoised).scaled(1.0 / f64::from(*place)))
            .collect();
        let take = self.to.alpha * (self.growth)(self.length());
        let mut terms = vec![(1.0, base)];
        terms.extend(weights.iter().zip(&changes).map(|(&weight, change)| (-(take * weight as f32), change)));
        Value::combine(&terms)
    }
}

fn doubles(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| value.into()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Sampler;
    use super::super::test_model::order_of_convergence;

    #[test]
    fn uni_pc_is_of_second_order_at_least() {
        // Of third order and more, but for its first two steps.
        for sampler in [Sampler::UniPc, Sampler::UniPcBh2] {
            let order = order_of_convergence(sampler);
            assert!(order > 1.8, "{sampler} {order}");
        }
    }
}
