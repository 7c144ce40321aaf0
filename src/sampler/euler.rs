//! Euler's method, plain and ancestral (Karras et al. 2022, algorithm 2; k-diffusion's
//! `sample_euler` and `sample_euler_ancestral`).

use super::Drive;
use super::noise::AncestralNoise;
use crate::Result;
use crate::latent::Latent;

/// `x += d·(σ' - σ)` with the slope `d = (x - D) / σ`.
pub(super) fn euler(drive: &mut Drive<'_>, mut x: Latent, sigmas: &[f32]) -> Result<Latent> {
    for (index, step) in sigmas.windows(2).enumerate() {
        let denoised = drive.step(index, &x, step[0])?.denoised;
        x = towards(&x, &denoised, step[0], step[1]);
    }
    Ok(x)
}

/// Euler's step to σ_down, then new noise of σ_up, so that together they make σ'.
pub(super) fn euler_ancestral(drive: &mut Drive<'_>, mut x: Latent, sigmas: &[f32]) -> Result<Latent> {
    let (eta, s_noise) = (drive.options.eta, drive.options.s_noise);
    let mut noise = AncestralNoise::new(drive.options.seed)?;
    for (index, step) in sigmas.windows(2).enumerate() {
        let denoised = drive.step(index, &x, step[0])?.denoised;
        let (down, up) = ancestral_step(step[0], step[1], eta);
        x = if down == 0.0 {
            denoised
        } else {
            let stepped = towards(&x, &denoised, step[0], down);
            stepped.zip(&noise.draw(x.shape()), |v, z| v + z * s_noise * up)
        };
    }
    Ok(x)
}

/// `x + (x - D)/σ · (σ' - σ)`, in this order of operations.
fn towards(x: &Latent, denoised: &Latent, sigma: f32, next: f32) -> Latent {
    let dt = next - sigma;
    x.zip(denoised, |x, d| x + (x - d) / sigma * dt)
}

/// How far down to step and how much noise to add: `(σ_down, σ_up)` with
/// `σ_up = min(σ', η √(σ'² (σ² - σ'²) / σ²))` and `σ_down = √(σ'² - σ_up²)`.
/// η = 0 adds none, η = 1 as much as keeps the process a Markov chain.
pub(super) fn ancestral_step(sigma: f32, next: f32, eta: f32) -> (f32, f32) {
    if eta == 0.0 {
        return (next, 0.0);
    }
    let (s2, n2) = (sigma * sigma, next * next);
    let up = next.min(eta * (n2 * (s2 - n2) / s2).sqrt());
    ((n2 - up * up).sqrt(), up)
}

#[cfg(test)]
mod tests {
    use super::super::toy::{Gaussian, mean_square, order_of_convergence, run};
    use super::super::{SampleOptions, Sampler};
    use super::*;

    #[test]
    fn euler_is_of_first_order() {
        let order = order_of_convergence(Sampler::Euler);
        assert!((0.9..1.15).contains(&order), "{order}");
    }

    #[test]
    fn ancestral_parts_make_up_the_next_sigma() {
        for (sigma, next) in [(14.6, 10.7), (3.0, 1.0), (1.0, 0.03), (0.03, 0.0)] {
            for eta in [0.0, 0.5, 1.0, 2.0] {
                let (down, up) = ancestral_step(sigma, next, eta);
                assert!((down.hypot(up) - next).abs() <= 1e-6 * next, "{sigma} {next} {eta}");
            }
        }
    }

    #[test]
    fn ancestral_noise_keeps_the_variance() {
        // Data that are all 0: at every level x must be pure noise of variance σ².
        let sigmas = [14.0, 9.0, 5.0, 2.0, 1.0, 0.5];
        for eta in [0.0, 0.6, 1.0] {
            let options = SampleOptions { seed: 7, eta, ..Default::default() };
            let mut seen = Vec::new();
            run(Sampler::EulerAncestral, &mut Gaussian { variance: 0.0 }, &sigmas, &options, &mut |step| {
                seen.push(mean_square(step.x) / f64::from(step.sigma).powi(2));
                Ok(())
            })
            .unwrap();
            assert_eq!(seen.len(), 5);
            assert!(seen.iter().all(|v| (v - 1.0).abs() < 0.03), "{eta} {seen:?}");
        }
    }

    #[test]
    fn without_eta_ancestral_is_euler() {
        let sigmas = [14.0, 5.0, 1.0, 0.3];
        let options = SampleOptions { eta: 0.0, ..Default::default() };
        let mut model = Gaussian { variance: 1.0 };
        let a = run(Sampler::Euler, &mut model, &sigmas, &options, &mut |_| Ok(())).unwrap();
        let b = run(Sampler::EulerAncestral, &mut model, &sigmas, &options, &mut |_| Ok(())).unwrap();
        assert_eq!(a, b);
    }
}
