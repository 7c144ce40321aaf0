//! Adams-Bashforth methods: `x' = x + Σ c_j·d_j` over the slopes of the last few steps. The methods differ in their
//! weights: in what they assume to be a polynomial, and in which variable.

use std::collections::VecDeque;

use super::sampler_run::SamplerRun;
use super::step::{slope, steps};
use crate::Result;
use crate::latent::Value;

/// Runs with `weights(index)`: one for the slope of this step and of each step before, newest first, at most `order`.
/// The result of the step to 0 is the prediction.
pub(super) fn adams(
    sampling: &mut SamplerRun<'_>,
    mut x: Value,
    sigmas: &[f32],
    order: usize,
    weights: impl Fn(usize) -> Vec<f32>,
) -> Result<Value> {
    let mut slopes = VecDeque::new();
    for (index, sigma, next) in steps(sigmas) {
        let denoised = sampling.step(index, &mut x, sigma)?.denoised;
        if next == 0.0 {
            x = denoised;
        } else {
            slopes.push_front(slope(&x, &denoised, sigma));
            slopes.truncate(order);
            let weights = weights(index);
            let terms: Vec<_> = weights.into_iter().zip(&slopes).collect();
            x = x.plus(1.0, &Value::combine(&terms));
        }
    }
    Ok(x)
}

/// LMS (k-diffusion's `sample_lms`): the slope as a function of σ is the polynomial through the last four slopes.
pub(super) fn lms(sampling: &mut SamplerRun<'_>, x: Value, sigmas: &[f32]) -> Result<Value> {
    adams(sampling, x, sigmas, 4, |index| {
        let nodes = last(sigmas, index, 4);
        let (start, end) = (f64::from(sigmas[index]), f64::from(sigmas[index + 1]));
        // Gauss-Legendre quadrature with two points is exact for cubics.
        let (middle, half) = ((start + end) / 2.0, (end - start) / 2.0);
        let off = half / 3f64.sqrt();
        let integral = |j| half * (lagrange(&nodes, j, middle - off) + lagrange(&nodes, j, middle + off));
        (0..nodes.len()).map(|j| integral(j) as f32).collect()
    })
}

/// The weights for steps of equal length.
const EQUAL_STEPS: [&[f64]; 4] = [
    &[1.0],
    &[3.0 / 2.0, -1.0 / 2.0],
    &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
    &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
];

/// iPNDM (Zhang and Chen 2022, arXiv 2204.13902): the weights for equal steps, for steps of any length.
pub(super) fn ipndm(sampling: &mut SamplerRun<'_>, x: Value, sigmas: &[f32]) -> Result<Value> {
    adams(sampling, x, sigmas, 4, |index| {
        let length = sigmas[index + 1] - sigmas[index];
        EQUAL_STEPS[index.min(3)].iter().map(|&weight| length * weight as f32).collect()
    })
}

/// iPNDM for steps of different length, with the weights of the diff-sampler toolbox. From the third order on they
/// differ from Adams-Bashforth: a bracket in [`third_difference`] is in another place. Pictures depend on it, so it is
/// kept.
pub(super) fn ipndm_v(sampling: &mut SamplerRun<'_>, x: Value, sigmas: &[f32]) -> Result<Value> {
    adams(sampling, x, sigmas, 4, |index| {
        // The lengths of this step and of the steps before, newest first.
        let lengths: Vec<f32> =
            (0..=index.min(3)).map(|k| sigmas[index - k + 1] - sigmas[index - k]).collect();
        let weights = match lengths[..] {
            [h, h1, h2, h3] => fourth_order(h, h1, h2, h3),
            [h, h1, h2] => third_order(h, h1, h2),
            [h, h1] => second_order(h, h1),
            _ => vec![1.0],
        };
        weights.into_iter().map(|weight| lengths[0] * weight).collect()
    })
}

fn second_order(h: f32, h1: f32) -> Vec<f32> {
    vec![(2.0 + h / h1) / 2.0, -(h / h1) / 2.0]
}

fn third_order(h: f32, h1: f32, h2: f32) -> Vec<f32> {
    let base = second_order(h, h1);
    let a = third_difference(h, h1, h2);
    vec![base[0] + a, base[1] - (1.0 + h1 / h2) * a, a * h1 / h2]
}

/// What the third slope adds to the weight of the newest one.
fn third_difference(h: f32, h1: f32, h2: f32) -> f32 {
    (1.0 - h / (3.0 * (h + h1)) * (h * (h + h1)) / (h1 * (h1 + h2))) / 2.0
}

fn fourth_order(h: f32, h1: f32, h2: f32, h3: f32) -> Vec<f32> {
    let base = third_order(h, h1, h2);
    let span = h + h1;
    // What the fourth slope adds to the weight of the newest one.
    let b = ((1.0 - h / (3.0 * span)) / 2.0 + (1.0 - h / (2.0 * span)) * h / (6.0 * (span + h2)))
        * (h * span * (span + h2))
        / (h1 * (h1 + h2) * (h1 + h2 + h3));
    let near = h1 / h2;
    let far = h1 * (h1 + h2) / (h2 * (h2 + h3));
    vec![
        base[0] + b,
        base[1] - (1.0 + near + far) * b,
        base[2] + (near + far * (1.0 + h2 / h3)) * b,
        -b * far * near,
    ]
}

/// The sigmas of step `index` and of the steps before, newest first, at most `count`.
fn last(sigmas: &[f32], index: usize, count: usize) -> Vec<f64> {
    sigmas[..=index].iter().rev().take(count).map(|&s| f64::from(s)).collect()
}

/// The polynomial that is 1 at node `j` and 0 at the others, at `t`.
pub(super) fn lagrange(nodes: &[f64], j: usize, t: f64) -> f64 {
    let others = nodes.iter().enumerate().filter(|&(k, _)| k != j);
    others.map(|(_, &node)| (t - node) / (nodes[j] - node)).product()
}

#[cfg(test)]
mod tests {
    use super::super::Sampler;
    use super::super::test_model::order_of_convergence;

    #[test]
    fn orders() {
        for (sampler, expected) in [(Sampler::Lms, 3.0..5.0), (Sampler::Ipndm, 0.8..2.5)] {
            let order = order_of_convergence(sampler);
            assert!(expected.contains(&order), "{sampler} {order}");
        }
    }
}
