//! How many rows a network call computes together. A row is a batch element: an image under an entry of the conditioning.
//!
//! Results do not depend on it: kernel variants are chosen by the shape of a row, and no sum runs over rows.

use std::borrow::Borrow;

use super::Plan;
use crate::{Error, ErrorKind, Remedy, Result};

/// How the rows of a step are split into network calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum ChunkPolicy {
    /// As many rows per call as the memory limit and the device allow.
    #[default]
    Auto,
    /// At most this many rows per call.
    Rows(usize),
}

impl std::str::FromStr for ChunkPolicy {
    type Err = Error;

    /// `auto` or a number of rows from 1 on.
    fn from_str(s: &str) -> Result<Self> {
        match s {
            "auto" => Ok(Self::Auto),
            _ => match s.parse() {
                Ok(n) if n > 0 => Ok(Self::Rows(n)),
                _ => Err(Error::usage("not a chunk size")
                    .expected("`auto` or a number of rows from 1 on")
                    .found(s)),
            },
        }
    }
}

/// Rows per call for `wanted` rows: the largest number for which `plan` succeeds and whose arena is within `budget`
/// bytes. The arena must not shrink with the number of rows.
///
/// # Errors
/// An error of the planner for one row; [`ErrorKind::Memory`] if one row exceeds the budget.
pub fn rows_per_call<P: Borrow<Plan>>(
    policy: ChunkPolicy,
    wanted: usize,
    budget: Option<u64>,
    plan: impl Fn(usize) -> Result<P>,
) -> Result<usize> {
    let fits = |rows: usize| plan(rows).is_ok_and(|p| budget.is_none_or(|b| p.borrow().arena_bytes() <= b));
    let one = plan(1)?;
    let one = one.borrow();
    if let Some(budget) = budget.filter(|b| one.arena_bytes() > *b) {
        return Err(Error::new(ErrorKind::Memory, "one row of the network does not fit the memory budget")
            .expected(format!("at most {} MiB left for activations", budget >> 20))
            .found(format!("{} MiB", one.arena_bytes().div_ceil(1 << 20)))
            .remedy(Remedy::RaiseMemoryLimit(None))
            .remedy(Remedy::UseF16)
            .hint("draw a smaller picture"));
    }
    let mut low = 1;
    let mut high = match policy {
        ChunkPolicy::Auto => wanted.max(1),
        ChunkPolicy::Rows(n) => n.clamp(1, wanted.max(1)),
    };
    // In most cases all of them fit.
    let mut middle = high;
    while low < high {
        if fits(middle) {
            low = middle;
        } else {
            high = middle - 1;
        }
        middle = (low + high).div_ceil(2);
    }
    Ok(low)
}
