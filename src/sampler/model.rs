//! The model as samplers see it: it returns a prediction for a noisy latent.

use crate::latent::host::HostLatents;
use crate::latent::{Latent, Latents, Value};
use crate::{Error, Result};

/// The simplest model, with latents in host memory: see [`sample`](super::sample()). A model whose latents may be on a
/// device is a [`Predictor`].
pub trait Denoiser {
    /// The denoised prediction for the noisy latent `x = picture + σ·noise`, `[batch, channels, height, width]`.
    ///
    /// # Errors
    /// Any error of the model ends the run.
    fn denoise(&mut self, x: &Latent, sigma: f32) -> Result<Denoised>;

    /// Called before a run of a sampler that needs [`Denoised::uncond`] (CFG++): every prediction must then contain it,
    /// also where guidance does not need it.
    fn keep_uncond(&mut self) {}
}

/// What a [`Denoiser`] predicts.
#[derive(Debug, Clone)]
pub struct Denoised {
    /// The denoised prediction D after guidance, of the shape of the noisy latent.
    pub denoised: Latent,
    /// The prediction without the prompt, D_u, for samplers with CFG++.
    pub uncond: Option<Latent>,
}

/// A model whose latents may be on the host or on a device.
pub trait Predictor {
    /// The operations on its latents.
    fn latents(&mut self) -> &mut dyn Latents;

    /// The denoised prediction for the noisy latent `x = picture + σ·noise`, which is stored.
    ///
    /// # Errors
    /// Any error of the model ends the run.
    fn predict(&mut self, x: &Value, sigma: f32) -> Result<Predicted>;

    /// As [`Denoiser::keep_uncond`].
    fn keep_uncond(&mut self) {}

    /// How many evaluations may be submitted before the first of them is reported to the caller.
    #[doc(hidden)]
    fn ahead(&mut self) -> u64 {
        self.latents().ahead()
    }
}

/// What a [`Predictor`] predicts: as [`Denoised`].
#[derive(Debug, Clone)]
pub struct Predicted {
    /// The denoised prediction D after guidance, of the shape of the noisy latent.
    pub denoised: Value,
    /// The prediction without the prompt, D_u.
    pub uncond: Option<Value>,
}

impl Predicted {
    /// The prediction without the prompt, which CFG++ needs.
    pub(super) fn unprompted(&self) -> Result<&Value> {
        self.uncond.as_ref().ok_or_else(|| {
            Error::usage("the model gave no prediction without the prompt")
                .expected("one with every prediction: CFG++ samplers need it")
                .hint("at a CFG scale of 1 guidance may leave it out; choose another scale or sampler")
        })
    }
}

/// A [`Denoiser`] as a [`Predictor`].
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
