//! The noise that samplers add within a run.

use super::SampleOptions;
use super::discrete::{exp, exp_m1};
use super::noise::{AncestralNoise, BrownianNoise};
use super::sampler_run::SamplerRun;
use super::step::plus;
use crate::Result;
use crate::latent::Value;

/// Whether any noise is added.
fn is_on(options: &SampleOptions, eta: f32) -> bool {
    eta > 0.0 && options.s_noise > 0.0
}

/// New noise for every step, from the stream that belongs to the seed of the run.
pub(super) struct FreshNoise {
    /// None if the run adds no noise: then any seed is valid.
    stream: Option<AncestralNoise>,
    s_noise: f32,
}

impl FreshNoise {
    pub(super) fn new(sampling: &SamplerRun<'_>, eta: f32) -> Result<Self> {
        let options = sampling.options;
        let stream = is_on(options, eta).then(|| AncestralNoise::new(options.seed)).transpose()?;
        Ok(Self { stream, s_noise: options.s_noise })
    }

    /// `x` plus noise of this standard deviation.
    pub(super) fn add(&mut self, sampling: &mut SamplerRun<'_>, x: &Value, deviation: f32) -> Result<Value> {
        Ok(match &mut self.stream {
            Some(stream) => {
                let shape = x.shape();
                let drawn = sampling.latents().bring_with(shape, &mut || stream.draw(shape))?;
                x.plus(f64::from(self.s_noise) * f64::from(deviation), &drawn)
            }
            None => x.clone(),
        })
    }

    /// Noise that decays over a step, for methods that need it at points within the step: over a length `l`,
    /// `z ← e^{-l} z + √(1 - e^{-2l}) · new`.
    pub(super) fn decay(
        &mut self,
        sampling: &mut SamplerRun<'_>,
        noise: Option<Value>,
        shape: [usize; 4],
        length: f32,
    ) -> Result<Option<Value>> {
        let Some(stream) = &mut self.stream else { return Ok(None) };
        let (keep, fresh) = (exp(-length), (-exp_m1(-2.0 * length)).sqrt());
        let drawn =
            sampling.latents().bring_with(shape, &mut || stream.draw(shape))?.scaled(fresh * self.s_noise);
        Ok(Some(noise.map_or_else(|| drawn.clone(), |noise| plus(&drawn, keep, &noise))))
    }
}

/// Noise along one Brownian path over σ, which does not depend on the steps.
pub(super) struct PathNoise {
    /// Seed, and the lowest and highest noise level of the path; None if the run adds no noise.
    of: Option<(u64, f32, f32)>,
    /// Made when it is first used.
    path: Option<BrownianNoise>,
    s_noise: f32,
}

impl PathNoise {
    pub(super) fn new(sampling: &SamplerRun<'_>, sigmas: &[f32], eta: f32) -> Self {
        let options = sampling.options;
        let ends = sigmas.first().zip(sigmas.iter().rfind(|&&s| s > 0.0));
        let of = ends.filter(|_| is_on(options, eta)).map(|(&high, &low)| (options.seed, low, high));
        Self { of, path: None, s_noise: options.s_noise }
    }

    /// `x` plus the noise of the step from `sigma` to `next`, of this standard deviation.
    pub(super) fn add(
        &mut self,
        sampling: &mut SamplerRun<'_>,
        x: &Value,
        (sigma, next): (f32, f32),
        deviation: f32,
    ) -> Result<Value> {
        let (path, shape) = (&mut self.path, x.shape());
        Ok(match self.of {
            Some((seed, low, high)) => {
                let drawn = sampling.latents().bring_with(shape, &mut || {
                    path.get_or_insert_with(|| BrownianNoise::new(seed, shape, low, high))
                        .between(sigma, next)
                })?;
                x.plus(f64::from(self.s_noise) * f64::from(deviation), &drawn)
            }
            None => x.clone(),
        })
    }
}
