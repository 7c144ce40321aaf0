//! How much work goes into one submission: as much as the device does in a tenth of a second, by its measured speed.

use std::time::Duration;

use crate::plan::Dispatch;

/// Longest time that a submission should take. Windows resets a GPU after two seconds, and cancel
/// waits for what is submitted.
const SUBMISSION: Duration = Duration::from_millis(100);

/// Most that the budget grows at a time. From the first guess to a whole network of a fast device it
/// takes three portions.
const GROWTH: f64 = 8.0;

/// Work of a dispatch. A launch costs time too, about as much as a million operations.
pub(super) fn cost(flops: u64) -> u64 {
    flops.saturating_add(1_000_000)
}

/// How far the dispatches from `from` on go with `budget`, at least one, and their work.
pub(super) fn portion(dispatches: &[Dispatch], from: usize, budget: u64) -> (usize, u64) {
    let mut work = 0u64;
    let mut to = from;
    while to < dispatches.len() && (to == from || work.saturating_add(cost(dispatches[to].flops)) <= budget) {
        work = work.saturating_add(cost(dispatches[to].flops));
        to += 1;
    }
    (to, work)
}

/// The budget `old` moved towards what fits into [`SUBMISSION`] at the speed of a portion that took
/// `took` for `work`, which is 0 where a portion says nothing.
pub(super) fn learn(old: u64, work: u64, took: Duration) -> u64 {
    if work == 0 {
        return old;
    }
    let fits = work as f64 * SUBMISSION.as_secs_f64() / took.as_secs_f64().max(1e-6);
    let old = old as f64;
    // A short portion's time is mostly that of waking up: the device is at least as fast as it looks.
    let least = if took < Duration::from_millis(2) { old } else { old / 2.0 };
    fits.clamp(least, old * GROWTH).clamp(1e8, 1e14) as u64
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
        // 80 TFLOP/s: a portion of the first guess takes 0.6 ms, and three later a second's tenth fits.
        let mut budget = start;
        for _ in 0..3 {
            budget = learn(budget, budget, ms(budget as f64 / 80e9));
        }
        assert_eq!(budget, 8_000_000_000_000);
        // A slow device is given less at a time, but never by half of the half.
        assert_eq!(learn(start, start, ms(1000.0)), start / 2);
        // A short portion says nothing of slowness, and what was cut nothing at all.
        assert_eq!(learn(start, 1_000_000, ms(1.0)), start);
        assert_eq!(learn(start, 0, ms(500.0)), start);
    }
}
