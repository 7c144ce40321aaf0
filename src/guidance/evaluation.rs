//! The result of guidance for one noisy latent, with the values that led to it.

use super::Columns;
use super::term::Notes;
use crate::latent::{Latent, Value};
use crate::sampler::Predicted;

/// The guided prediction for a noisy latent, with all values that led to it. All latents have the shape of the
/// input.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Evaluation {
    /// The prediction with the prompt, D_c.
    pub cond: Latent,
    /// The prediction with the negative prompt, D_u, if it was evaluated.
    pub uncond: Option<Latent>,
    /// The result of classifier-free guidance.
    pub cfg: Latent,
    /// The inner values of SAG, if it was active.
    pub sag: Option<SagEvaluation>,
    /// The predictions of the perturbed networks that were evaluated, in the order of the settings.
    pub perturbed: Vec<Latent>,
    /// What custom terms have noted, by name.
    pub own: Vec<(String, Latent)>,
    /// The guided prediction.
    pub result: Latent,
}

/// The inner values of a SAG step.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SagEvaluation {
    /// Column sums, entry by entry in canonical order, and within an entry image by image.
    pub columns: Vec<Columns>,
    /// 1 where the prediction is blurred, `[batch, height, width]`.
    pub mask: Vec<u8>,
    /// The prediction with the masked parts blurred.
    pub degraded: Latent,
    /// The same under the noise of the step: the input of the additional row.
    pub input: Latent,
    /// The prediction for `input`, S.
    pub sag: Latent,
}

/// An [`Evaluation`] whose latents are still where they were computed.
pub(crate) struct Evaluated {
    pub cond: Value,
    pub uncond: Option<Value>,
    pub cfg: Value,
    pub notes: Notes,
    pub result: Value,
}

impl From<Evaluated> for Predicted {
    /// The part of an evaluation that a sampler needs.
    fn from(evaluated: Evaluated) -> Self {
        Self { denoised: evaluated.result, uncond: evaluated.uncond }
    }
}
