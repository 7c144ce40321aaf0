//! From the network's output to the prediction of the picture.

use crate::model::Prediction;
use crate::sampler::Discrete;

/// The factors `(keep, take)` by which the picture is `keep · x - take · out` of the network's output:
/// eps: x - σ·out; v: x / (σ² + 1) - out · σ / √(σ² + 1); x₀: out; consistency: the prediction by
/// eps times t / √(t² + ¼) plus x times ¼ / (t² + ¼), where t is ten times the timestep.
pub(super) fn preconditioning(prediction: Prediction, discrete: &Discrete, sigma: f32) -> (f32, f32) {
    match prediction {
        Prediction::Eps => (1.0, sigma),
        Prediction::V | Prediction::ZeroSnrV => {
            (1.0 / (sigma * sigma + 1.0), sigma / (sigma * sigma + 1.0).sqrt())
        }
        Prediction::Picture => (0.0, -1.0),
        Prediction::Consistency => {
            let t = discrete.timestep(sigma) * 10.0;
            let (skip, by_eps) = (0.25 / (t * t + 0.25), t / (t * t + 0.25).sqrt());
            (by_eps + skip, by_eps * sigma)
        }
    }
}
