//! When the device worked on what streams recorded, by timestamp queries: how long a step takes it, and how long
//! it stands idle between two.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Engine, buffer, read_buffer};
use crate::Result;

/// Most passes of a stream whose time is taken: every device has query sets of twice as many.
const MOST_PASSES: u32 = 2048;

/// When the device began and ended a pass, from the first of its stream on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// Its begin.
    pub begin: Duration,
    /// Its end.
    pub end: Duration,
    /// Which of the stream's sendings it was part of, from 0.
    pub sending: usize,
}

/// Time of a stream's passes.
pub(super) struct Clock {
    queries: wgpu::QuerySet,
    passes: u32,
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
        let descriptor = wgpu::QuerySetDescriptor {
            label: Some("passes"),
            ty: wgpu::QueryType::Timestamp,
            count: 2 * MOST_PASSES,
        };
        let queries = engine.gpu.checked("count time", || engine.gpu.device().create_query_set(&descriptor));
        Some(Self { queries: queries.ok()?, passes: 0, sendings: Vec::new(), sending: 0 })
    }

    /// Where the next pass writes its time.
    pub fn pass(&mut self) -> Option<wgpu::ComputePassTimestampWrites<'_>> {
        let at = 2 * self.passes;
        if self.passes >= MOST_PASSES {
            return None;
        }
        self.passes += 1;
        self.sendings.push(self.sending);
        Some(wgpu::ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: Some(at),
            end_of_pass_write_index: Some(at + 1),
        })
    }

    /// What follows belongs to the next sending.
    pub fn sent(&mut self) {
        self.sending += 1;
    }

    /// Reads the time of all passes, which are submitted.
    pub fn read(self, engine: &Engine) -> Result<()> {
        use wgpu::BufferUsages as U;
        if self.passes == 0 {
            return Ok(());
        }
        let count = 2 * self.passes;
        let words = engine.gpu.checked("count time", || {
            let usage = U::QUERY_RESOLVE | U::COPY_SRC;
            let ticks = buffer(&engine.gpu, "times", u64::from(count) * 8, usage);
            let mut encoder = engine.gpu.device().create_command_encoder(&Default::default());
            encoder.resolve_query_set(&self.queries, 0..count, &ticks, 0);
            engine.gpu.queue().submit([encoder.finish()]);
            read_buffer(&engine.gpu, &ticks, 0, ticks.size())
        })??;
        let ticks: Vec<u64> = bytemuck::cast_slice(&words).to_vec();
        let period = f64::from(engine.gpu.queue().get_timestamp_period()) * 1e-9;
        let first = ticks.first().copied().unwrap_or(0);
        let since = |tick: u64| Duration::from_secs_f64(tick.saturating_sub(first) as f64 * period);
        let passed = |(pair, sending): (&[u64], &usize)| Passed {
            begin: since(pair[0]),
            end: since(pair[1]),
            sending: *sending,
        };
        let passes = ticks.chunks_exact(2).zip(&self.sendings).map(passed).collect();
        engine.times.lock().unwrap_or_else(PoisonError::into_inner).push(passes);
        Ok(())
    }
}
