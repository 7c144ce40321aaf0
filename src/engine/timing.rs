//! GPU time of a plan's dispatches, by timestamp queries.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::run::portion;
use super::{Engine, Prepared, buffer, read_buffer};
use crate::{Error, ErrorKind, Result};

/// Most timestamps of a query set on any device, in pairs.
pub(super) const PAIRS: u32 = 2048;

/// Lets a pass write when it begins and ends: pair `at` of `queries`.
pub(super) fn pair(queries: &wgpu::QuerySet, at: u32) -> wgpu::ComputePassTimestampWrites<'_> {
    wgpu::ComputePassTimestampWrites {
        query_set: queries,
        beginning_of_pass_write_index: Some(2 * at),
        end_of_pass_write_index: Some(2 * at + 1),
    }
}

impl Engine {
    /// Whether the device counts time, as all methods of this file need.
    pub fn counts_time(&self) -> bool {
        self.gpu.device().features().contains(wgpu::Features::TIMESTAMP_QUERY)
    }

    /// Refuses a device that counts no time.
    pub(crate) fn need_clock(&self) -> Result<()> {
        if self.counts_time() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Device, "this device counts no time")
            .expected("a device with Features::TIMESTAMP_QUERY"))
    }

    /// GPU time of `times` runs of `prepared`, one after the other in one pass, without what comes
    /// in and goes out. The arena keeps what the last [`run`](Self::run) left there, and what other plans kept is
    /// that run's.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] if the device counts no time, or is lost.
    pub fn time(&self, prepared: &Prepared, times: usize) -> Result<Duration> {
        self.time_part(prepared, 0..prepared.steps.len(), times)
    }

    /// GPU time of one run of `prepared` in the portions that [`run`](Self::run) submits, so that a
    /// slow device is not held for long; what passes between portions does not count.
    ///
    /// # Errors
    /// As [`time`](Self::time).
    pub fn time_run(&self, prepared: &Prepared) -> Result<Duration> {
        let dispatches = &prepared.plan.dispatches;
        let (mut from, mut sum) = (0, Duration::ZERO);
        while from < dispatches.len() {
            let (to, _) = portion(dispatches, from, self.budget.load(Ordering::Relaxed));
            sum += self.time_part(prepared, from..to, 1)?;
            from = to;
        }
        Ok(sum)
    }

    /// GPU time of `times` runs of some dispatches.
    pub(crate) fn time_part(
        &self,
        prepared: &Prepared,
        part: Range<usize>,
        times: usize,
    ) -> Result<Duration> {
        let rows = prepared.last_rows();
        let ticks = self.timestamps(2, |encoder, queries| {
            let writes = Some(pair(queries, 0));
            let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes: writes };
            let mut pass = encoder.begin_compute_pass(&descriptor);
            for _ in 0..times {
                part.clone().try_for_each(|i| prepared.encode(&mut pass, i, rows.as_ref()))?;
            }
            Ok(())
        })?;
        Ok(self.passed(ticks[0], ticks[1]))
    }

    /// GPU time of each dispatch of `prepared`, in order, each in a pass of its own: some
    /// microseconds more a dispatch than in one pass.
    ///
    /// # Errors
    /// As [`time`](Self::time).
    pub fn time_each(&self, prepared: &Prepared) -> Result<Vec<Duration>> {
        let mut taken = Vec::with_capacity(prepared.steps.len());
        let rows = prepared.last_rows();
        let all: Vec<usize> = (0..prepared.steps.len()).collect();
        for portion in all.chunks(PAIRS as usize) {
            let ticks = self.timestamps(2 * portion.len() as u32, |encoder, queries| {
                for (at, step) in (0..).zip(portion) {
                    let writes = Some(pair(queries, at));
                    let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes: writes };
                    prepared.encode(&mut encoder.begin_compute_pass(&descriptor), *step, rows.as_ref())?;
                }
                Ok(())
            })?;
            taken.extend(ticks.chunks_exact(2).map(|pair| self.passed(pair[0], pair[1])));
        }
        Ok(taken)
    }

    /// Ticks that `encode` lets the device write into a query set of `count`.
    fn timestamps(
        &self,
        count: u32,
        encode: impl FnOnce(&mut wgpu::CommandEncoder, &wgpu::QuerySet) -> Result<()>,
    ) -> Result<Vec<u64>> {
        self.need_clock()?;
        self.gpu.checked("count time", || {
            let queries = self.queries(count);
            let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
            encode(&mut encoder, &queries)?;
            self.look_at_memory();
            self.ticks(encoder, &queries, count)
        })?
    }

    /// Room for so many timestamps.
    pub(super) fn queries(&self, count: u32) -> wgpu::QuerySet {
        self.gpu.device().create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("times"),
            ty: wgpu::QueryType::Timestamp,
            count,
        })
    }

    /// Submits `encoder`, and reads the first `count` of `queries` when all that was submitted is done.
    pub(super) fn ticks(
        &self,
        mut encoder: wgpu::CommandEncoder,
        queries: &wgpu::QuerySet,
        count: u32,
    ) -> Result<Vec<u64>> {
        use wgpu::BufferUsages as U;
        let ticks = buffer(&self.gpu, "times", u64::from(count) * 8, U::QUERY_RESOLVE | U::COPY_SRC);
        encoder.resolve_query_set(queries, 0..count, &ticks, 0);
        self.gpu.queue().submit([encoder.finish()]);
        Ok(bytemuck::cast_slice(&read_buffer(&self.gpu, &ticks, 0, ticks.size())?).to_vec())
    }

    /// Time from one tick to another.
    pub(super) fn passed(&self, from: u64, to: u64) -> Duration {
        let ticks = to.saturating_sub(from) as f64;
        Duration::from_secs_f64(ticks * f64::from(self.gpu.queue().get_timestamp_period()) * 1e-9)
    }
}
