//! Buffers of the device: made, bound, read, and waited for.

use crate::gpu::Gpu;
use crate::{Error, ErrorKind, Result};

/// Usages of buffers for tensors: bound by kernels, copied from and to.
pub(super) const TENSORS: wgpu::BufferUsages = {
    use wgpu::BufferUsages as U;
    U::STORAGE.union(U::COPY_SRC).union(U::COPY_DST)
};

/// Reads `bytes` of a buffer from `offset` on, after all submitted work is done.
pub(super) fn read_buffer(gpu: &Gpu, from: &wgpu::Buffer, offset: u64, bytes: u64) -> Result<Vec<u32>> {
    use wgpu::BufferUsages as U;
    let copy = buffer(gpu, "copy", bytes, U::MAP_READ | U::COPY_DST);
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    encoder.copy_buffer_to_buffer(from, offset, &copy, 0, bytes);
    let index = gpu.queue().submit([encoder.finish()]);
    copy.slice(..).map_async(wgpu::MapMode::Read, |_| {});
    wait(gpu, index)?;
    let view = copy.slice(..).get_mapped_range().map_err(|e| lost().cause(e))?;
    Ok(bytemuck::pod_collect_to_vec(&view[..]))
}

/// Waits for a submission.
pub(super) fn wait(gpu: &Gpu, index: wgpu::SubmissionIndex) -> Result<()> {
    let poll = wgpu::PollType::Wait { submission_index: Some(index), timeout: None };
    gpu.device().poll(poll).map(|_| ()).map_err(|e| lost().cause(e))
}

/// The error of a device that is gone.
pub(super) fn lost() -> Error {
    Error::new(ErrorKind::Device, "the device was lost").hint("make a new device and load the model again")
}

/// A new buffer.
pub(super) fn buffer(gpu: &Gpu, label: &str, size: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
    gpu.device().create_buffer(&wgpu::BufferDescriptor {
        label: Some(label),
        size: size.next_multiple_of(4),
        usage,
        mapped_at_creation: false,
    })
}

/// An entry of a bind group.
pub(super) fn entry(binding: u32, buffer: &wgpu::Buffer, offset: u64, size: u64) -> wgpu::BindGroupEntry<'_> {
    let size = wgpu::BufferSize::new(size);
    wgpu::BindGroupEntry {
        binding,
        resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size }),
    }
}
