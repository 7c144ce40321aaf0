//! The result of guidance for one noisy latent, with the values that led to it.

use super::Columns;
use super::term::Notes;
use crate::latent::{Latent, Value};
use crate::sampler::Predicted;

/// A noisy latent's prediction under guidance, with all that led to it. Latents are of the
/// input's shape.
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// GroupPrediction with the prompt.
    pub cond: Latent,
    /// GroupPrediction with the negative prompt, if it was evaluated.
    pub uncond: Option<Latent>,
    /// After classifier-free guidance.
    pub cfg: Latent,
    /// What SAG did, if it was active.
    pub sag: Option<SagEvaluation>,
    /// The predictions of those perturbed networks that were asked, in the order of the settings.
    pub perturbed: Vec<Latent>,
    /// What terms of one's own have noted, by name.
    pub own: Vec<(String, Latent)>,
    /// The result.
    pub result: Latent,
}

/// The inner values of a SAG step.
#[derive(Debug, Clone)]
pub struct SagEvaluation {
    /// Column sums, one for each picture and recorded entry, in canonical order of entries.
    pub columns: Vec<Columns>,
    /// 1 where the prediction is blurred, `[batch, height, width]`.
    pub mask: Vec<u8>,
    /// The prediction with the masked parts blurred.
    pub degraded: Latent,
    /// The same under the noise of the step: what the third row sees.
    pub input: Latent,
    /// The prediction for `input`.
    pub sag: Latent,
}

/// An [`Evaluation`] where it is held.
pub(crate) struct Evaluated {
    pub cond: Value,
    pub uncond: Option<Value>,
    pub cfg: Value,
    pub notes: Notes,
    pub result: Value,
}

impl From<Evaluated> for Predicted {
    /// What a sampler takes of an evaluation.
    fn from(evaluated: Evaluated) -> Self {
        Self { denoised: evaluated.result, uncond: evaluated.uncond }
    }
}
