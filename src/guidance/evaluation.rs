//! The result of guidance for one noisy latent, with the values that led to it.

use super::Columns;
use super::backend::Attention;
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
    /// The result of classifier-free guidance and [`Guidance::rescale`](super::Guidance::rescale), without the terms.
    pub cfg: Latent,
    /// The attention of the side with the prompt and of that with the negative prompt, where a term has requested it:
    /// one map per entry and picture, that of picture `p` and entry `e` at `e · batch + p`. The entries of a side are
    /// in an order that does not depend on theirs in the request.
    pub attention: [Option<Vec<Columns>>; 2],
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
    /// The attention that SAG used, as in [`Evaluation::attention`]: that of the negative prompt, or with
    /// [`Sag::cond_at_cfg_1`](super::Sag::cond_at_cfg_1) at a CFG scale of 1 of the prompt.
    pub columns: Vec<Columns>,
    /// 1 where the prediction is blurred, `[batch, height, width]` in latent cells: where the map, enlarged by nearest
    /// neighbour, is above [`Sag::threshold`](super::Sag::threshold). The maps of several entries are averaged by
    /// their weights.
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
    pub attention: [Option<Attention>; 2],
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
