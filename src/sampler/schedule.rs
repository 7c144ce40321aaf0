//! Schedulers: the noise levels of a run of N steps.
//!
//! A scheduler returns a falling list of sigmas that ends with 0; each step goes from one entry to the next. Names and
//! values are those of ComfyUI.

use std::fmt;
use std::str::FromStr;

use super::beta_distribution::quantile;
use super::discrete::{Discrete, exp};
use super::lookup::{self, Named};
use crate::{Error, Result};

/// More steps than this are a mistake, or a denoise near 0, and would only fill the memory.
const MAX_STEPS: usize = 1_000_000;

/// A rule that spreads N steps over the noise levels σ of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "String", into = "String")
)]
#[non_exhaustive]
pub enum Scheduler {
    /// Evenly spaced timesteps, both ends included.
    #[default]
    Normal,
    /// Evenly spaced in `σ^(1/7)` (Karras et al. 2022, arXiv 2206.00364, eq. 5).
    Karras,
    /// Every (1000/N)-th entry of the table, from the top.
    Simple,
    /// N+1 evenly spaced timesteps without the last.
    SgmUniform,
    /// Evenly spaced in `ln σ`.
    Exponential,
    /// Every (1000/N)-th entry of the table, from the bottom; may give more than N steps.
    DdimUniform,
    /// Timesteps at the quantiles of Beta(0.6, 0.6) (Lee et al. 2024, arXiv 2407.12173); may give fewer than N steps.
    Beta,
    /// σ falls linearly to 97.5 % of σ_max during half of the steps, and quadratically to 0 during the others.
    LinearQuadratic,
    /// Evenly spaced in `atan σ` (Sabour et al. 2024, "Align Your Steps", arXiv 2404.14507, eq. 9).
    KlOptimal,
}

impl Scheduler {
    /// Every scheduler.
    pub const ALL: &'static [Self] = &[
        Scheduler::Normal,
        Scheduler::Karras,
        Scheduler::Simple,
        Scheduler::SgmUniform,
        Scheduler::Exponential,
        Scheduler::DdimUniform,
        Scheduler::Beta,
        Scheduler::LinearQuadratic,
        Scheduler::KlOptimal,
    ];

    /// The name, as in ComfyUI.
    pub fn name(self) -> &'static str {
        match self {
            Scheduler::Normal => "normal",
            Scheduler::Karras => "karras",
            Scheduler::Simple => "simple",
            Scheduler::SgmUniform => "sgm_uniform",
            Scheduler::Exponential => "exponential",
            Scheduler::DdimUniform => "ddim_uniform",
            Scheduler::Beta => "beta",
            Scheduler::LinearQuadratic => "linear_quadratic",
            Scheduler::KlOptimal => "kl_optimal",
        }
    }

    /// Its names in other programs, where they differ: stable-diffusion.cpp, A1111, NovelAI, InvokeAI.
    fn aliases(self) -> &'static [&'static str] {
        match self {
            Scheduler::Normal => &["discrete", "default", "uniform", "native"],
            Scheduler::Karras => &["k", "ka"],
            Scheduler::SgmUniform => &["sgm"],
            Scheduler::DdimUniform => &["ddim"],
            _ => &[],
        }
    }

    /// The sigmas of a run, largest first; the last is 0.
    ///
    /// `denoise` is the fraction of the noise levels that the run covers: 1 is all of them, 0.6 starts from a picture
    /// with some noise added. The rule is applied to `steps / denoise` steps, and the last `steps` of them are kept. 0
    /// or less gives no sigmas: there is nothing to do.
    ///
    /// `discard_penultimate` is for samplers that evaluate between two sigmas (see
    /// [`Sampler::discard_penultimate`](super::Sampler::discard_penultimate)): the rule is applied to one more step,
    /// and the last sigma before 0 is dropped.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if `steps` is 0, `denoise` is not a number,
    /// or `steps / denoise` is over a million.
    pub fn sigmas(
        self,
        table: &Discrete,
        steps: usize,
        denoise: f64,
        discard_penultimate: bool,
    ) -> Result<Vec<f32>> {
        if denoise <= 0.0 {
            return Ok(Vec::new());
        }
        let planned = planned_steps(steps, denoise)?;
        let mut sigmas = self.spread(table, planned + usize::from(discard_penultimate));
        if discard_penultimate && sigmas.len() >= 2 {
            sigmas.remove(sigmas.len() - 2);
        }
        // With a full denoise nothing is dropped: `ddim_uniform` may have more than N+1 sigmas.
        if denoise <= FULL {
            sigmas.drain(..sigmas.len().saturating_sub(steps + 1));
        }
        Ok(sigmas)
    }

    fn spread(self, table: &Discrete, steps: usize) -> Vec<f32> {
        match self {
            Scheduler::Normal => normal(table, steps),
            Scheduler::Karras => karras(table, steps),
            Scheduler::Simple => simple(table, steps),
            Scheduler::SgmUniform => sgm_uniform(table, steps),
            Scheduler::Exponential => exponential(table, steps),
            Scheduler::DdimUniform => ddim_uniform(table, steps),
            Scheduler::Beta => beta(table, steps),
            Scheduler::LinearQuadratic => linear_quadratic(table, steps),
            Scheduler::KlOptimal => kl_optimal(table, steps),
        }
    }
}

impl FromStr for Scheduler {
    type Err = Error;

    /// By name, as ComfyUI or another program spells it.
    fn from_str(name: &str) -> Result<Self> {
        let entry = |s: &Self| Named { value: *s, name: s.name(), aliases: s.aliases() };
        let table: Vec<_> = Self::ALL.iter().map(entry).collect();
        lookup::find("scheduler", name, table)
    }
}

#[cfg(feature = "serde")]
impl TryFrom<String> for Scheduler {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        name.parse()
    }
}

#[cfg(feature = "serde")]
impl From<Scheduler> for String {
    fn from(value: Scheduler) -> Self {
        value.name().to_owned()
    }
}

impl fmt::Display for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A denoise above this counts as 1, as in ComfyUI.
const FULL: f64 = 0.9999;

/// The number of steps that the rule is applied to: `⌊steps / denoise⌋`.
fn planned_steps(steps: usize, denoise: f64) -> Result<usize> {
    if steps == 0 || denoise.is_nan() {
        return Err(Error::usage("nothing to schedule")
            .expected("at least 1 step and a denoise between 0 and 1")
            .found(format!("{steps} steps, denoise {denoise}")));
    }
    let planned = if denoise > FULL { steps as f64 } else { (steps as f64 / denoise).floor() };
    if planned > MAX_STEPS as f64 {
        return Err(Error::usage("too many steps")
            .expected(format!("steps / denoise of at most {MAX_STEPS}"))
            .found(format!("{steps} steps, denoise {denoise}")));
    }
    Ok(planned as usize)
}

/// `σ(linspace(last, 0, N))`, then 0.
fn normal(table: &Discrete, steps: usize) -> Vec<f32> {
    let (start, end) = (table.timestep(table.sigma_max()), table.timestep(table.sigma_min()));
    let at = |steps| linspace(start, end, steps).map(|t| table.sigma(t));
    // A table that begins at 0 has 0 as its last sigma already.
    if is_zero(table.sigma(end)) { at(steps + 1).collect() } else { ending_in_zero(at(steps)) }
}

/// `σ(linspace(last, 0, N+1))` without its last point, then 0.
fn sgm_uniform(table: &Discrete, steps: usize) -> Vec<f32> {
    let (start, end) = (table.timestep(table.sigma_max()), table.timestep(table.sigma_min()));
    ending_in_zero(linspace(start, end, steps + 1).take(steps).map(|t| table.sigma(t)))
}

/// `(σ_max^(1/ρ) + r (σ_min^(1/ρ) - σ_max^(1/ρ)))^ρ` with ρ = 7 and r from 0 to 1.
fn karras(table: &Discrete, steps: usize) -> Vec<f32> {
    spread_by_power(steps, (table.sigma_min().into(), table.sigma_max().into()), 7.0)
}

fn spread_by_power(steps: usize, (low, high): (f64, f64), rho: f64) -> Vec<f32> {
    let (high, low) = (high.powf(1.0 / rho), low.powf(1.0 / rho));
    let (high, span) = (high as f32, (low - high) as f32);
    ending_in_zero(linspace(0.0, 1.0, steps).map(|r| f64::from(high + r * span).powf(rho) as f32))
}

/// `exp(linspace(ln σ_max, ln σ_min, N))`, then 0.
fn exponential(table: &Discrete, steps: usize) -> Vec<f32> {
    spread_by_ratio(steps, (table.sigma_min().into(), table.sigma_max().into()))
}

fn spread_by_ratio(steps: usize, (low, high): (f64, f64)) -> Vec<f32> {
    ending_in_zero(linspace(high.ln() as f32, low.ln() as f32, steps).map(exp))
}

/// The rule of [`Scheduler::Karras`] between any two noise levels, (lowest, highest), with any power.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if the levels are not positive or not in order, or the power is
/// not positive or gives values that are not finite.
#[doc(hidden)]
pub fn karras_sigmas(steps: usize, range: (f64, f64), rho: f64) -> Result<Vec<f32>> {
    check_range(steps, range)?;
    let sigmas = spread_by_power(steps, range, rho);
    if rho > 0.0 && sigmas.iter().all(|s| s.is_finite()) {
        return Ok(sigmas);
    }
    Err(Error::usage("the power of a schedule is out of range")
        .expected("a number above 0")
        .found(rho.to_string()))
}

/// The rule of [`Scheduler::Exponential`] between any two noise levels, (lowest, highest).
///
/// # Errors
/// As [`karras_sigmas`].
#[doc(hidden)]
pub fn exponential_sigmas(steps: usize, range: (f64, f64)) -> Result<Vec<f32>> {
    check_range(steps, range)?;
    Ok(spread_by_ratio(steps, range))
}

fn check_range(steps: usize, (low, high): (f64, f64)) -> Result<()> {
    planned_steps(steps, 1.0)?;
    if low > 0.0 && low <= high && high.is_finite() {
        return Ok(());
    }
    Err(Error::usage("the noise levels of a schedule are out of order")
        .expected("a lowest above 0, and a highest that is not below it")
        .found(format!("{low} and {high}")))
}

/// The entries `⌊k · size / N⌋` from the top, then 0.
fn simple(table: &Discrete, steps: usize) -> Vec<f32> {
    let sigmas = table.sigmas();
    let stride = sigmas.len() as f64 / steps as f64;
    ending_in_zero((0..steps).map(|k| sigmas[sigmas.len() - 1 - (k as f64 * stride) as usize]))
}

/// The entries 1, 1+s, 1+2s… with s = `size / N`, from the top, then 0.
fn ddim_uniform(table: &Discrete, steps: usize) -> Vec<f32> {
    let sigmas = table.sigmas();
    let own_zero = is_zero(sigmas[1]);
    let stride = (sigmas.len() / (steps + usize::from(own_zero))).max(1);
    let mut rising: Vec<f32> = if own_zero { Vec::new() } else { vec![0.0] };
    rising.extend(sigmas.iter().skip(1).step_by(stride));
    rising.reverse();
    rising
}

/// The entries at the quantiles 1, 1-1/N, … of Beta(0.6, 0.6), each once, then 0.
fn beta(table: &Discrete, steps: usize) -> Vec<f32> {
    let last = table.sigmas().len() - 1;
    let at = |k: usize| quantile(1.0 - k as f64 / steps as f64, 0.6, 0.6) * last as f64;
    let mut timesteps: Vec<usize> = (0..steps).map(|k| at(k).round_ties_even() as usize).collect();
    timesteps.dedup();
    ending_in_zero(timesteps.into_iter().map(|t| table.sigmas()[t]))
}

/// `σ_max` times a curve from 1 to 0: linear down to 0.975 over the first half of the steps, then
/// a parabola with the same value and slope at the joint.
fn linear_quadratic(table: &Discrete, steps: usize) -> Vec<f32> {
    const DROP: f64 = 0.025;
    let scaled = |left: f64| left as f32 * table.sigma_max();
    if steps == 1 {
        return vec![scaled(1.0), 0.0];
    }
    let half = steps / 2;
    let (linear, rest, all) = (half as f64, (steps - half) as f64, steps as f64);
    // The parabola's excess over the straight line, spread over `rest` steps.
    let excess = linear - DROP * all;
    let square = excess / (linear * rest * rest);
    let slope = DROP / linear - 2.0 * excess / (rest * rest);
    let constant = square * linear * linear;
    let fallen = |k: usize| {
        let i = k as f64;
        if k < half { i * DROP / linear } else { square * i * i + slope * i + constant }
    };
    ending_in_zero((0..steps).map(|k| scaled(1.0 - fallen(k))))
}

/// `tan(a·atan σ_min + (1-a)·atan σ_max)` with a from 0 to 1, then 0.
fn kl_optimal(table: &Discrete, steps: usize) -> Vec<f32> {
    let atan = |sigma: f32| f64::from(sigma).atan() as f32;
    let (low, high) = (atan(table.sigma_min()), atan(table.sigma_max()));
    // With one step it is σ_max, as with every other scheduler; ComfyUI divides 0 by 0 here.
    let intervals = steps.saturating_sub(1).max(1) as f32;
    ending_in_zero((0..steps).map(|k| {
        let a = k as f32 / intervals;
        f64::from(a * low + (1.0 - a) * high).tan() as f32
    }))
}

/// `count` evenly spaced points, both ends included; a single point is `start`. The second half is computed from `end`,
/// as in PyTorch, so that the last point is exact.
pub(super) fn linspace(start: f32, end: f32, count: usize) -> impl Iterator<Item = f32> {
    let step = (end - start) / count.saturating_sub(1).max(1) as f32;
    (0..count).map(move |i| {
        if i == 0 || i < count / 2 { start + step * i as f32 } else { end - step * (count - 1 - i) as f32 }
    })
}

fn ending_in_zero(sigmas: impl Iterator<Item = f32>) -> Vec<f32> {
    sigmas.chain([0.0]).collect()
}

fn is_zero(sigma: f32) -> bool {
    sigma.abs() <= 1e-5
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn names_go_both_ways() {
        for scheduler in Scheduler::ALL.iter().copied() {
            assert_eq!(scheduler.name().parse::<Scheduler>().unwrap(), scheduler);
        }
        assert_eq!("discrete".parse::<Scheduler>().unwrap(), Scheduler::Normal);
        assert_eq!("SGM Uniform".parse::<Scheduler>().unwrap(), Scheduler::SgmUniform);
    }

    #[test]
    fn an_unknown_name_suggests_the_nearest_or_lists_all() {
        let error = "karas".parse::<Scheduler>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        let text = error.to_string();
        assert!(text.contains("did you mean karras"), "{text}");
        let text = "✨".parse::<Scheduler>().unwrap_err().to_string();
        assert!(!text.contains("did you mean"), "{text}");
        assert!(Scheduler::ALL.iter().all(|s| text.contains(s.name())), "{text}");
    }

    #[test]
    fn no_denoise_is_no_steps() {
        let table = Discrete::stable_diffusion();
        for denoise in [0.0, -1.0, f64::NEG_INFINITY] {
            assert!(Scheduler::Karras.sigmas(&table, 20, denoise, false).unwrap().is_empty());
        }
    }

    #[test]
    fn senseless_steps_are_refused() {
        let table = Discrete::stable_diffusion();
        for (steps, denoise) in [(0, 1.0), (20, f64::NAN), (20, 1e-9), (usize::MAX, 1.0), (usize::MAX, 0.5)] {
            let error = Scheduler::Normal.sigmas(&table, steps, denoise, false).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
        }
    }

    #[test]
    fn every_schedule_falls_to_zero_for_any_step_count() {
        let table = Discrete::stable_diffusion();
        let smallest = Discrete::from_alphas_cumprod(&[0.9, 0.1]).unwrap();
        for scheduler in Scheduler::ALL.iter().copied() {
            for steps in [1, 2, 3, 7, 50, 999, 1000, 1001, 2500] {
                for (table, discard) in [&table, &smallest].into_iter().zip([false, true]) {
                    let sigmas = scheduler.sigmas(table, steps, 1.0, discard).unwrap();
                    assert_eq!(sigmas.last(), Some(&0.0), "{scheduler} {steps}");
                    // `simple` repeats entries once there are more steps than entries.
                    assert!(sigmas.windows(2).all(|w| w[0] >= w[1]), "{scheduler} {steps} {sigmas:?}");
                }
            }
        }
    }
}
