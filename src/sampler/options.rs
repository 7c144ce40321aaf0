//! The options of samplers.

use super::Discrete;
use crate::{Error, Result};

/// What samplers can be told; each takes what it knows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SampleOptions {
    /// The run's seed, for samplers that add noise.
    pub seed: u64,
    /// Share of new noise in ancestral and stochastic samplers: 0 none, 1 the usual.
    pub eta: f32,
    /// Factor on added noise; 1 is the usual.
    pub s_noise: f32,
    /// The noise levels, high and low, between which SA-Solver adds noise: usually those at 20 % and
    /// 80 % of the denoising, see [`Discrete::percent_to_sigma`].
    pub noise_window: (f32, f32),
}

impl Default for SampleOptions {
    fn default() -> Self {
        Self::of(&Discrete::stable_diffusion())
    }
}

impl SampleOptions {
    /// The usual for a model with the noise levels of `table`.
    pub fn of(table: &Discrete) -> Self {
        let noise_window = (table.percent_to_sigma(0.2), table.percent_to_sigma(0.8));
        Self { seed: 0, eta: 1.0, s_noise: 1.0, noise_window }
    }
}

impl SampleOptions {
    /// Checks the ranges.
    pub(super) fn check(&self) -> Result<()> {
        for (name, value) in [("eta", self.eta), ("s_noise", self.s_noise)] {
            if !(0.0..=f32::MAX).contains(&value) {
                return Err(Error::usage("a sampler option is out of range")
                    .at(name)
                    .expected("a finite number of at least 0")
                    .found(value.to_string()));
            }
        }
        Ok(())
    }
}
