//! Samplers: how a latent of noise becomes a picture's, step by step.
//!
//! A sampler sees a model only as a [`Denoiser`]: "what is in this noisy latent?" Guidance,
//! chunking and the GPU are behind it. Latents are host `f32`, and the arithmetic is k-diffusion's
//! in torch `f32`, operation by operation, so that results agree with ComfyUI's to rounding.
//!
//! A new sampler is one function over a `Drive` and one line in the catalogue.

mod adams;
mod beta;
mod catalogue;
mod deis;
mod discrete;
mod dpm_solver;
mod dpmpp;
mod dpmpp_sde;
mod er_sde;
mod euler;
mod gradient_estimation;
mod heun;
mod inpaint;
mod moments;
pub mod names;
pub mod noise;
mod renoise;
mod res_multistep;
mod sa_solver;
mod schedule;
mod seeds;
mod step;
#[cfg(test)]
mod toy;
mod uni_pc;

pub use catalogue::Sampler;
pub use discrete::Discrete;
pub use inpaint::Inpaint;
pub use schedule::{Scheduler, exponential_sigmas, karras_sigmas};

use crate::latent::Latent;
use crate::{Error, ErrorKind, Result};

/// What a sampler asks of a model.
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

/// A model's prediction.
#[derive(Debug, Clone)]
pub struct Denoised {
    /// The picture under the noise, after guidance; of the noisy latent's shape.
    pub denoised: Latent,
    /// The prediction without the prompt, for samplers that steer by it (CFG++).
    pub uncond: Option<Latent>,
}

impl Denoised {
    /// The prediction without the prompt, which CFG++ cannot do without.
    fn unprompted(&self) -> Result<&Latent> {
        self.uncond.as_ref().ok_or_else(|| {
            Error::usage("the model gave no prediction without the prompt")
                .expected("one with every prediction: CFG++ samplers steer by it")
                .hint("at a CFG scale of 1 guidance may leave it out; choose another scale or sampler")
        })
    }
}

/// What a run tells about a step, before the step is taken.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// From 0.
    pub index: usize,
    /// Number of steps of the run; a guess where a sampler chooses its steps as it goes.
    pub total: usize,
    /// The noise level of `x`.
    pub sigma: f32,
    /// The noisy latent.
    pub x: &'a Latent,
    /// What the model sees in it: the preview.
    pub denoised: &'a Latent,
}

/// Called on every step; an error ends the run and is its result.
pub type OnStep<'a> = dyn FnMut(Step<'_>) -> Result<()> + 'a;

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
        let table = Discrete::stable_diffusion();
        let noise_window = (table.percent_to_sigma(0.2), table.percent_to_sigma(0.8));
        Self { seed: 0, eta: 1.0, s_noise: 1.0, noise_window }
    }
}

/// The latent a run starts from: `noise·√(1 + σ₀²) + latent` for a whole run, whose model was
/// trained to see pure noise as σ_max, and `noise·σ₀ + latent` otherwise. A run is whole if its
/// first sigma is `sigma_max` (to 1e-5) or above.
///
/// # Errors
/// [`ErrorKind::Usage`] if the two latents differ in shape.
pub fn initial(noise: &Latent, latent: &Latent, sigma0: f32, sigma_max: f32) -> Result<Latent> {
    same_shape("the noise does not fit the latent", latent, noise)?;
    let (from, max) = (f64::from(sigma0), f64::from(sigma_max));
    let whole = from > max || (from - max).abs() <= 1e-5 * from.max(max);
    let scale = if whole { (1.0 + sigma0 * sigma0).sqrt() } else { sigma0 };
    Ok(noise.zip(latent, |n, l| n * scale + l))
}

/// Runs `sampler` from `x`, noisy at `sigmas[0]`, down to the last sigma. One sigma or none is
/// nothing to do: `x` comes back.
///
/// # Errors
/// [`ErrorKind::Usage`] if the sigmas rise or hold something else than positive numbers (the last
/// may be 0), if an option is negative or not finite, or if the model answers in another shape;
/// [`ErrorKind::NonFinite`] if NaN or infinity turns up, with the step; and whatever the model or
/// `on_step` return.
pub fn sample(
    sampler: Sampler,
    model: &mut dyn Denoiser,
    x: Latent,
    sigmas: &[f32],
    options: &SampleOptions,
    on_step: &mut OnStep<'_>,
) -> Result<Latent> {
    check_sigmas(sigmas)?;
    check_options(options)?;
    let total = sigmas.len().saturating_sub(1);
    if total == 0 {
        return Ok(x);
    }
    if sampler.needs_uncond() {
        model.keep_uncond();
    }
    let mut drive = Drive { model, on_step, options, total };
    let x = (sampler.entry().run)(&mut drive, x, sigmas)?;
    drive.check_finite("the sampler's result", &x, total - 1, sigmas[total])?;
    Ok(x)
}

/// What a sampler's function drives: the model and the caller's eyes on it.
struct Drive<'a> {
    model: &'a mut dyn Denoiser,
    on_step: &'a mut OnStep<'a>,
    options: &'a SampleOptions,
    total: usize,
}

impl Drive<'_> {
    /// The step's first prediction: asks the model and tells the caller.
    fn step(&mut self, index: usize, x: &Latent, sigma: f32) -> Result<Denoised> {
        let out = self.predict(index, x, sigma)?;
        (self.on_step)(Step { index, total: self.total, sigma, x, denoised: &out.denoised })?;
        Ok(out)
    }

    /// A prediction within step `index`, known to be finite and of `x`'s shape.
    fn predict(&mut self, index: usize, x: &Latent, sigma: f32) -> Result<Denoised> {
        self.check_finite("the noisy latent", x, index, sigma)?;
        let out = self.model.denoise(x, sigma)?;
        for latent in [Some(&out.denoised), out.uncond.as_ref()].into_iter().flatten() {
            same_shape("a prediction does not fit the noisy latent", x, latent)?;
            self.check_finite("the model's prediction", latent, index, sigma)?;
        }
        Ok(out)
    }

    /// The slope at another place within step `index`.
    fn slope_at(&mut self, index: usize, x: &Latent, sigma: f32) -> Result<Latent> {
        Ok(step::slope(x, &self.predict(index, x, sigma)?.denoised, sigma))
    }

    fn check_finite(&self, what: &str, latent: &Latent, index: usize, sigma: f32) -> Result<()> {
        if latent.is_finite() {
            return Ok(());
        }
        let place = format!("step {} of {}, sigma {sigma}", index + 1, self.total);
        Err(Error::new(ErrorKind::NonFinite, format!("{what} holds NaN or infinity"))
            .at(place)
            .hint("lower the CFG scale and prompt weights, or use f32 (--precision f32)"))
    }
}

fn same_shape(what: &str, expected: &Latent, found: &Latent) -> Result<()> {
    if expected.shape() == found.shape() {
        return Ok(());
    }
    Err(Error::usage(what)
        .expected(format!("the shape {:?}", expected.shape()))
        .found(format!("{:?}", found.shape())))
}

/// Samplers divide by every sigma but the last, and ancestral ones can only split noise that falls.
fn check_sigmas(sigmas: &[f32]) -> Result<()> {
    let mut before = f32::MAX;
    for (i, &sigma) in sigmas.iter().enumerate() {
        let least = if i + 1 == sigmas.len() { 0.0 } else { f32::MIN_POSITIVE };
        if !(least..=before).contains(&sigma) {
            return Err(Error::usage("the sigmas are not a schedule")
                .at(format!("sigma {} of {}", i + 1, sigmas.len()))
                .expected("positive numbers that do not rise, or 0 at the end")
                .found(sigma.to_string()));
        }
        before = sigma;
    }
    Ok(())
}

fn check_options(options: &SampleOptions) -> Result<()> {
    for (name, value) in [("eta", options.eta), ("s_noise", options.s_noise)] {
        if !(0.0..=f32::MAX).contains(&value) {
            return Err(Error::usage("a sampler option is out of range")
                .at(name)
                .expected("a finite number of at least 0")
                .found(value.to_string()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::toy::{Gaussian, mean_square, run};
    use super::*;

    const SIGMAS: [f32; 4] = [14.0, 5.0, 1.0, 0.0];

    #[test]
    fn every_sampler_finds_the_data() {
        let table = Discrete::stable_diffusion();
        let sigmas = Scheduler::Karras.sigmas(&table, 40, 1.0, false).unwrap();
        let options = SampleOptions::default();
        for sampler in Sampler::ALL {
            let mut steps = Vec::new();
            let mut watch = |step: Step<'_>| {
                steps.push((step.index, step.total, step.sigma));
                Ok(())
            };
            let mut model = Gaussian { variance: 0.25 };
            let end = run(sampler, &mut model, &sigmas, &options, &mut watch).unwrap();
            // Few steps leave some of the variance out; what is left of it tells a wrong update.
            let expected = match sampler {
                // For models that predict pictures and not their mean.
                Sampler::Lcm => 0.1..0.13,
                // Guidance from two places is some even where there is none.
                Sampler::Dpmpp2sAncestralCfgPp => 0.15..0.2,
                _ => 0.2..0.27,
            };
            let variance = mean_square(&end);
            assert!(expected.contains(&variance), "{sampler} {variance}");
            if matches!(sampler, Sampler::DpmFast | Sampler::DpmAdaptive) {
                // They choose their steps; the last one knows how many they were.
                let last = steps.last().map(|step| (step.0 + 1, step.1));
                assert_eq!(last, Some((steps.len(), steps.len())), "{sampler}");
            } else {
                let expected: Vec<_> = (0..40).map(|i| (i, 40, sigmas[i])).collect();
                assert_eq!(steps, expected, "{sampler}");
            }
        }
    }

    #[test]
    fn nothing_to_do_returns_the_latent() {
        let x = noise::noise(3, [1, 4, 2, 2]);
        for sigmas in [&[][..], &[14.0]] {
            let mut model = Gaussian { variance: 1.0 };
            let options = SampleOptions::default();
            let end = sample(Sampler::Euler, &mut model, x.clone(), sigmas, &options, &mut |_| Ok(()));
            assert_eq!(end.unwrap(), x);
        }
    }

    #[test]
    fn the_callback_ends_the_run() {
        let mut stop = |step: Step<'_>| if step.index == 1 { Err(Error::cancelled()) } else { Ok(()) };
        for sampler in Sampler::ALL {
            let mut model = Gaussian { variance: 1.0 };
            let error = run(sampler, &mut model, &SIGMAS, &SampleOptions::default(), &mut stop).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Cancelled);
        }
    }

    type Fault = fn(&Latent) -> Latent;

    /// Answers with a fault from the second sigma on.
    struct Faulty(Fault);

    impl Denoiser for Faulty {
        fn denoise(&mut self, x: &Latent, sigma: f32) -> Result<Denoised> {
            let denoised = if sigma < 10.0 { self.0(x) } else { x.clone() };
            Ok(Denoised { uncond: Some(denoised.clone()), denoised })
        }
    }

    #[test]
    fn faulty_models_are_named_with_their_step() {
        let faults: [(Fault, ErrorKind, &str); 3] = [
            (|x| x.scaled(f32::NAN), ErrorKind::NonFinite, "step 2 of 3, sigma 5"),
            (|x| x.scaled(f32::INFINITY), ErrorKind::NonFinite, "step 2 of 3, sigma 5"),
            (|_| Latent::zeros(1, 1, 1, 1), ErrorKind::Usage, "[1, 1, 1, 1]"),
        ];
        for (fault, kind, place) in faults {
            for sampler in Sampler::ALL {
                let options = SampleOptions::default();
                let error = run(sampler, &mut Faulty(fault), &SIGMAS, &options, &mut |_| Ok(())).unwrap_err();
                assert_eq!(error.kind(), kind, "{error}");
                // Samplers that look ahead meet the fault elsewhere.
                let place =
                    if sampler == Sampler::Euler { place } else { place.split("step 2").next().unwrap() };
                assert!(error.to_string().contains(place), "{error}");
            }
        }
    }

    #[test]
    fn sigmas_and_options_that_make_no_sense_are_refused() {
        let refused = |sigmas: &[f32], options: SampleOptions| {
            let mut model = Gaussian { variance: 1.0 };
            let error = run(Sampler::Euler, &mut model, sigmas, &options, &mut |_| Ok(())).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
        };
        for first in [0.0, -1.0, 0.4, f32::NAN, f32::INFINITY] {
            refused(&[first, 0.5, 0.0], SampleOptions::default());
            refused(&[14.0, first, 0.5], SampleOptions::default());
        }
        for odd in [-0.1, f32::NAN, f32::INFINITY] {
            refused(&SIGMAS, SampleOptions { eta: odd, ..Default::default() });
            refused(&SIGMAS, SampleOptions { s_noise: odd, ..Default::default() });
        }
    }

    #[test]
    fn a_whole_run_starts_a_little_louder() {
        let noise = Latent::from_vec([1, 1, 1, 1], vec![2.0]).unwrap();
        let latent = Latent::from_vec([1, 1, 1, 1], vec![10.0]).unwrap();
        let start = |sigma0| initial(&noise, &latent, sigma0, 3.0).unwrap().data()[0];
        assert_eq!(start(3.0), 10.0 + 2.0 * 10f32.sqrt());
        assert_eq!(start(3.00001), 10.0 + 2.0 * (1.0f32 + 3.00001 * 3.00001).sqrt());
        assert_eq!(start(1.0), 12.0);
        let other = Latent::zeros(2, 1, 1, 1);
        assert_eq!(initial(&noise, &other, 3.0, 3.0).unwrap_err().kind(), ErrorKind::Usage);
    }
}
