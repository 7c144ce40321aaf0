//! How often something is timed, and the statistics of its samples.

use std::time::{Duration, Instant};

use crate::Result;

/// Samples that are taken in any case, even if they take long.
const LEAST: usize = 3;

/// How much work goes into a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// Calls of a network.
    pub calls: usize,
    /// Complete generations.
    pub runs: usize,
    /// Steady work before the first sample. An idle H100 runs at 345 MHz, and needs about half a
    /// second to reach 1,980 MHz.
    pub warm_up: Duration,
    /// After this time no more samples are taken, if there are three.
    pub most: Duration,
}

impl Default for Effort {
    /// 20 calls, 3 generations, 0.6 s of warm-up, 10 s a measurement.
    fn default() -> Self {
        Self { calls: 20, runs: 3, warm_up: Duration::from_millis(600), most: Duration::from_secs(10) }
    }
}

impl Effort {
    /// The least work that shows that everything runs.
    pub fn least() -> Self {
        Self { calls: 1, runs: 1, warm_up: Duration::ZERO, most: Duration::ZERO }
    }

    /// Repeats `once` during the warm-up; not at all if that is zero.
    pub(super) fn warm(&self, mut once: impl FnMut() -> Result<()>) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < self.warm_up {
            once()?;
        }
        Ok(())
    }

    /// Up to `wanted` samples of `once`, fewer if they take long.
    pub(super) fn sample<T>(&self, wanted: usize, mut once: impl FnMut() -> Result<T>) -> Result<Vec<T>> {
        let begun = Instant::now();
        let mut samples = Vec::new();
        while samples.len() < wanted.max(1) && (samples.len() < LEAST || begun.elapsed() < self.most) {
            samples.push(once()?);
        }
        Ok(samples)
    }
}

/// The statistics of samples of a time, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timing {
    /// Their median.
    pub ms: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
    /// How many there are.
    pub n: usize,
}

impl Timing {
    /// Of `samples`, of which there is at least one.
    pub fn of(samples: &[Duration]) -> Self {
        let mut ms: Vec<f64> = samples.iter().map(|s| s.as_secs_f64() * 1e3).collect();
        ms.sort_by(f64::total_cmp);
        let n = ms.len();
        let at = |i: usize| ms.get(i).copied().unwrap_or(f64::NAN);
        let median = (at(n.saturating_sub(1) / 2) + at(n / 2)) / 2.0;
        Self { ms: median, min: at(0), max: at(n.saturating_sub(1)), n }
    }

    /// The same with each time multiplied by `factor`.
    pub fn scaled(self, factor: f64) -> Self {
        Self { ms: self.ms * factor, min: self.min * factor, max: self.max * factor, n: self.n }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median() {
        let of = |ms: &[u64]| Timing::of(&ms.iter().map(|m| Duration::from_millis(*m)).collect::<Vec<_>>());
        assert_eq!(of(&[7]), Timing { ms: 7.0, min: 7.0, max: 7.0, n: 1 });
        assert_eq!(of(&[4, 1, 2]), Timing { ms: 2.0, min: 1.0, max: 4.0, n: 3 });
        assert_eq!(of(&[4, 1, 2, 3]), Timing { ms: 2.5, min: 1.0, max: 4.0, n: 4 });
    }
}
