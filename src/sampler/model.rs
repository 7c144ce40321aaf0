//! What samplers see of a model: a prediction for a noisy latent.

use crate::latent::host::HostLatents;
use crate::latent::{Latent, Latents, Value};
use crate::{Error, Result};

/// A model on the host, as simple as can be: see [`sample`](super::sample()). Those whose latents may be on a device are
/// [`Predictor`]s.
pub trait Denoiser {
    /// The prediction for the noisy latent `x = picture + σ·noise`, one for each picture of the
    /// batch.
    ///
    /// # Errors
    /// Whatever stops the model; the run ends with it.
    fn denoise(&mut self, x: &Latent, sigma: f32) -> Result<Denoised>;

    /// Told before a run whose sampler steers by [`Denoised::uncond`]: it must come with every
    /// prediction then, also where guidance has no use for it.
    fn keep_uncond(&mut self) {}
}

/// What a [`Denoiser`] predicts.
#[derive(Debug, Clone)]
pub struct Denoised {
    /// The picture under the noise, after guidance; of the noisy latent's shape.
    pub denoised: Latent,
    /// The prediction without the prompt, for samplers that steer by it (CFG++).
    pub uncond: Option<Latent>,
}

/// What a sampler asks of a model, wherever its latents are.
pub trait Predictor {
    /// The operations on its latents.
    fn latents(&mut self) -> &mut dyn Latents;

    /// The prediction for the noisy latent `x = picture + σ·noise`, which is stored.
    ///
    /// # Errors
    /// Whatever stops the model; the run ends with it.
    fn predict(&mut self, x: &Value, sigma: f32) -> Result<Predicted>;

    /// As [`Denoiser::keep_uncond`].
    fn keep_uncond(&mut self) {}

    /// Evaluations that may be under way before the first of them is told of.
    fn ahead(&mut self) -> u64 {
        self.latents().ahead()
    }
}

/// What a [`Predictor`] predicts: as [`Denoised`].
#[derive(Debug, Clone)]
pub struct Predicted {
    /// The picture under the noise, after guidance; of the noisy latent's shape.
    pub denoised: Value,
    /// The prediction without the prompt.
    pub uncond: Option<Value>,
}

impl Predicted {
    /// The prediction without the prompt, which CFG++ cannot do without.
    pub(super) fn unprompted(&self) -> Result<&Value> {
        self.uncond.as_ref().ok_or_else(|| {
            Error::usage("the model gave no prediction without the prompt")
                .expected("one with every prediction: CFG++ samplers steer by it")
                .hint("at a CFG scale of 1 guidance may leave it out; choose another scale or sampler")
        })
    }
}

/// A [`Denoiser`] as samplers want it.
pub(super) struct OnHost<'a> {
    pub model: &'a mut dyn Denoiser,
    pub latents: HostLatents,
}

impl Predictor for OnHost<'_> {
    fn latents(&mut self) -> &mut dyn Latents {
        &mut self.latents
    }

    fn predict(&mut self, x: &Value, sigma: f32) -> Result<Predicted> {
        let out = self.model.denoise(&self.latents.form(x)?, sigma)?;
        for latent in [Some(&out.denoised), out.uncond.as_ref()].into_iter().flatten() {
            self.latents.watch(latent);
        }
        let denoised = self.latents.put(out.denoised);
        Ok(Predicted { denoised, uncond: out.uncond.map(|u| self.latents.put(u)) })
    }

    fn keep_uncond(&mut self) {
        self.model.keep_uncond();
    }
}

/// Checks that two shapes are the same.
pub(super) fn same_shape(what: &str, expected: [usize; 4], found: [usize; 4]) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(Error::usage(what).expected(format!("the shape {expected:?}")).found(format!("{found:?}")))
}
