//! DPM-Solver++ (Lu et al. 2022, arXiv 2211.01095): steps in `t = -ln σ`.

use super::Drive;
use super::discrete::{exp, exp_m1, ln};
use crate::Result;
use crate::latent::Latent;

/// The second-order multistep solver 2M (algorithm 2 there; k-diffusion's `sample_dpmpp_2m`):
/// `x = (σ'/σ)·x - (e^{-h} - 1)·D*` with `h = t' - t`, where `D*` extrapolates the last two
/// predictions. The first step has no predecessor and the step to 0 is infinitely long in `t`:
/// both take `D* = D`.
pub(super) fn dpmpp_2m(drive: &mut Drive<'_>, mut x: Latent, sigmas: &[f32]) -> Result<Latent> {
    let t_of = |sigma: f32| -ln(sigma);
    let sigma_of = |t: f32| exp(-t);
    // The previous step's prediction and length.
    let mut before: Option<(Latent, f32)> = None;
    for (index, step) in sigmas.windows(2).enumerate() {
        let denoised = drive.step(index, &x, step[0])?.denoised;
        let (t, next) = (t_of(step[0]), t_of(step[1]));
        let h = next - t;
        let (keep, take) = (sigma_of(next) / sigma_of(t), -exp_m1(-h));
        x = match &before {
            Some((previous, h_before)) if step[1] > 0.0 => {
                let weight = 1.0 / (2.0 * (h_before / h));
                let ahead = Latent::combine(&[(1.0 + weight, &denoised), (-weight, previous)]);
                Latent::combine(&[(keep, &x), (take, &ahead)])
            }
            _ => Latent::combine(&[(keep, &x), (take, &denoised)]),
        };
        before = Some((denoised, h));
    }
    Ok(x)
}

#[cfg(test)]
mod tests {
    use super::super::Sampler;
    use super::super::toy::order_of_convergence;

    #[test]
    fn dpmpp_2m_is_of_second_order() {
        let order = order_of_convergence(Sampler::Dpmpp2m);
        assert!((1.8..2.3).contains(&order), "{order}");
    }
}
