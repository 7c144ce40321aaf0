//! Running a sampler: the latent that it starts from, and the checks of its arguments.

use super::model::{OnHost, same_shape};
use super::sampler_run::SamplerRun;
use super::{Denoiser, OnStep, Predictor, SampleOptions, Sampler};
use crate::latent::host::HostLatents;
use crate::latent::{Latent, Latents, Value};
use crate::{Error, Result};

/// The factor of the noise in the latent that a run starts from: `√(1 + σ₀²)` for a run from pure noise, and `σ₀`
/// otherwise, as in ComfyUI. A run is from pure noise if its first sigma is `sigma_max` (to a relative 1e-5) or above:
/// the model was trained to see pure noise there.
pub fn initial_scale(sigma0: f32, sigma_max: f32) -> f32 {
    let (from, max) = (f64::from(sigma0), f64::from(sigma_max));
    let pure_noise = from > max || (from - max).abs() <= 1e-5 * from.max(max);
    if pure_noise { (1.0 + sigma0 * sigma0).sqrt() } else { sigma0 }
}

/// The latent a run starts from: `noise · initial_scale + latent`.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if the two latents differ in shape.
pub fn initial(noise: &Latent, latent: &Latent, sigma0: f32, sigma_max: f32) -> Result<Latent> {
    same_shape("the noise does not fit the latent", latent.shape(), noise.shape())?;
    let scale = initial_scale(sigma0, sigma_max);
    noise.zip(latent, |n, l| n * scale + l)
}

/// Runs `sampler` on the host from `x`, whose noise level is `sigmas[0]`, down to the last sigma. With one sigma or
/// none there is no step, and `x` is returned.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if the sigmas rise or are not positive numbers (the last may be 0), if an
/// option is negative or not finite, or if a prediction has another shape than the noisy latent;
/// [`ErrorKind::NonFinite`](crate::ErrorKind::NonFinite) with the step, if a value becomes NaN or infinite; any error
/// of the model or of `on_step`.
pub fn sample(
    sampler: Sampler,
    model: &mut dyn Denoiser,
    x: Latent,
    sigmas: &[f32],
    options: &SampleOptions,
    on_step: &mut OnStep<'_>,
) -> Result<Latent> {
    let mut model = OnHost { model, latents: HostLatents::default() };
    let x = model.latents.put(x);
    let end = sample_on(sampler, &mut model, x, sigmas, options, on_step)?;
    model.latents.read(&end)
}

/// [`sample`] for a model whose latents may be on a device. There, steps are submitted ahead, and reported to
/// `on_step` when they are done. The returned value is stored.
///
/// # Errors
/// As [`sample`].
pub fn sample_on(
    sampler: Sampler,
    model: &mut dyn Predictor,
    x: Value,
    sigmas: &[f32],
    options: &SampleOptions,
    on_step: &mut OnStep<'_>,
) -> Result<Value> {
    check_sigmas(sigmas)?;
    options.check()?;
    let total = sigmas.len().saturating_sub(1);
    if total == 0 {
        return Ok(x);
    }
    if sampler.needs_uncond() {
        model.keep_uncond();
    }
    let mut sampling = SamplerRun::new(model, on_step, options, total);
    let x = (sampler.entry().run)(&mut sampling, x, sigmas)?;
    sampling.finish(x, sigmas[total])
}

/// Samplers divide by every sigma but the last, and ancestral ones need noise levels that do not rise.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::sampler::test_model::{Gaussian, mean_square, run};
    use crate::sampler::{Denoised, Discrete, Scheduler, Step, noise};

    const SIGMAS: [f32; 4] = [14.0, 5.0, 1.0, 0.0];

    #[test]
    fn every_sampler_finds_the_data() {
        let table = Discrete::stable_diffusion();
        let sigmas = Scheduler::Karras.sigmas(&table, 40, 1.0, false).unwrap();
        let options = SampleOptions::default();
        for sampler in Sampler::ALL.iter().copied() {
            let mut steps = Vec::new();
            let mut watch = |step: Step<'_>| {
                steps.push((step.index, step.total, step.sigma));
                Ok(())
            };
            let mut model = Gaussian { variance: 0.25 };
            let end = run(sampler, &mut model, &sigmas, &options, &mut watch).unwrap();
            // Few steps lose some of the variance; a wrong update loses more or less.
            let expected = match sampler {
                // For models that predict pictures, not the mean of pictures.
                Sampler::Lcm => 0.1..0.13,
                // It mixes predictions of two points, which has an effect even without guidance.
                Sampler::Dpmpp2sAncestralCfgPp => 0.15..0.2,
                _ => 0.2..0.27,
            };
            let variance = mean_square(&end);
            assert!(expected.contains(&variance), "{sampler} {variance}");
            if matches!(sampler, Sampler::DpmFast | Sampler::DpmAdaptive) {
                // They choose their steps; the last one reports the right total.
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
        for sampler in Sampler::ALL.iter().copied() {
            let mut model = Gaussian { variance: 1.0 };
            let error = run(sampler, &mut model, &SIGMAS, &SampleOptions::default(), &mut stop).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Cancelled);
        }
    }

    type Fault = fn(&Latent) -> Latent;

    /// Returns a wrong prediction from the second sigma on.
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
            for sampler in Sampler::ALL.iter().copied() {
                let options = SampleOptions::default();
                let error = run(sampler, &mut Faulty(fault), &SIGMAS, &options, &mut |_| Ok(())).unwrap_err();
                assert_eq!(error.kind(), kind, "{error}");
                // Samplers that evaluate ahead find the fault in another step.
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
    fn a_run_from_pure_noise_starts_with_a_little_more_noise() {
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
