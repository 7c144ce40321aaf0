//! The token that cancels runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Cancels runs, from any thread. Clones share one state: if one is cancelled, all are.
///
/// A run that is given a token ends with [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled) within one submission
/// to the device. A token stays cancelled: take a new one for the next run.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// A token that is not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the runs that were given this token to stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it has been cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// The flag inside, for functions that take one: [`Model::sample`](crate::Model::sample) and others.
    pub fn flag(&self) -> &AtomicBool {
        &self.0
    }
}
