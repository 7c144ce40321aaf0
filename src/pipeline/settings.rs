//! Groups of settings that requests and runs share: sampler, noise levels and limits. Guidance is in
//! [`Guidance`](crate::guidance::Guidance).

use std::borrow::Cow;

use crate::plan::chunk::ChunkPolicy;
use crate::sampler::{Discrete, SampleOptions, Sampler, Scheduler};
use crate::{Error, Result};

/// The sampler with its noise settings. The default is euler.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
pub struct Solver {
    /// The sampler.
    pub sampler: Sampler,
    /// Amount of new noise in ancestral and stochastic samplers, 0 to 100: 0 adds none, 1 is the default.
    pub eta: f32,
    /// Factor on the noise that samplers add, 0 to 100; 1 is the default.
    pub s_noise: f32,
}

impl Default for Solver {
    fn default() -> Self {
        Self { sampler: Sampler::Euler, eta: 1.0, s_noise: 1.0 }
    }
}

impl From<Sampler> for Solver {
    /// With default noise.
    fn from(sampler: Sampler) -> Self {
        Self { sampler, ..Self::default() }
    }
}

impl Solver {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage), naming the setting and its range.
    pub fn check(&self) -> Result<()> {
        for (name, value) in [("eta", self.eta), ("noise factor", self.s_noise)] {
            if !(0.0..=100.0).contains(&value) {
                return Err(Error::usage(format!("the {name} is outside its range"))
                    .expected("0 to 100")
                    .found(value.to_string()));
            }
        }
        Ok(())
    }

    /// The sampler's options, for a model with the noise levels of `table`. `seed` is that of the noise it adds.
    pub fn options(&self, seed: u64, table: &Discrete) -> SampleOptions {
        SampleOptions { seed, eta: self.eta, s_noise: self.s_noise, ..SampleOptions::of(table) }
    }
}

/// The noise levels of a sampling, by a scheduler. The default is 20 steps of the normal one with denoise 1.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
pub struct Schedule {
    /// The scheduler.
    pub scheduler: Scheduler,
    /// Number of steps, 1 to 10000.
    pub steps: usize,
    /// Denoising strength, 0 to 1; below 1 the result keeps parts of the start. All [`steps`](Self::steps) are run;
    /// they are the last ones of a schedule of `steps / denoise`. 0 runs no steps.
    pub denoise: f64,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { scheduler: Scheduler::Normal, steps: 20, denoise: 1.0 }
    }
}

impl Schedule {
    /// So many steps with denoise 1.
    pub fn new(scheduler: Scheduler, steps: usize) -> Self {
        Self { scheduler, steps, ..Self::default() }
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage), naming the setting and its range.
    pub fn check(&self) -> Result<()> {
        check_number("steps", self.steps, 10_000)?;
        if !(0.0..=1.0).contains(&self.denoise) {
            return Err(Error::usage("the denoise strength is outside its range")
                .expected("0 to 1")
                .found(self.denoise.to_string()));
        }
        Ok(())
    }

    /// The levels for a model with those of `table`, largest first, as `sampler` needs them.
    ///
    /// # Errors
    /// As [`Scheduler::sigmas`].
    pub fn sigmas(&self, table: &Discrete, sampler: Sampler) -> Result<Vec<f32>> {
        self.scheduler.sigmas(table, self.steps, self.denoise, sampler.discard_penultimate())
    }
}

/// The noise levels of a [`Sampling`](super::Sampling).
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Levels {
    /// Those of a schedule, for the given model.
    Scheduled(Schedule),
    /// These, largest first. An empty list runs no steps and returns the latent.
    Given(Vec<f32>),
}

impl Default for Levels {
    fn default() -> Self {
        Self::Scheduled(Schedule::default())
    }
}

impl From<Schedule> for Levels {
    fn from(schedule: Schedule) -> Self {
        Self::Scheduled(schedule)
    }
}

impl From<Vec<f32>> for Levels {
    fn from(sigmas: Vec<f32>) -> Self {
        Self::Given(sigmas)
    }
}

impl Levels {
    /// The levels for a model with those of `table`, as `sampler` needs them.
    ///
    /// # Errors
    /// As [`Scheduler::sigmas`].
    pub fn sigmas(&self, table: &Discrete, sampler: Sampler) -> Result<Cow<'_, [f32]>> {
        match self {
            Self::Scheduled(schedule) => Ok(schedule.sigmas(table, sampler)?.into()),
            Self::Given(sigmas) => Ok(sigmas.as_slice().into()),
        }
    }
}

/// Limits of the work; none by default. Pictures do not depend on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
pub struct Limits {
    /// Rows per network call.
    pub chunk: ChunkPolicy,
    /// Device memory for weights and activations, bytes.
    pub memory: Option<u64>,
}

/// Checks that the number of `name` is from 1 to `most`.
pub(super) fn check_number(name: &str, value: usize, most: usize) -> Result<()> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    Err(Error::usage(format!("the number of {name} is outside its range"))
        .expected(format!("1 to {most}"))
        .found(value.to_string()))
}
