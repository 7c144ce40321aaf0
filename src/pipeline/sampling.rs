//! A sampling without text.

use super::settings::{Levels, Limits, Solver};
use crate::guidance::Guidance;
use crate::latent::{Latent, VaeLatent};

/// A sampling without text: what [`Model::sample`](super::Model::sample) and
/// [`DiffusionModel::run`](super::DiffusionModel::run) need besides conditioning. Start from [`Sampling::new`] and
/// change what you like.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Noise of variance 1, `[batch, channels, height, width]` in latent cells; zeros add none.
    pub noise: Latent,
    /// A latent to start from: one for all pictures, or one for each.
    pub latent: Option<VaeLatent>,
    /// Where `latent` is drawn over (1) and kept (0), `[1 or batch, 1, height, width]`.
    pub mask: Option<Latent>,
    /// What guides it.
    pub guidance: Guidance,
    /// Numerical method.
    pub solver: Solver,
    /// Seed of the noise that samplers add.
    pub seed: u64,
    /// Noise levels.
    pub levels: Levels,
    /// Memory and rows at a time.
    pub limits: Limits,
    /// Whether [`Sampled::denoised`](super::Sampled::denoised) is wanted, which is read from the device for that.
    pub denoised: bool,
    /// As [`Request::preview_every`](super::Request::preview_every).
    pub preview_every: usize,
    /// Whether [`Progress::Evaluated`](super::Progress::Evaluated) brings every evaluation with all its latents, which
    /// are read from the device for that: each step then waits for it.
    pub evaluations: bool,
}

impl Sampling {
    /// A sampling from `noise` with the settings of [`Request::new`](super::Request::new).
    pub fn new(noise: Latent) -> Self {
        Self {
            noise,
            latent: None,
            mask: None,
            guidance: Guidance::default(),
            solver: Solver::default(),
            seed: 0,
            levels: Levels::default(),
            limits: Limits::default(),
            denoised: false,
            preview_every: 0,
            evaluations: false,
        }
    }
}
