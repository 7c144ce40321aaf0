//! DPM-Solver (Lu et al. 2022, arXiv 2206.00927) in λ, with its own steps between the first and the last positive
//! sigma: "fast" takes as many predictions as the schedule has steps, "adaptive" as many as its error requires. Both
//! leave the noise of the last positive sigma in the picture.

use super::discrete::exp_m1;
use super::sampler_run::SamplerRun;
use super::step::{change, lambda, plus, sigma, slope};
use crate::Result;
use crate::latent::Value;

/// Where the third-order step evaluates the model, as fractions of its length.
const THIRDS: (f32, f32) = (1.0 / 3.0, 2.0 / 3.0);

/// The tolerance of the adaptive solver: absolute, and relative to the value.
const ABSOLUTE: f32 = 0.0078;
const RELATIVE: f32 = 0.05;

/// The λ of the first and the last positive sigma; None if they are the same.
fn ends(sigmas: &[f32]) -> Option<(f32, f32)> {
    let (&first, &last) = (sigmas.first()?, sigmas.iter().rfind(|&&s| s > 0.0)?);
    (first > last).then(|| (lambda(first), lambda(last)))
}

/// The result with a single positive sigma: the prediction.
fn to_prediction(sampling: &mut SamplerRun<'_>, x: &Value, sigmas: &[f32]) -> Result<Value> {
    Ok(sampling.step(0, &mut x.clone(), sigmas[0])?.denoised)
}

/// A step of the solver.
struct Span<'a> {
    index: usize,
    x: &'a Value,
    /// The slope at its start.
    slope: &'a Value,
    start: f32,
    end: f32,
}

impl Span<'_> {
    fn h(&self) -> f32 {
        self.end - self.start
    }

    /// λ and σ at a fraction of the step.
    fn at(&self, share: f32) -> (f32, f32) {
        let l = self.start + share * self.h();
        (l, sigma(l))
    }

    /// Along the slope to the fraction `r` of the step: `x - σ_r (e^{rh} - 1)·d`.
    fn first_order(&self, share: f32) -> Value {
        plus(self.x, -(self.at(share).1 * exp_m1(share * self.h())), self.slope)
    }

    fn slope_at(&self, sampling: &mut SamplerRun<'_>, share: f32, x: &Value) -> Result<Value> {
        sampling.slope_at(self.index, x, self.at(share).1)
    }

    /// To the end of the step, with the slope `there` at the fraction `r`.
    fn second_order(&self, share: f32, there: &Value) -> Value {
        let (to, grown) = (sigma(self.end), exp_m1(self.h()));
        Value::combine(&[
            (1.0, self.x),
            (-(to * grown), self.slope),
            (-(to / (2.0 * share) * grown), &change(self.slope, there)),
        ])
    }

    /// To the end of the step, with the slope `first` at one third; evaluates another at two thirds.
    fn third_order(&self, sampling: &mut SamplerRun<'_>, first: &Value) -> Result<Value> {
        let (r1, r2) = THIRDS;
        let bent = |share: f32, ratio: f32, there: &Value| {
            let (length, to) = (share * self.h(), self.at(share).1);
            Value::combine(&[
                (1.0, self.x),
                (-(to * exp_m1(length)), self.slope),
                (-(to * ratio * (exp_m1(length) / length - 1.0)), &change(self.slope, there)),
            ])
        };
        let second = self.slope_at(sampling, r2, &bent(r2, r2 / r1, first))?;
        Ok(bent(1.0, 1.0 / r2, &second))
    }
}

/// As many third-order steps as the number of predictions allows, then a step of lower order for the remaining ones.
pub(super) fn dpm_fast(sampling: &mut SamplerRun<'_>, mut x: Value, sigmas: &[f32]) -> Result<Value> {
    let Some((start, end)) = ends(sigmas) else { return to_prediction(sampling, &x, sigmas) };
    let predictions = sigmas.len() - 1;
    let mut orders = vec![3; predictions / 3];
    match predictions % 3 {
        // The last two steps are of second and first order: together they take three predictions too.
        0 => orders.splice(orders.len() - 1.., [2, 1]).for_each(drop),
        rest => orders.push(rest),
    }
    sampling.total = orders.len();
    let places: Vec<f32> = super::schedule::linspace(start, end, orders.len() + 1).collect();
    for (index, (pair, order)) in places.windows(2).zip(orders).enumerate() {
        let level = sigma(pair[0]);
        let denoised = sampling.step(index, &mut x, level)?.denoised;
        let slope = slope(&x, &denoised, level);
        let span = Span { index, x: &x, slope: &slope, start: pair[0], end: pair[1] };
        let look =
            |sampling: &mut SamplerRun<'_>, share| span.slope_at(sampling, share, &span.first_order(share));
        x = match order {
            1 => span.first_order(1.0),
            2 => span.second_order(0.5, &look(sampling, 0.5)?),
            _ => {
                let first = look(sampling, THIRDS.0)?;
                span.third_order(sampling, &first)?
            }
        };
    }
    Ok(x)
}

/// Steps as long as the results of second and third order agree. If they do not, the step is repeated with a shorter
/// length, and reported as a step of its own. The error is a mean over the batch, so all images have the same steps.
pub(super) fn dpm_adaptive(sampling: &mut SamplerRun<'_>, mut x: Value, sigmas: &[f32]) -> Result<Value> {
    let Some((start, end)) = ends(sigmas) else { return to_prediction(sampling, &x, sigmas) };
    let mut control = StepControl::default();
    let (mut at, mut before) = (start, x.clone());
    let mut index = 0;
    while at < end - 1e-5 {
        // The number of remaining steps is an estimate from the present length.
        sampling.total = index + ((end - at) / control.h as f32).ceil().max(1.0) as usize;
        let level = sigma(at);
        let denoised = sampling.step(index, &mut x, level)?.denoised;
        let slope = slope(&x, &denoised, level);
        let next = end.min(at + control.h as f32);
        let span = Span { index, x: &x, slope: &slope, start: at, end: next };
        let first = span.slope_at(sampling, THIRDS.0, &span.first_order(THIRDS.0))?;
        let low = sampling.store(&span.second_order(THIRDS.0, &first))?;
        let high = span.third_order(sampling, &first)?;
        let high = sampling.store(&high)?;
        if control.accept(sampling.latents().error_norm([&low, &high, &before], ABSOLUTE, RELATIVE)?) {
            (x, before, at) = (high, low, next);
        }
        index += 1;
    }
    Ok(x)
}

/// Chooses the length of steps: an integral controller with limited change, as in k-diffusion.
struct StepControl {
    h: f64,
}

impl Default for StepControl {
    fn default() -> Self {
        Self { h: 0.05 }
    }
}

impl StepControl {
    /// Whether a step with this error is accepted; sets the length of the next step in any case.
    fn accept(&mut self, error: f64) -> bool {
        const SAFETY: f64 = 0.81;
        let ideal = (1.0 / (error + 1e-8)).powf(1.0 / 3.0);
        let factor = 1.0 + (ideal - 1.0).atan();
        self.h *= factor;
        factor >= SAFETY
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_model::{Gaussian, run};
    use super::super::{SampleOptions, Sampler};
    use super::*;
    use crate::latent::host::HostLatents;
    use crate::latent::{Latent, Latents};

    #[test]
    fn fast_has_a_prediction_for_every_step() {
        for steps in 1..=12usize {
            let sigmas: Vec<f32> = (0..=steps).map(|i| 10.0 * 0.7f32.powi(i as i32)).collect();
            let mut count = Counted { model: Gaussian { variance: 1.0 }, calls: 0 };
            run(Sampler::DpmFast, &mut count, &sigmas, &SampleOptions::default(), &mut |_| Ok(())).unwrap();
            assert_eq!(count.calls, steps);
        }
    }

    struct Counted {
        model: Gaussian,
        calls: usize,
    }

    impl super::super::Denoiser for Counted {
        fn denoise(&mut self, x: &Latent, sigma: f32) -> Result<super::super::Denoised> {
            self.calls += 1;
            self.model.denoise(x, sigma)
        }
    }

    #[test]
    fn the_reference_of_the_device_says_the_same() {
        let [low, high, before] = [1, 2, 3].map(|seed| super::super::noise::noise(seed, [2, 4, 5, 6]));
        let f64s = |l: &Latent| -> Vec<f64> { l.data().iter().map(|v| f64::from(*v)).collect() };
        let tolerance = (ABSOLUTE.into(), RELATIVE.into());
        let reference = crate::kernels::error_norm::reference;
        let want = reference(tolerance, &f64s(&low), &f64s(&high), &f64s(&before));
        let mut host = HostLatents::default();
        let [low, high, before] = [low, high, before].map(|latent| host.put(latent));
        let error = host.error_norm([&low, &high, &before], ABSOLUTE, RELATIVE).unwrap();
        assert!((error / want - 1.0).abs() < 1e-6);
    }

    #[test]
    fn a_large_error_shortens_the_step() {
        let mut control = StepControl::default();
        assert!(!control.accept(100.0));
        let short = control.h;
        assert!(short < 0.05 && control.accept(1e-3) && control.h > short);
    }
}
