//! Activation functions as shaders number them, with a reference in f64.

use crate::graph::Activation;

/// The number that `shaders/helpers/activation.wgsl` knows `f` by.
pub fn activation_code(f: Option<Activation>) -> u32 {
    match f {
        None => 0,
        Some(Activation::Silu) => 1,
        Some(Activation::Gelu) => 2,
        Some(Activation::QuickGelu) => 3,
    }
}

/// `f(x)` in f64.
pub fn activation_reference(f: Option<Activation>, x: f64) -> f64 {
    match f {
        None => x,
        Some(Activation::Silu) => x / (1.0 + (-x).exp()),
        Some(Activation::Gelu) => 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        Some(Activation::QuickGelu) => x / (1.0 + (-1.702 * x).exp()),
    }
}

/// erf in f64 by its series 2/√π · e^(-x²) · Σ 2ⁿ x^(2n+1) / (2n+1)!!, all terms of one sign.
fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum, mut n) = (x, x, 1.0);
    while term.abs() > 1e-18 * sum.abs() {
        n += 2.0;
        term *= 2.0 * x * x / n;
        sum += term;
    }
    std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
}
