//! Inpainting with a latent mask: a part of the latent is drawn, the rest is kept as it was at the start.
//!
//! Samplers do not know of it: they see a model whose predictions always contain the kept part.

use super::model::same_shape;
use super::noise::AncestralNoise;
use super::{Predicted, Predictor, Sampler};
use crate::latent::value::CellMask;
use crate::latent::{Latent, Latents, Value};
use crate::{Error, Result};

/// A model for inpainting: it wraps another model, and blends the start into its input and its prediction. As in
/// ComfyUI, at each evaluation with the mask m (1 is drawn, 0 is kept, values between are a mixture):
///
/// ```text
/// x ← m·x + (1 - m)·(start + σ·noise)    the input of the model and of guidance
/// D ← m·D + (1 - m)·start                the prediction that the sampler gets
/// ```
///
/// The result of the last step of most samplers is D, so the kept part is unchanged. Samplers that end at a sigma above
/// 0 leave that much noise on it.
pub struct Inpaint<'a> {
    model: &'a mut dyn Predictor,
    mask: CellMask,
    start: Value,
    noise: Value,
}

impl<'a> Inpaint<'a> {
    /// Draws with `model` where `mask`, `[1 or batch, 1, height, width]`, is not 0. `start` and
    /// `noise` are those that the run starts from, of the same shape, in its scale.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if the shapes do not fit, or a weight is not in
    /// 0..=1; an error of the device.
    pub fn new(model: &'a mut dyn Predictor, mask: &Latent, start: &Latent, noise: &Latent) -> Result<Self> {
        same_shape("the noise does not fit the latent", start.shape(), noise.shape())?;
        check(mask, start)?;
        let latents = model.latents();
        let mask = latents.bring_mask(mask)?;
        let (start, noise) = (latents.bring(start)?, latents.bring(noise)?);
        Ok(Self { model, mask, start, noise })
    }
}

impl<'a> Inpaint<'a> {
    /// For a forecast of memory and work: a mask and latents without values.
    pub(crate) fn rehearsed(model: &'a mut dyn Predictor, shape: [usize; 4]) -> Result<Self> {
        let [_, _, height, width] = shape;
        let latents = model.latents();
        let mask =
            latents.bring_mask_with([1, 1, height, width], &mut || Latent::zeros(1, 1, height, width))?;
        let zeros = Value::zero(shape);
        let (start, noise) = (latents.store(&zeros)?, latents.store(&zeros)?);
        Ok(Self { model, mask, start, noise })
    }
}

impl Predictor for Inpaint<'_> {
    fn latents(&mut self) -> &mut dyn Latents {
        self.model.latents()
    }

    fn predict(&mut self, x: &Value, sigma: f32) -> Result<Predicted> {
        same_shape("the noisy latent does not fit the start", self.start.shape(), x.shape())?;
        let kept = self.start.plus(sigma, &self.noise);
        let x = self.model.latents().blend(&self.mask, x, &kept)?;
        let seen = self.model.predict(&x, sigma)?;
        same_shape("a prediction does not fit the noisy latent", x.shape(), seen.denoised.shape())?;
        // CFG++ uses the prediction without the blend, as in ComfyUI.
        let denoised = self.model.latents().blend(&self.mask, &seen.denoised, &self.start)?;
        Ok(Predicted { denoised, uncond: seen.uncond })
    }

    fn keep_uncond(&mut self) {
        self.model.keep_uncond();
    }

    fn ahead(&mut self) -> u64 {
        self.model.ahead()
    }
}

impl Sampler {
    /// The noise that is added to the kept part. For DDIM it is new noise with the seed `seed + 1`, as in ComfyUI; for
    /// all others it is the noise of the start.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if `seed + 1` overflows, for DDIM.
    #[doc(hidden)]
    pub fn inpaint_noise(self, start: &Latent, seed: u64) -> Result<Latent> {
        if self == Sampler::Ddim {
            return Ok(AncestralNoise::new(seed)?.draw(start.shape()));
        }
        Ok(start.clone())
    }
}

/// Checks that `mask` has a weight for each cell of `x`.
fn check(mask: &Latent, x: &Latent) -> Result<()> {
    let [batch, _, height, width] = x.shape();
    let [masks, one, mask_height, mask_width] = mask.shape();
    let fits = (masks == 1 || masks == batch) && one == 1 && (mask_height, mask_width) == (height, width);
    if !fits {
        return Err(Error::usage("the mask does not fit the latent")
            .expected(format!("[1 or {batch}, 1, {height}, {width}]"))
            .found(format!("{:?}", mask.shape())));
    }
    match mask.data().iter().find(|m| !(0.0..=1.0).contains(*m)) {
        Some(odd) => Err(Error::usage("the mask holds something else than weights")
            .expected("0 (kept) to 1 (drawn) at each cell")
            .found(odd.to_string())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::OnHost;
    use super::super::noise::noise;
    use super::super::test_model::Gaussian;
    use super::*;
    use crate::latent::host::HostLatents;

    fn latent(shape: [usize; 4], value: f32) -> Latent {
        Latent::from_vec(shape, vec![value; shape.iter().product()]).unwrap()
    }

    #[test]
    fn both_sides_of_a_prediction_are_blended() {
        let shape = [2, 1, 1, 2];
        let (start, noise) = (latent(shape, 10.0), latent(shape, 2.0));
        // One mask for each picture: the second is drawn, of the first only a quarter of a cell.
        let mask = Latent::from_vec(shape, vec![0.0, 0.25, 1.0, 1.0]).unwrap();
        let mut gaussian = Gaussian { variance: 9.0 };
        let mut model = OnHost { model: &mut gaussian, latents: HostLatents::default() };
        let x = model.latents.put(latent(shape, 100.0));
        let mut inpaint = Inpaint::new(&mut model, &mask, &start, &noise).unwrap();
        let out = inpaint.predict(&x, 3.0).unwrap();
        let [denoised, uncond] =
            [out.denoised, out.uncond.unwrap()].map(|v| inpaint.latents().read(&v).unwrap());
        // The test model halves its input at σ = 3, where the kept cells are 10 + 3·2.
        let mixed = 0.25 * ((0.25 * 100.0 + 0.75 * 16.0) / 2.0) + 0.75 * 10.0;
        assert_eq!(denoised.data(), [10.0, mixed, 50.0, 50.0]);
        assert_eq!(uncond.data()[0], 8.0);
    }

    #[test]
    fn masks_that_do_not_fit_are_refused() {
        let start = latent([2, 4, 3, 5], 0.0);
        let refused = |mask: Latent, noise: Latent| {
            let mut gaussian = Gaussian { variance: 1.0 };
            let mut model = OnHost { model: &mut gaussian, latents: HostLatents::default() };
            let error = Inpaint::new(&mut model, &mask, &start, &noise).err().expect("refused");
            assert_eq!(error.kind(), crate::ErrorKind::Usage, "{error}");
        };
        for shape in [[1, 1, 5, 3], [3, 1, 3, 5], [1, 4, 3, 5], [0, 1, 3, 5]] {
            refused(latent(shape, 1.0), start.clone());
        }
        for odd in [-0.1, 1.1, f32::NAN, f32::INFINITY] {
            refused(latent([1, 1, 3, 5], odd), start.clone());
        }
        refused(latent([1, 1, 3, 5], 1.0), latent([1, 4, 3, 5], 1.0));
    }

    #[test]
    fn ddim_draws_the_noise_anew() {
        let own = noise(7, [1, 4, 4, 4]);
        assert_eq!(Sampler::Ddim.inpaint_noise(&own, 7).unwrap(), noise(8, [1, 4, 4, 4]));
        assert_eq!(Sampler::Euler.inpaint_noise(&own, 7).unwrap(), own);
        assert!(Sampler::Ddim.inpaint_noise(&own, u64::MAX).is_err());
    }
}
