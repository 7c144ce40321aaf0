//! From the network's output to the prediction of the picture.

use crate::model::Prediction;
use crate::sampler::Discrete;

/// The factors `(keep, take)` with which the denoised prediction is `keep · x - take · out`, where `out` is the output of
/// the network:
///
/// ```text
/// eps          x - σ·out                                       Ho et al. 2020, arXiv 2006.11239
/// v            x / (σ² + 1) - out · σ / √(σ² + 1)              Salimans and Ho 2022, arXiv 2202.00512
/// x₀           out
/// consistency  (x - σ·out) · t / √(t² + ¼) + x · ¼ / (t² + ¼)  Luo et al. 2023, arXiv 2310.04378; t = 10 · timestep
/// ```
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
