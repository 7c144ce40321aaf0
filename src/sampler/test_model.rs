//! A model whose samples are known exactly, to test samplers with.

use super::{Denoised, Denoiser, OnStep, SampleOptions, Sampler, noise, sample};
use crate::Result;
use crate::latent::Latent;

/// Pictures whose values are independent normals: `D(x, σ) = x·v / (v + σ²)`.
pub(super) struct Gaussian {
    /// The variance of the data.
    pub variance: f64,
}

impl Denoiser for Gaussian {
    fn denoise(&mut self, x: &Latent, sigma: f32) -> Result<Denoised> {
        let shrink = self.variance / (self.variance + f64::from(sigma).powi(2));
        let denoised = x.scaled(shrink as f32);
        Ok(Denoised { uncond: Some(denoised.clone()), denoised })
    }
}

/// Samples a 4×64×64 latent from noise of the first sigma.
pub(super) fn run(
    sampler: Sampler,
    model: &mut dyn Denoiser,
    sigmas: &[f32],
    options: &SampleOptions,
    on_step: &mut OnStep<'_>,
) -> Result<Latent> {
    let x = noise::noise(11, [1, 4, 64, 64]).scaled(sigmas[0]);
    sample(sampler, model, x, sigmas, options, on_step)
}

pub(super) fn mean_square(x: &Latent) -> f64 {
    x.data().iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / x.data().len() as f64
}

/// The order of convergence: `log2(error(N) / error(2N))` for N steps. The probability
/// flow takes `x(σ)` to `x(σ₀)·√((v + σ²) / (v + σ₀²))`.
pub(super) fn order_of_convergence(sampler: Sampler) -> f64 {
    order_of_convergence_with(sampler, &SampleOptions::default())
}

/// The same with options: without noise, samplers of SDEs follow the flow too.
pub(super) fn order_of_convergence_with(sampler: Sampler, options: &SampleOptions) -> f64 {
    let (variance, high, low) = (1.0f64, 10.0f64, 0.1f64);
    let error = |steps: u32| {
        let sigma = |i: u32| (high * (low / high).powf(f64::from(i) / f64::from(steps))) as f32;
        let sigmas: Vec<f32> = (0..=steps).map(sigma).collect();
        let exact = ((variance + low * low) / (variance + high * high)).sqrt();
        let start = Latent::from_vec([1, 1, 1, 1], vec![1.0]).unwrap();
        let mut model = Gaussian { variance };
        let end = sample(sampler, &mut model, start, &sigmas, options, &mut |_| Ok(()));
        (f64::from(end.unwrap().data()[0]) / exact - 1.0).abs()
    };
    (error(40) / error(80)).log2()
}
