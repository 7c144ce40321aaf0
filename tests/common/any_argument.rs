//! Calls with zeros, ones, the largest numbers and NaN: none may panic, and what a caller did wrong is called that.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Failures;
use sagittal::{Error, ErrorKind};

/// Of anything.
pub const SIZES: [usize; 6] = [0, 1, 2, 7, usize::MAX / 3, usize::MAX];
/// Numbers of all kinds.
pub const FLOATS: [f32; 9] =
    [0.0, -0.0, 1.0, -1.0, f32::MAX, f32::MIN_POSITIVE, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];

/// Collects panics, and errors of a kind that a caller has not caused.
#[derive(Default)]
pub struct Watch {
    pub failures: Failures,
    /// Calls that were refused.
    pub refused: usize,
}

impl Watch {
    /// Runs what cannot fail.
    pub fn runs<T>(&mut self, what: &str, f: impl FnOnce() -> T) -> Option<T> {
        let done = catch_unwind(AssertUnwindSafe(f));
        self.failures.check(done.is_ok(), || format!("{what} panics"));
        done.ok()
    }

    /// Runs what may refuse its arguments.
    pub fn tries<T>(&mut self, what: &str, f: impl FnOnce() -> Result<T, Error>) -> Option<T> {
        match self.runs(what, f)? {
            Ok(value) => Some(value),
            Err(e) => {
                self.refused += 1;
                let callers =
                    !matches!(e.kind(), ErrorKind::Internal | ErrorKind::Device | ErrorKind::Cancelled);
                self.failures.check(callers, || format!("{what}: {:?}: {e}", e.kind()));
                None
            }
        }
    }
}

/// Two sizes each.
pub fn pairs() -> impl Iterator<Item = (usize, usize)> {
    SIZES.into_iter().flat_map(|a| SIZES.map(|b| (a, b)))
}
