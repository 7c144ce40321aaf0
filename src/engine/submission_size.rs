//! How much work goes into one submission: as much as the device does in the time that is allowed, by its measured speed.

use std::time::Duration;

use crate::plan::Dispatch;

/// Share of a submission's time below which that time is mostly overhead.
const OVERHEAD: u32 = 50;

/// The budget to begin with where the device does about `work` in a tenth of a second, and a submission may take `longest`.
pub(super) fn first(work: u64, longest: Duration) -> u64 {
    (work as f64 * (longest.as_secs_f64() / 0.1).min(1.0)).max(LEAST) as u64
}

/// The smallest budget: a dispatch is not divided.
const LEAST: f64 = 1e8;

/// Largest growth of the budget in one step. From the first guess to a complete network call on a fast device it takes
/// three submissions.
const GROWTH: f64 = 8.0;

/// Work of a dispatch. A launch costs time too, about as much as a million operations.
pub(super) fn cost(flops: u64) -> u64 {
    flops.saturating_add(1_000_000)
}

/// The end of the dispatches from `from` on that fit into `budget`, at least one, and their work.
pub(super) fn portion(dispatches: &[Dispatch], from: usize, budget: u64) -> (usize, u64) {
    let mut work = 0u64;
    let mut to = from;
    while to < dispatches.len() && (to == from || work.saturating_add(cost(dispatches[to].flops)) <= budget) {
        work = work.saturating_add(cost(dispatches[to].flops));
        to += 1;
    }
    (to, work)
}

/// The new budget after a submission that took `took` for `work`: towards the work that fits into `longest`. `work`
/// is 0 if the submission says nothing about the speed.
pub(super) fn learn(old: u64, work: u64, took: Duration, longest: Duration) -> u64 {
    if work == 0 {
        return old;
    }
    let fits = work as f64 * longest.as_secs_f64() / took.as_secs_f64().max(1e-6);
    let old = old as f64;
    // The time of a short submission is mostly overhead: the device is at least as fast as it seems.
    let least = if took < longest / OVERHEAD { old } else { old / 2.0 };
    fits.clamp(least, old * GROWTH).clamp(LEAST, 1e14) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: f64) -> Duration {
        Duration::from_secs_f64(ms / 1e3)
    }

    #[test]
    fn the_budget_follows_the_speed() {
        let start = 50_000_000_000;
        let learn = |old, work, took| learn(old, work, took, ms(100.0));
        // 80 TFLOP/s: a submission of the first guess takes 0.6 ms, and three later it takes a tenth of a second.
        let mut budget = start;
        for _ in 0..3 {
            budget = learn(budget, budget, ms(budget as f64 / 80e9));
        }
        assert_eq!(budget, 8_000_000_000_000);
        // A slow device gets less, but at least half of the last budget.
        assert_eq!(learn(start, start, ms(1000.0)), start / 2);
        // A short submission never lowers the budget, and one that was cut short does not change it.
        assert_eq!(learn(start, 1_000_000, ms(1.0)), start);
        assert_eq!(learn(start, 0, ms(500.0)), start);
        // An app that wants short waits gets shorter submissions, from the first one on.
        assert_eq!(super::learn(start, start, ms(8.0), ms(4.0)), start / 2);
        assert_eq!(
            (first(start, ms(100.0)), first(start, ms(4.0)), first(start, ms(0.0))),
            (start, start / 25, 100_000_000)
        );
    }
}
