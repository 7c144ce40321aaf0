//! The arithmetic that samplers' steps share.
//!
//! There are two coordinates: the noise level σ, and `λ = -ln σ`, half the logarithm of the signal-to-noise ratio
//! (Lu et al. 2022, arXiv 2206.00927), in which exponential integrators step.

use super::discrete::{exp, exp_m1, ln};
use crate::latent::Value;

/// The steps of a schedule: index, noise level, next noise level.
pub(super) fn steps(sigmas: &[f32]) -> impl Iterator<Item = (usize, f32, f32)> {
    sigmas.windows(2).enumerate().map(|(index, pair)| (index, pair[0], pair[1]))
}

/// The slope of the probability flow ODE, `d = (x - D) / σ`: the noise that the model predicts.
pub(super) fn slope(x: &Value, denoised: &Value, sigma: f32) -> Value {
    let share = 1.0 / f64::from(sigma);
    Value::combine(&[(share, x), (-share, denoised)])
}

/// `x + a·y`.
pub(super) fn plus(x: &Value, a: f32, y: &Value) -> Value {
    x.plus(a, y)
}

/// `y - x`.
pub(super) fn change(x: &Value, y: &Value) -> Value {
    y.minus(x)
}

/// Euler's step: `x + d·(σ' - σ)`.
pub(super) fn towards(x: &Value, denoised: &Value, sigma: f32, next: f32) -> Value {
    plus(x, next - sigma, &slope(x, denoised, sigma))
}

/// λ of a noise level; infinite for 0.
pub(super) fn lambda(sigma: f32) -> f32 {
    -ln(sigma)
}

/// The noise level at a λ.
pub(super) fn sigma(lambda: f32) -> f32 {
    exp(-lambda)
}

/// From `a` at 0 to `b` at 1, exact at both ends.
pub(super) fn lerp(a: f32, b: f32, weight: f32) -> f32 {
    if weight < 0.5 { a + weight * (b - a) } else { b - (b - a) * (1.0 - weight) }
}

/// The noise level to step down to, and the deviation of the noise to add: `(σ_down, σ_up)` with
/// `σ_up = min(σ', η √(σ'² (σ² - σ'²) / σ²))` and `σ_down = √(σ'² - σ_up²)`.
/// η = 0 adds no noise, η = 1 as much as the reverse Markov chain (Song et al. 2020, arXiv 2010.02502, eq. 16).
pub(super) fn ancestral_step(sigma: f32, next: f32, eta: f32) -> (f32, f32) {
    if eta == 0.0 {
        return (next, 0.0);
    }
    let (s2, n2) = (sigma * sigma, next * next);
    let up = next.min(eta * (n2 * (s2 - n2) / s2).sqrt());
    ((n2 - up * up).sqrt(), up)
}

/// The linear part of a step of the reverse SDE with noise η: the factor of x, and the deviation of the added noise.
/// η = 0 is the probability flow, η = 1 the reverse diffusion.
pub(super) struct SdeStep {
    /// The step's length in λ.
    pub h: f32,
    /// `h·(1 + η)`, the length over which predictions are integrated.
    pub h_eta: f32,
    /// The factor of x, `σ'/σ · e^{-hη}`.
    pub keep: f32,
    /// The deviation of the noise, `σ' √(1 - e^{-2hη})`.
    pub noise: f32,
}

impl SdeStep {
    pub(super) fn new(from: f32, to: f32, eta: f32) -> Self {
        let h = lambda(to) - lambda(from);
        Self {
            h,
            h_eta: h * (eta + 1.0),
            keep: to / from * exp(-h * eta),
            noise: to * (-exp_m1(-2.0 * h * eta)).sqrt(),
        }
    }
}

/// `1 - e^{-h} = h·φ₁(-h)`: the weight of a constant prediction over a step of length h in λ.
pub(super) fn phi_1(h: f32) -> f32 {
    -exp_m1(-h)
}

/// `1 - (1 - e^{-h})/h = h·φ₂(-h)`: the weight of a prediction that grows linearly from 0 to 1 over the step.
pub(super) fn phi_2(h: f32) -> f32 {
    exp_m1(-h) / h + 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ancestral_parts_make_up_the_next_sigma() {
        for (sigma, next) in [(14.6, 10.7), (3.0, 1.0), (1.0, 0.03), (0.03, 0.0)] {
            for eta in [0.0, 0.5, 1.0, 2.0] {
                let (down, up) = ancestral_step(sigma, next, eta);
                assert!((down.hypot(up) - next).abs() <= 1e-6 * next, "{sigma} {next} {eta}");
            }
        }
    }

    #[test]
    fn an_sde_step_keeps_the_variance() {
        // Pure noise of variance σ², whose prediction is 0, must become pure noise of variance σ'².
        for eta in [0.0, 0.5, 1.0] {
            let step = SdeStep::new(3.0, 2.0, eta);
            let variance = (step.keep * 3.0).powi(2) + step.noise.powi(2);
            assert!((variance - 4.0).abs() < 1e-5, "{eta} {variance}");
        }
    }
}
