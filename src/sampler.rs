//! Samplers: how a latent of noise becomes a picture's, step by step.
//!
//! A sampler sees a model only as a [`Predictor`]: "what is in this noisy latent?" Guidance, chunking and the
//! device are behind it. Its arithmetic is sums of latents ([`Value`]), written down with the coefficients of
//! k-diffusion in f32 and formed where the latents are, so that results agree with ComfyUI's to rounding.
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
pub(crate) mod names;
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

use std::cell::RefCell;
use std::collections::VecDeque;

use crate::latent::host::HostLatents;
use crate::latent::value::Fault;
use crate::latent::{Latent, Latents, Value};
use crate::{Error, ErrorKind, Remedy, Result};

/// A model on the host, as simple as can be: see [`sample`]. Those whose latents may be on a device are
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
    fn unprompted(&self) -> Result<&Value> {
        self.uncond.as_ref().ok_or_else(|| {
            Error::usage("the model gave no prediction without the prompt")
                .expected("one with every prediction: CFG++ samplers steer by it")
                .hint("at a CFG scale of 1 guidance may leave it out; choose another scale or sampler")
        })
    }
}

/// What a run tells about a step when it is evaluated. On a device later steps may be under way by then; what
/// is read here is this step's all the same.
pub struct Step<'a> {
    /// From 0.
    pub index: usize,
    /// Number of steps of the run; a guess where a sampler chooses its steps as it goes.
    pub total: usize,
    /// The noise level of `x`.
    pub sigma: f32,
    x: &'a Value,
    denoised: &'a Value,
    latents: RefCell<&'a mut dyn Latents>,
}

impl Step<'_> {
    /// The noisy latent.
    ///
    /// # Errors
    /// The device's, from which it may have to be read.
    pub fn x(&self) -> Result<Latent> {
        self.latents.borrow_mut().read(self.x)
    }

    /// What the model sees in it: the preview.
    ///
    /// # Errors
    /// As [`x`](Self::x).
    pub fn denoised(&self) -> Result<Latent> {
        self.latents.borrow_mut().read(self.denoised)
    }

    /// The same where it is held.
    pub fn denoised_value(&self) -> &Value {
        self.denoised
    }
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

/// The factor of the noise in the latent that a run starts from: `√(1 + σ₀²)` for a whole run, whose model was
/// trained to see pure noise as σ_max, and `σ₀` otherwise. A run is whole if its first sigma is `sigma_max` (to
/// 1e-5) or above.
pub fn initial_scale(sigma0: f32, sigma_max: f32) -> f32 {
    let (from, max) = (f64::from(sigma0), f64::from(sigma_max));
    let whole = from > max || (from - max).abs() <= 1e-5 * from.max(max);
    if whole { (1.0 + sigma0 * sigma0).sqrt() } else { sigma0 }
}

/// The latent a run starts from: `noise · initial_scale + latent`.
///
/// # Errors
/// [`ErrorKind::Usage`] if the two latents differ in shape.
pub fn initial(noise: &Latent, latent: &Latent, sigma0: f32, sigma_max: f32) -> Result<Latent> {
    same_shape("the noise does not fit the latent", latent.shape(), noise.shape())?;
    let scale = initial_scale(sigma0, sigma_max);
    noise.zip(latent, |n, l| n * scale + l)
}

/// Runs `sampler` on the host from `x`, noisy at `sigmas[0]`, down to the last sigma. One sigma or none is
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
    let mut model = OnHost { model, latents: HostLatents::default() };
    let x = model.latents.put(x);
    let end = sample_on(sampler, &mut model, x, sigmas, options, on_step)?;
    model.latents.read(&end)
}

/// [`sample`] for models whose latents may be on a device, where it runs ahead: steps are told of when they are
/// done. The value that comes back is stored.
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
    check_options(options)?;
    let total = sigmas.len().saturating_sub(1);
    if total == 0 {
        return Ok(x);
    }
    if sampler.needs_uncond() {
        model.keep_uncond();
    }
    let mut drive = Drive { model, on_step, options, total, due: VecDeque::new(), levels: Vec::new() };
    let x = (sampler.entry().run)(&mut drive, x, sigmas)?;
    drive.finish(x, sigmas[total])
}

/// A [`Denoiser`] as samplers want it.
struct OnHost<'a> {
    model: &'a mut dyn Denoiser,
    latents: HostLatents,
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

/// What a sampler's function drives: the model and the caller's eyes on it.
struct Drive<'a> {
    model: &'a mut dyn Predictor,
    on_step: &'a mut OnStep<'a>,
    options: &'a SampleOptions,
    total: usize,
    /// Steps that are evaluated and not yet told of.
    due: VecDeque<Due>,
    /// The noise level of each step.
    levels: Vec<f32>,
}

/// A step that is told of when evaluation number `evaluation` is done.
struct Due {
    index: usize,
    total: usize,
    sigma: f32,
    x: Value,
    denoised: Value,
    evaluation: u64,
}

impl Drive<'_> {
    fn latents(&mut self) -> &mut dyn Latents {
        self.model.latents()
    }

    /// Forms what later steps build upon: a sum of sums would grow with each of them.
    fn store(&mut self, value: &Value) -> Result<Value> {
        self.latents().store(value)
    }

    /// The step's first prediction: asks the model and tells the caller. `x` is stored.
    fn step(&mut self, index: usize, x: &mut Value, sigma: f32) -> Result<Predicted> {
        self.levels.resize(index + 1, sigma);
        let (out, evaluation) = self.evaluate(index, x, sigma)?;
        let (x, denoised, total) = (x.clone(), out.denoised.clone(), self.total);
        self.due.push_back(Due { index, total, sigma, x, denoised, evaluation });
        let ahead = self.model.ahead();
        self.tell(ahead as usize)?;
        Ok(out)
    }

    /// A prediction within step `index`.
    fn predict(&mut self, index: usize, x: &Value, sigma: f32) -> Result<Predicted> {
        Ok(self.evaluate(index, &mut x.clone(), sigma)?.0)
    }

    /// The slope at another place within step `index`.
    fn slope_at(&mut self, index: usize, x: &Value, sigma: f32) -> Result<Value> {
        let mut x = x.clone();
        let (out, _) = self.evaluate(index, &mut x, sigma)?;
        Ok(step::slope(&x, &out.denoised, sigma))
    }

    /// A prediction of `x`'s shape, and the number of the evaluation.
    fn evaluate(&mut self, index: usize, x: &mut Value, sigma: f32) -> Result<(Predicted, u64)> {
        self.latents().step(index);
        *x = self.store(x)?;
        self.check_fault()?;
        let mut out = self.model.predict(x, sigma)?;
        for value in [Some(&out.denoised), out.uncond.as_ref()].into_iter().flatten() {
            same_shape("a prediction does not fit the noisy latent", x.shape(), value.shape())?;
        }
        out.denoised = self.store(&out.denoised)?;
        let evaluation = self.latents().submit()?;
        self.check_fault()?;
        Ok((out, evaluation))
    }

    /// Tells of steps that are done, and waits until at most `most` are not.
    fn tell(&mut self, most: usize) -> Result<()> {
        while let Some(first) = self.due.front() {
            let evaluation = first.evaluation;
            let wanted = if self.due.len() > most { evaluation } else { 0 };
            let done = self.latents().done(wanted)?;
            self.check_fault()?;
            if done < evaluation {
                break;
            }
            let Some(Due { index, total, sigma, x, denoised, .. }) = self.due.pop_front() else { break };
            let latents = RefCell::new(self.model.latents());
            (self.on_step)(Step { index, total, sigma, x: &x, denoised: &denoised, latents })?;
        }
        Ok(())
    }

    /// The end of a run at noise level `sigma`.
    fn finish(mut self, x: Value, sigma: f32) -> Result<Value> {
        let end = self.levels.len();
        self.levels.push(sigma);
        self.latents().step(end);
        let x = self.store(&x)?;
        let evaluation = self.latents().submit()?;
        self.tell(0)?;
        self.latents().done(evaluation)?;
        self.check_fault()?;
        Ok(x)
    }

    fn check_fault(&mut self) -> Result<()> {
        let Some(fault) = self.latents().fault() else { return Ok(()) };
        let (what, index) = match fault {
            Fault::Prediction(index) => ("the model's prediction", index),
            Fault::Latent(index) => ("the noisy latent", index),
        };
        let level = self.levels.get(index).map_or_else(String::new, |sigma| format!(", sigma {sigma}"));
        // What comes after the last step is that step's result.
        let number = (index + 1).min(self.total);
        Err(Error::new(ErrorKind::NonFinite, format!("{what} holds NaN or infinity"))
            .at(format!("step {number} of {}{level}", self.total))
            .hint("lower the CFG scale and prompt weights")
            .remedy(Remedy::UseF32))
    }
}

fn same_shape(what: &str, expected: [usize; 4], found: [usize; 4]) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(Error::usage(what).expected(format!("the shape {expected:?}")).found(format!("{found:?}")))
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
