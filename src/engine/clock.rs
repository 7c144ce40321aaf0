//! When the device worked on what streams recorded, by timestamp queries: how long a step takes it, and how long
//! it stands idle between two.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::timestamps::{PAIRS, pair, passed, queries, ticks};
use super::{Engine, Passed};
use crate::Result;

/// Time of a stream's passes.
pub(super) struct Clock {
    queries: wgpu::QuerySet,
    /// The sending of each pass.
    sendings: Vec<usize>,
    sending: usize,
}

impl Engine {
    /// Whether the time of all that streams record from now on is taken; see [`times`](Self::times).
    ///
    /// # Errors
    /// [`ErrorKind::Device`](crate::ErrorKind::Device) if the device counts no time.
    pub fn watch_time(&self, on: bool) -> Result<()> {
        self.need_clock()?;
        self.clocked.store(on, Ordering::Relaxed);
        Ok(())
    }

    /// The passes of all streams that have ended since this was asked last.
    pub fn times(&self) -> Vec<Vec<Passed>> {
        std::mem::take(&mut *self.times.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Clock {
    /// A clock, if one is wanted.
    pub fn new(engine: &Engine) -> Option<Self> {
        if !engine.clocked.load(Ordering::Relaxed) {
            return None;
        }
        let queries = engine.gpu.checked("count time", || queries(&engine.gpu, 2 * PAIRS));
        Some(Self { queries: queries.ok()?, sendings: Vec::new(), sending: 0 })
    }

    /// Where the next pass writes its time. The time of later ones than there is room for is not taken.
    pub fn pass(&mut self) -> Option<wgpu::ComputePassTimestampWrites<'_>> {
        let at = self.sendings.len() as u32;
        if at >= PAIRS {
            return None;
        }
        self.sendings.push(self.sending);
        Some(pair(&self.queries, at))
    }

    /// What follows belongs to the next sending.
    pub fn sent(&mut self) {
        self.sending += 1;
    }

    /// Reads the time of all passes, which are submitted.
    pub fn read(self, engine: &Engine) -> Result<()> {
        if self.sendings.is_empty() {
            return Ok(());
        }
        let count = 2 * self.sendings.len() as u32;
        let ticks = engine.gpu.checked("count time", || {
            let encoder = engine.gpu.device().create_command_encoder(&Default::default());
            ticks(&engine.gpu, encoder, &self.queries, count)
        })??;
        let since = |tick: u64| passed(&engine.gpu, ticks[0], tick);
        let pass = |(pair, sending): (&[u64], &usize)| Passed {
            begin: since(pair[0]),
            end: since(pair[1]),
            sending: *sending,
        };
        let passes = ticks.chunks_exact(2).zip(&self.sendings).map(pass).collect();
        engine.times.lock().unwrap_or_else(PoisonError::into_inner).push(passes);
        Ok(())
    }
}
