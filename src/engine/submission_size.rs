//! How much work goes into one submission: as much as the device does in the time that is allowed, by its measured speed.
//! The speed is measured for each network, since the same number of operations takes a decoder longer than a UNet.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::plan::{Dispatch, Plan};

/// The work of one submission of a network, which all its plans share. Parts of a network differ in speed, so it is what
/// the slowest part of the last call allows: it shrinks at once, and grows from call to call.
#[derive(Debug, Clone)]
pub(super) struct Budget(Arc<Speeds>);

#[derive(Debug)]
struct Speeds {
    /// The budget.
    now: AtomicU64,
    /// The least that a submission of this call could have been; [`u64::MAX`] before one is measured.
    slowest: AtomicU64,
}

impl Budget {
    fn new(first: u64) -> Self {
        Self(Arc::new(Speeds { now: AtomicU64::new(first), slowest: AtomicU64::new(u64::MAX) }))
    }

    pub(super) fn get(&self) -> u64 {
        self.0.now.load(Ordering::Relaxed)
    }

    /// Whether both are of the same network.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// A call of the network begins.
    pub(super) fn begin_call(&self) {
        let slowest = self.0.slowest.swap(u64::MAX, Ordering::Relaxed);
        if slowest != u64::MAX {
            // Half at a time: one submission may have waited for something else.
            let now = self.get();
            self.0.now.store(slowest.clamp(now / 2, now.saturating_mul(GROWTH)), Ordering::Relaxed);
        }
    }

    /// After a submission that took `took` for `work`, where it may take `longest`.
    pub(super) fn learn(&self, work: u64, took: Duration, longest: Duration) {
        let now = self.get();
        let fits = work as f64 * longest.as_secs_f64() / took.as_secs_f64().max(1e-6);
        let fits = fits.clamp(LEAST, MOST) as u64;
        // The time of a short submission is mostly overhead: the device is at least as fast as it seems.
        let fits = if took < longest / OVERHEAD { fits.max(now) } else { fits };
        self.0.slowest.fetch_min(fits, Ordering::Relaxed);
        if fits < now {
            self.0.now.store(fits.max(now / 2), Ordering::Relaxed);
        }
    }
}

/// The budgets of a device.
#[derive(Debug)]
pub(super) struct Budgets {
    first: u64,
    /// By the path of the network's first layer.
    networks: Mutex<HashMap<String, Budget>>,
}

impl Budgets {
    /// For a device that does about `work` in a tenth of a second, where a submission may take `longest`.
    pub(super) fn new(work: u64, longest: Duration) -> Self {
        Self { first: first(work, longest), networks: Mutex::default() }
    }

    /// The budget of the plan's network.
    pub(super) fn of(&self, plan: &Plan) -> Budget {
        self.at(plan.dispatches.first().map_or("", |dispatch| &dispatch.path))
    }

    /// The budget of dispatches that belong to no plan.
    pub(super) fn of_single(&self) -> Budget {
        self.at("")
    }

    fn at(&self, path: &str) -> Budget {
        let mut networks = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
        networks.entry(path.to_owned()).or_insert_with(|| Budget::new(self.first)).clone()
    }
}

/// Share of a submission's time below which that time is mostly overhead.
const OVERHEAD: u32 = 50;

/// The budget to begin with where the device does about `work` in a tenth of a second, and a submission may take `longest`.
fn first(work: u64, longest: Duration) -> u64 {
    (work as f64 * (longest.as_secs_f64() / 0.1).min(1.0)).max(LEAST) as u64
}

/// The smallest budget, for a dispatch is not divided, and the largest.
const LEAST: f64 = 1e8;
const MOST: f64 = 1e14;

/// Largest growth from call to call.
const GROWTH: u64 = 8;

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

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: f64) -> Duration {
        Duration::from_secs_f64(ms / 1e3)
    }

    #[test]
    fn the_budget_follows_the_speed() {
        let (start, longest) = (50_000_000_000, ms(100.0));
        let budget = Budget::new(start);
        // 80 TFLOP/s: submissions of the first call take 0.6 ms, and three calls later a tenth of a second.
        for _ in 0..4 {
            let work = budget.get();
            budget.begin_call();
            budget.learn(work, ms(work as f64 / 80e9), longest);
        }
        budget.begin_call();
        assert_eq!(budget.get(), 8_000_000_000_000);
        // A slow device gets less at once, but at least half of the last budget.
        budget.learn(8_000_000_000_000, ms(1000.0), longest);
        assert_eq!(budget.get(), 4_000_000_000_000);
        // A call is as its slowest part, also where other parts are fast.
        let budget = Budget::new(start);
        budget.learn(start, ms(10.0), longest);
        budget.learn(start, ms(80.0), longest);
        budget.learn(start, ms(20.0), longest);
        budget.begin_call();
        assert_eq!(budget.get(), start * 10 / 8);
        // One that waited for something else halves the budget twice at most: at once, and for the next call.
        let other = Budget::new(start);
        other.learn(start, ms(5000.0), longest);
        other.begin_call();
        assert_eq!(other.get(), start / 4);
        // Nothing was measured: it stays.
        budget.begin_call();
        assert_eq!(budget.get(), start * 10 / 8);
        // A short submission never lowers it.
        budget.learn(1_000_000, ms(1.0), longest);
        assert_eq!(budget.get(), start * 10 / 8);
        // An app that wants short waits gets shorter submissions, from the first one on.
        let budget = Budget::new(start);
        budget.learn(start, ms(8.0), ms(4.0));
        assert_eq!(budget.get(), start / 2);
        assert_eq!(
            (first(start, ms(100.0)), first(start, ms(4.0)), first(start, ms(0.0))),
            (start, start / 25, 100_000_000)
        );
    }

    #[test]
    fn networks_have_budgets_of_their_own() {
        let budgets = Budgets::new(1_000_000_000, ms(100.0));
        let [unet, decoder] = ["time_embed", "conv_in"].map(|path| budgets.at(path));
        unet.learn(1_000_000_000, ms(1000.0), ms(100.0));
        assert_eq!((budgets.at("time_embed").get(), decoder.get()), (500_000_000, 1_000_000_000));
        assert!(unet.is(&budgets.at("time_embed")) && !unet.is(&decoder));
    }
}
