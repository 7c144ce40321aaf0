//! The options of samplers.

use super::Discrete;
use crate::{Error, Result};

/// Options of samplers; each sampler ignores those that do not concern it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SampleOptions {
    /// The seed of the run, for samplers that add noise.
    pub seed: u64,
    /// η, the share of new noise in ancestral and stochastic samplers: 0 adds none, 1 is the default.
    pub eta: f32,
    /// A factor on the added noise; 1 is the default.
    pub s_noise: f32,
    /// The noise levels σ, high and low, between which SA-Solver adds noise: by default those at 20 % and 80 % of the
    /// sampling, see [`Discrete::percent_to_sigma`].
    pub noise_window: (f32, f32),
}

impl Default for SampleOptions {
    fn default() -> Self {
        Self::of(&Discrete::stable_diffusion())
    }
}

impl SampleOptions {
    /// The defaults for a model with the noise levels of `table`.
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
