//! Sampling without text.

use super::settings::{Levels, Limits, Solver};
use crate::guidance::Guidance;
use crate::latent::{Latent, VaeLatent};

/// Settings of sampling without text: what [`Model::sample`](super::Model::sample) and
/// [`DiffusionModel::run`](super::DiffusionModel::run) need besides conditioning. Start from [`Sampling::new`] and
/// change its fields.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Noise of variance 1, `[batch, channels, height, width]` in latent cells; zeros add none.
    pub noise: Latent,
    /// A latent to start from: one for all pictures, or one for each.
    pub latent: Option<VaeLatent>,
    /// Where `latent` is redrawn (1) and kept (0), `[1 or batch, 1, height, width]`.
    pub mask: Option<Latent>,
    /// Guidance.
    pub guidance: Guidance,
    /// Numerical method.
    pub solver: Solver,
    /// Seed of the noise that samplers add.
    pub seed: u64,
    /// Noise levels.
    pub levels: Levels,
    /// Limits of memory and of rows per call.
    pub limits: Limits,
    /// Whether [`Sampled::denoised`](super::Sampled::denoised) is read from the device.
    pub denoised: bool,
    /// As [`Request::preview_every`](super::Request::preview_every).
    pub preview_every: usize,
    /// Whether every evaluation is reported with all its latents, in [`Progress::Evaluated`](super::Progress::Evaluated).
    /// They are read from the device, so each step waits for it.
    pub evaluations: bool,
}

impl Sampling {
    /// Sampling from `noise` with the settings of [`Request::new`](super::Request::new).
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
