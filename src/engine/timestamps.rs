//! Timestamps that the device writes at the start and the end of a pass.

use std::time::Duration;

use super::buffers::{buffer, read_buffer};
use crate::Result;
use crate::gpu::Gpu;

/// When the device began and ended a pass, counted from the start of the first pass of its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// When it began.
    pub begin: Duration,
    /// When it ended.
    pub end: Duration,
    /// The number of [`Stream::send`](super::Stream::send) calls before it.
    pub sending: usize,
}

/// Most pairs of timestamps of a query set, on any device.
pub(super) const PAIRS: u32 = 2048;

/// The timestamp writes of a pass, into pair `at` of `queries`.
pub(super) fn pair(queries: &wgpu::QuerySet, at: u32) -> wgpu::ComputePassTimestampWrites<'_> {
    wgpu::ComputePassTimestampWrites {
        query_set: queries,
        beginning_of_pass_write_index: Some(2 * at),
        end_of_pass_write_index: Some(2 * at + 1),
    }
}

/// A query set for `count` timestamps.
pub(super) fn queries(gpu: &Gpu, count: u32) -> wgpu::QuerySet {
    gpu.device().create_query_set(&wgpu::QuerySetDescriptor {
        label: Some("times"),
        ty: wgpu::QueryType::Timestamp,
        count,
    })
}

/// Submits `encoder`, and reads the first `count` of `queries` after all submitted work is done.
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

/// The time between two ticks.
pub(super) fn passed(gpu: &Gpu, from: u64, to: u64) -> Duration {
    let ticks = to.saturating_sub(from) as f64;
    Duration::from_secs_f64(ticks * f64::from(gpu.queue().get_timestamp_period()) * 1e-9)
}
