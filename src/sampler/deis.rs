//! DEIS (Zhang and Chen 2022, arXiv 2204.13902), variant `tAB`: as in [`super::adams`], but the slope is a polynomial in
//! the time t of the variance-preserving diffusion with linear β, `σ² = exp(β_d t²/2 + β_0 t) - 1`.

use super::adams::{adams, lagrange};
use super::sampler_run::SamplerRun;
use crate::Result;
use crate::latent::Value;

const ORDER: usize = 3;

/// Points at which the integrals of a step are evaluated, as many as in other programs: both ends of the interval have
/// full weight in the sum, so the result depends on the number.
const POINTS: usize = 10_000;

/// The lowest and highest noise level, and the time of the lowest; that of the highest is 1.
const SIGMA_MIN: f32 = 0.002;
const SIGMA_MAX: f32 = 80.0;
const FIRST_TIME: f32 = 1e-3;

pub(super) fn deis(sampling: &mut SamplerRun<'_>, x: Value, sigmas: &[f32]) -> Result<Value> {
    let time = Time::new();
    let times: Vec<f64> = sigmas.iter().map(|&sigma| f64::from(time.of(sigma))).collect();
    adams(sampling, x, sigmas, ORDER, |index| {
        if index == 0 {
            return vec![sigmas[1] - sigmas[0]];
        }
        let nodes: Vec<f64> = times[..=index].iter().rev().take(ORDER).copied().collect();
        let (start, end) = (times[index], times[index + 1]);
        let spacing = (end - start) / (POINTS - 1) as f64;
        let mut sums = vec![0.0; nodes.len()];
        for t in (0..POINTS).map(|k| start + spacing * k as f64) {
            let rate = time.sigma_rate(t);
            for (j, sum) in sums.iter_mut().enumerate() {
                *sum += rate * lagrange(&nodes, j, t);
            }
        }
        sums.iter().map(|sum| (sum * (end - start) / POINTS as f64) as f32).collect()
    })
}

/// The relation between time and noise level.
struct Time {
    /// The growth of β from time 0 to 1.
    growth: f32,
    /// β at time 0.
    start: f32,
}

impl Time {
    /// All in f32: `0.002² + 1` loses a percent of 0.002² there, and the result depends on it.
    fn new() -> Self {
        let log = |sigma: f32| super::discrete::ln(sigma * sigma + 1.0);
        let growth = 2.0 * (log(SIGMA_MIN) / FIRST_TIME - log(SIGMA_MAX)) / (FIRST_TIME - 1.0);
        Self { growth, start: log(SIGMA_MAX) - 0.5 * growth }
    }

    fn of(&self, sigma: f32) -> f32 {
        let log = super::discrete::ln(sigma * sigma + 1.0);
        ((self.start * self.start + 2.0 * self.growth * log).sqrt() - self.start) / self.growth
    }

    /// `β(t)/2 / √(ᾱ(1 - ᾱ))`, which is dσ/dt, with `ᾱ = 1/(1 + σ²)`.
    fn sigma_rate(&self, t: f64) -> f64 {
        let (growth, start) = (f64::from(self.growth), f64::from(self.start));
        let alpha = (-0.5 * t * t * growth - t * start).exp();
        0.5 * (growth * t + start) / (alpha * (1.0 - alpha)).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Sampler;
    use super::super::test_model::order_of_convergence;
    use super::*;

    #[test]
    fn time_follows_the_noise() {
        let time = Time::new();
        assert!((time.of(SIGMA_MAX) - 1.0).abs() < 1e-5);
        assert!((time.of(SIGMA_MIN) - FIRST_TIME).abs() < 1e-4);
        let (below, above) = (f64::from(time.of(2.0)), f64::from(time.of(2.1)));
        let rate = time.sigma_rate((below + above) / 2.0);
        assert!((rate * (above - below) / 0.1 - 1.0).abs() < 1e-3, "{rate}");
    }

    #[test]
    fn deis_is_of_third_order() {
        let order = order_of_convergence(Sampler::Deis);
        assert!((2.0..4.0).contains(&order), "{order}");
    }
}
