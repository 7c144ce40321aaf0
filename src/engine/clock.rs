//! Timestamps of the passes of streams: how long the device takes for a step, and how long it is idle between two.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::timestamps::{PAIRS, pair, passed, queries, ticks};
use super::{Engine, Passed};
use crate::Result;

/// The timestamps of a stream's passes.
pub(super) struct Clock {
    queries: wgpu::QuerySet,
    /// The sending of each pass.
    sendings: Vec<usize>,
    sending: usize,
}

impl Engine {
    /// Turns the timestamps of the passes of streams on or off; see [`times`](Self::times).
    ///
    /// # Errors
    /// [`ErrorKind::Device`](crate::ErrorKind::Device) if the device has no timestamps.
    pub fn watch_time(&self, on: bool) -> Result<()> {
        self.need_clock()?;
        self.clocked.store(on, Ordering::Relaxed);
        Ok(())
    }

    /// The passes of all streams that have ended since the last call.
    pub fn times(&self) -> Vec<Vec<Passed>> {
        std::mem::take(&mut *self.times.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Clock {
    /// A clock, if timestamps are turned on.
    pub fn new(engine: &Engine) -> Option<Self> {
        if !engine.clocked.load(Ordering::Relaxed) {
            return None;
        }
        let queries = engine.gpu.checked("measure time", || queries(&engine.gpu, 2 * PAIRS));
        Some(Self { queries: queries.ok()?, sendings: Vec::new(), sending: 0 })
    }

    /// Where the next pass writes its timestamps; None if the query set is full.
    pub fn pass(&mut self) -> Option<wgpu::ComputePassTimestampWrites<'_>> {
        let at = self.sendings.len() as u32;
        if at >= PAIRS {
            return None;
        }
        self.sendings.push(self.sending);
        Some(pair(&self.queries, at))
    }

    /// The following passes belong to the next submission of the caller.
    pub fn sent(&mut self) {
        self.sending += 1;
    }

    /// Reads the timestamps of all passes, which must be submitted.
    pub fn read(self, engine: &Engine) -> Result<()> {
        if self.sendings.is_empty() {
            return Ok(());
        }
        let count = 2 * self.sendings.len() as u32;
        let ticks = engine.gpu.checked("measure time", || {
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
