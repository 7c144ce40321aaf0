//! Timestamps that the device writes at the begin and the end of a pass.

use std::time::Duration;

use super::buffers::{buffer, read_buffer};
use crate::Result;
use crate::gpu::Gpu;

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

/// Room for so many timestamps.
pub(super) fn queries(gpu: &Gpu, count: u32) -> wgpu::QuerySet {
    gpu.device().create_query_set(&wgpu::QuerySetDescriptor {
        label: Some("times"),
        ty: wgpu::QueryType::Timestamp,
        count,
    })
}

/// Submits `encoder`, and reads the first `count` of `queries` when all that was submitted is done.
pub(super) fn ticks(
    gpu: &Gpu,
    mut encoder: wgpu::CommandEncoder,
    queries: &wgpu::QuerySet,
    count: u32,
) -> Result<Vec<u64>> {
    use wgpu::BufferUsages as U;
    let ticks = buffer(gpu, "times", u64::from(count) * 8, U::QUERY_RESOLVE | U::COPY_SRC);
    encoder.resolve_query_set(queries, 0..count, &ticks, 0);
    gpu.queue().submit([encoder.finish()]);
    Ok(bytemuck::cast_slice(&read_buffer(gpu, &ticks, 0, ticks.size())?).to_vec())
}

/// Time from one tick to another.
pub(super) fn passed(gpu: &Gpu, from: u64, to: u64) -> Duration {
    let ticks = to.saturating_sub(from) as f64;
    Duration::from_secs_f64(ticks * f64::from(gpu.queue().get_timestamp_period()) * 1e-9)
}
