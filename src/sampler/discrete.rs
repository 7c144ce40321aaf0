//! The noise levels that a network was trained on: a table of 1000 sigmas, indexed by timestep.
//!
//! Betas and their cumulative product are computed in f64 and stored as f32, as ComfyUI does: rounding earlier changes
//! the smallest sigmas by more than the tolerance of schedules.

use crate::{Error, Result};

/// Number of timesteps that all Stable Diffusion models are trained with.
const TRAIN_STEPS: usize = 1000;

/// A table of the noise levels σ of a model, smallest first, by timestep.
#[derive(Debug, Clone, PartialEq)]
pub struct Discrete {
    sigmas: Vec<f32>,
    /// The logarithm of the unrounded sigma; that of the rounded one differs.
    log_sigmas: Vec<f32>,
    /// Timesteps from one entry to the next.
    stride: usize,
}

/// Number of timesteps that consistency models were distilled at.
const DISTILLED: usize = 50;

impl Discrete {
    /// The table of SD 1, SD 2 and SDXL: "scaled linear" betas,
    /// `β_i = (√0.00085 + (√0.012 - √0.00085)·i/999)²`.
    pub fn stable_diffusion() -> Self {
        Self::from_products(Self::products_of_stable_diffusion().into_iter())
    }

    /// `ᾱ_i = Π (1 - β)`, first timestep first.
    fn products_of_stable_diffusion() -> Vec<f64> {
        let (start, end) = (0.00085f64.sqrt(), 0.012f64.sqrt());
        let beta = |i: usize| (start + (end - start) * i as f64 / (TRAIN_STEPS - 1) as f64).powi(2);
        let products = (0..TRAIN_STEPS).scan(1.0, |product, i| {
            *product *= 1.0 - beta(i);
            Some(*product)
        });
        products.collect()
    }

    /// The table of networks with zero terminal SNR, which were trained with pure noise at the last timestep (Lin et al.
    /// 2023, arXiv 2305.08891, algorithm 1): `√ᾱ` of [`stable_diffusion`](Self::stable_diffusion), shifted to end at 0
    /// and scaled to keep its first value. The last ᾱ is set to 4.9e-8, as in ComfyUI, since σ would be infinite at 0.
    pub fn zero_terminal_snr() -> Self {
        const LAST: f64 = 4.8973451890853435e-08;
        let usual = Self::products_of_stable_diffusion();
        let (first, last) = (usual[0].sqrt(), usual[TRAIN_STEPS - 1].sqrt());
        let stretch = first / (first - last);
        let shifted = usual.iter().take(TRAIN_STEPS - 1).map(|a| ((a.sqrt() - last) * stretch).powi(2));
        Self::from_products(shifted.chain([LAST]))
    }

    /// The table of any noise schedule, from `ᾱ_i = Π (1 - β)`, first timestep first:
    /// `σ_i = √((1 - ᾱ_i) / ᾱ_i)`.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) unless there are at least two values, each
    /// between 0 and 1 and none larger than the one before.
    pub fn from_alphas_cumprod(alphas_cumprod: &[f64]) -> Result<Self> {
        if alphas_cumprod.len() < 2 {
            return Err(Error::usage("a noise schedule is too short")
                .expected("at least two cumulative alphas")
                .found(alphas_cumprod.len().to_string()));
        }
        let mut before = 1.0;
        for (i, &alpha) in alphas_cumprod.iter().enumerate() {
            // Written so that NaN fails too.
            if !(alpha > 0.0 && alpha < 1.0 && alpha <= before) {
                return Err(Error::usage("a noise schedule's cumulative alphas do not fall from 1 to 0")
                    .at(format!("timestep {i}"))
                    .expected(format!("a value above 0, below 1 and at most {before}"))
                    .found(alpha.to_string()));
            }
            before = alpha;
        }
        Ok(Self::from_products(alphas_cumprod.iter().copied()))
    }

    fn from_products(products: impl Iterator<Item = f64>) -> Self {
        let exact: Vec<f64> = products.map(|alpha| ((1.0 - alpha) / alpha).sqrt()).collect();
        Self {
            sigmas: exact.iter().map(|&s| s as f32).collect(),
            log_sigmas: exact.iter().map(|s| s.ln() as f32).collect(),
            stride: 1,
        }
    }

    /// The table of consistency models (LCM): the 50 entries of [`stable_diffusion`](Self::stable_diffusion) that they
    /// were distilled at, timesteps 19, 39, … 999.
    pub fn distilled() -> Self {
        let usual = Self::stable_diffusion();
        let stride = usual.sigmas.len() / DISTILLED;
        let sigmas: Vec<f32> = usual.sigmas.iter().skip(stride - 1).step_by(stride).copied().collect();
        Self { log_sigmas: sigmas.iter().map(|s| ln(*s)).collect(), sigmas, stride }
    }

    /// This table with zero terminal SNR: shifted and scaled as in [`zero_terminal_snr`](Self::zero_terminal_snr).
    /// Computed in f32 from the rounded sigmas, as ComfyUI's *ModelSamplingDiscrete* does; the last entries depend on it.
    pub fn with_zero_terminal_snr(&self) -> Self {
        const LAST: f32 = 4.897_345e-8;
        let roots: Vec<f32> = self.sigmas.iter().map(|s| (1.0 / (s * s + 1.0)).sqrt()).collect();
        let (first, last) = (roots[0], roots[self.last()]);
        let stretch = first / (first - last);
        let mut sigmas: Vec<f32> = roots
            .iter()
            .map(|root| {
                let root = (root - last) * stretch;
                let alpha = root * root;
                ((1.0 - alpha) / alpha).sqrt()
            })
            .collect();
        if let Some(end) = sigmas.last_mut() {
            *end = ((1.0 - LAST) / LAST).sqrt();
        }
        Self { log_sigmas: sigmas.iter().map(|s| ln(*s)).collect(), sigmas, stride: self.stride }
    }

    /// All sigmas, smallest first; the index is the timestep.
    pub fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    /// The smallest sigma of the table.
    pub fn sigma_min(&self) -> f32 {
        self.sigmas[0]
    }

    /// The largest sigma of the table.
    pub fn sigma_max(&self) -> f32 {
        self.sigmas[self.last()]
    }

    fn last(&self) -> usize {
        self.sigmas.len() - 1
    }

    /// The timestep of the entry whose sigma is nearest in logarithm: always an integer, as the network was trained with.
    pub fn timestep(&self, sigma: f32) -> f32 {
        let wanted = ln(sigma);
        let mut nearest = (f32::INFINITY, 0);
        for (i, log_sigma) in self.log_sigmas.iter().enumerate() {
            let distance = (wanted - log_sigma).abs();
            if distance < nearest.0 {
                nearest = (distance, i);
            }
        }
        (nearest.1 * self.stride + self.stride - 1) as f32
    }

    /// The sigma at a timestep: linear in `ln σ` between two entries, clamped to the table.
    pub fn sigma(&self, timestep: f32) -> f32 {
        let entry = (timestep - (self.stride - 1) as f32) / self.stride as f32;
        let t = entry.clamp(0.0, self.last() as f32);
        // A NaN timestep casts to entry 0 and stays NaN through the weight.
        let (low, high) = (self.log_sigmas[t.floor() as usize], self.log_sigmas[t.ceil() as usize]);
        let weight = t - t.floor();
        exp((1.0 - weight) * low + weight * high)
    }

    /// The sigma at a point of the sampling: 0 is the start, which is a sigma above all others (999,999,999.9), 1 is
    /// the end, which is sigma 0. In between it is the sigma of the timestep `(1 - percent) · 999`, as in ComfyUI.
    pub fn percent_to_sigma(&self, percent: f64) -> f32 {
        // Not infinity: callers compare it and multiply by it.
        const ABOVE_ALL: f32 = 999_999_999.9;
        if percent <= 0.0 {
            ABOVE_ALL
        } else if percent >= 1.0 {
            0.0
        } else {
            let last = self.sigmas.len() * self.stride - 1;
            self.sigma(((1.0 - percent) * last as f64) as f32)
        }
    }

    /// Whether `sigma` is in the part of the sampling from `start` to `end`: 0 is the start, 1 the end.
    pub fn is_within(&self, sigma: f32, start: f64, end: f64) -> bool {
        sigma <= self.percent_to_sigma(start) && sigma >= self.percent_to_sigma(end)
    }
}

/// `ln` of an f32, correctly rounded on every platform except for rare ties: `f32::ln` is a function of the platform
/// and differs in the last bit between systems.
pub(super) fn ln(x: f32) -> f32 {
    f64::from(x).ln() as f32
}

/// `eˣ` of an `f32`; see [`ln`].
pub(super) fn exp(x: f32) -> f32 {
    f64::from(x).exp() as f32
}

/// `eˣ - 1` of an `f32`; see [`ln`].
pub(super) fn exp_m1(x: f32) -> f32 {
    f64::from(x).exp_m1() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alphas_give_back_the_standard_table() {
        let table = Discrete::stable_diffusion();
        let alphas: Vec<f64> = table.sigmas.iter().map(|&s| 1.0 / (1.0 + f64::from(s).powi(2))).collect();
        let again = Discrete::from_alphas_cumprod(&alphas).unwrap();
        for (a, b) in table.sigmas.iter().zip(&again.sigmas) {
            assert!((a - b).abs() <= 2e-7 * a, "{a} {b}");
        }
    }

    #[test]
    fn zero_terminal_snr_begins_as_usual_and_ends_in_noise() {
        let (usual, zero) = (Discrete::stable_diffusion(), Discrete::zero_terminal_snr());
        assert!((zero.sigma_min() / usual.sigma_min() - 1.0).abs() < 1e-6);
        // √((1 - ᾱ) / ᾱ) of the last ᾱ.
        assert!((zero.sigma_max() / 4518.7637 - 1.0).abs() < 1e-6, "{}", zero.sigma_max());
        assert!(zero.sigmas.windows(2).all(|w| w[0] < w[1]));
        // The shift in √ᾱ, from the sigmas: √ᾱ' = a·√ᾱ + b with the same a and b everywhere.
        let root = |table: &Discrete, i: usize| 1.0 / f64::from(table.sigmas[i]).hypot(1.0);
        let slope = |i, j| (root(&zero, i) - root(&zero, j)) / (root(&usual, i) - root(&usual, j));
        for i in (100..999).step_by(100) {
            assert!((slope(0, i) / slope(0, 998) - 1.0).abs() < 1e-5, "{i}");
        }
    }

    #[test]
    fn the_distilled_table_is_every_twentieth_entry() {
        let (usual, distilled) = (Discrete::stable_diffusion(), Discrete::distilled());
        assert_eq!(distilled.sigmas.len(), 50);
        assert_eq!((distilled.sigma_max(), distilled.sigma_min()), (usual.sigma_max(), usual.sigmas[19]));
        for (i, sigma) in distilled.sigmas.iter().enumerate() {
            let t = (20 * i + 19) as f32;
            assert_eq!(distilled.timestep(*sigma), t);
            assert!((distilled.sigma(t) / sigma - 1.0).abs() < 1e-6);
        }
        assert!((distilled.percent_to_sigma(0.5) / usual.percent_to_sigma(0.5) - 1.0).abs() < 0.01);
    }

    #[test]
    fn both_ways_to_zero_terminal_snr_agree() {
        let (exact, rounded) =
            (Discrete::zero_terminal_snr(), Discrete::stable_diffusion().with_zero_terminal_snr());
        for (i, (a, b)) in exact.sigmas.iter().zip(&rounded.sigmas).enumerate() {
            // Where little signal is left, its rounding is large.
            let tolerance = if i < 990 { 1e-4 } else { 2e-3 };
            assert!((a / b - 1.0).abs() < tolerance, "{i}: {a} {b}");
        }
        assert!(Discrete::distilled().with_zero_terminal_snr().sigma_max() > 4500.0);
    }

    #[test]
    fn bad_alphas_are_refused() {
        for bad in [&[][..], &[0.5], &[0.5, 0.6], &[0.9, 0.0], &[1.0, 0.5], &[0.5, f64::NAN]] {
            assert!(Discrete::from_alphas_cumprod(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn odd_numbers_do_not_panic() {
        let table = Discrete::stable_diffusion();
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1.0, 0.0, f32::MAX] {
            table.timestep(odd);
            table.sigma(odd);
            table.percent_to_sigma(f64::from(odd));
        }
        assert!(table.sigma(f32::NAN).is_nan());
        assert_eq!(table.sigma(1e9), table.sigma(999.0));
    }
}
