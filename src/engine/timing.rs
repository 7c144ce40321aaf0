//! GPU time of a plan's dispatches, by timestamp queries.

use std::ops::Range;
use std::time::Duration;

use super::submission_size::portion;
use super::timestamps::{PAIRS, pair, passed, queries, ticks};
use super::{Engine, Prepared};
use crate::{Error, ErrorKind, Result};

impl Engine {
    /// Whether the device has timestamps, which all methods of this file need.
    pub fn counts_time(&self) -> bool {
        self.gpu.device().features().contains(wgpu::Features::TIMESTAMP_QUERY)
    }

    /// Returns an error if the device has no timestamps.
    pub(crate) fn need_clock(&self) -> Result<()> {
        if self.counts_time() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Device, "this device has no timestamps")
            .expected("a device with Features::TIMESTAMP_QUERY"))
    }

    /// GPU time of `times` runs of `prepared`, one after the other in one pass, without inputs and results. The
    /// activations and kept tensors are those of the last [`run`](Self::run).
    ///
    /// # Errors
    /// [`ErrorKind::Device`] if the device has no timestamps, or is lost.
    pub fn time(&self, prepared: &Prepared, times: usize) -> Result<Duration> {
        self.time_part(prepared, 0..prepared.plan().dispatches.len(), times)
    }

    /// GPU time of one run of `prepared`, in submissions of the size that [`run`](Self::run) uses, so that a slow device
    /// is not blocked for long. The time between submissions is not counted.
    ///
    /// # Errors
    /// As [`time`](Self::time).
    pub fn time_run(&self, prepared: &Prepared) -> Result<Duration> {
        let dispatches = &prepared.plan().dispatches;
        let (mut from, mut sum) = (0, Duration::ZERO);
        while from < dispatches.len() {
            let (to, _) = portion(dispatches, from, prepared.budget().get());
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
        Ok(passed(&self.gpu, ticks[0], ticks[1]))
    }

    /// GPU time of each dispatch of `prepared`, in order. Each has its own pass, which takes some microseconds more per
    /// dispatch than one pass for all.
    ///
    /// # Errors
    /// As [`time`](Self::time).
    pub fn time_each(&self, prepared: &Prepared) -> Result<Vec<Duration>> {
        let mut taken = Vec::with_capacity(prepared.plan().dispatches.len());
        let rows = prepared.last_rows();
        let all: Vec<usize> = (0..prepared.plan().dispatches.len()).collect();
        for portion in all.chunks(PAIRS as usize) {
            let ticks = self.timestamps(2 * portion.len() as u32, |encoder, queries| {
                for (at, step) in (0..).zip(portion) {
                    let writes = Some(pair(queries, at));
                    let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes: writes };
                    prepared.encode(&mut encoder.begin_compute_pass(&descriptor), *step, rows.as_ref())?;
                }
                Ok(())
            })?;
            taken.extend(ticks.chunks_exact(2).map(|pair| passed(&self.gpu, pair[0], pair[1])));
        }
        Ok(taken)
    }

    /// The ticks that the device writes into a query set of `count` in the commands of `encode`.
    fn timestamps(
        &self,
        count: u32,
        encode: impl FnOnce(&mut wgpu::CommandEncoder, &wgpu::QuerySet) -> Result<()>,
    ) -> Result<Vec<u64>> {
        self.need_clock()?;
        self.gpu.checked("measure time", || {
            let queries = queries(&self.gpu, count);
            let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
            encode(&mut encoder, &queries)?;
            self.note_memory();
            ticks(&self.gpu, encoder, &queries, count)
        })?
    }
}
