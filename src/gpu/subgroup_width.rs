//! The width of subgroups where a driver chooses it when it compiles: a tiny kernel says what it got.

use super::checked;
use crate::{Error, ErrorKind, Result};

/// Writes the width of its subgroups, once for the workgroup.
const KERNEL: &str = "
@group(0) @binding(0) var<storage, read_write> width: array<u32>;
@compute @workgroup_size(SIZE)
fn main(@builtin(subgroup_size) own: u32, @builtin(local_invocation_index) t: u32) {
    if t == 0u {
        width[0] = own;
    }
}
";

/// The width of subgroups in workgroups of each of `sizes`; `device` must have `Features::SUBGROUP`. Waits for the device.
///
/// # Errors
/// [`ErrorKind::Device`](crate::ErrorKind::Device) if it is lost or refuses the kernel.
pub fn of_workgroups(device: &wgpu::Device, queue: &wgpu::Queue, sizes: &[u32]) -> Result<Vec<u32>> {
    sizes.iter().map(|size| of_workgroup(device, queue, *size)).collect()
}

fn of_workgroup(device: &wgpu::Device, queue: &wgpu::Queue, size: u32) -> Result<u32> {
    const WHAT: &str = "find the width of subgroups";
    let back = checked(device, WHAT, || submit(device, queue, size))?;
    back.map_async(wgpu::MapMode::Read, .., |_| {});
    let lost = |e: &dyn std::fmt::Display| {
        Error::new(ErrorKind::Device, format!("the device failed to {WHAT}")).found(e.to_string())
    };
    device.poll(wgpu::PollType::wait_indefinitely()).map_err(|e| lost(&e))?;
    let view = back.get_mapped_range(..).map_err(|e| lost(&e))?;
    let bytes: [u8; 4] = view[..].try_into().map_err(|e| lost(&e))?;
    Ok(u32::from_le_bytes(bytes))
}

/// Runs the kernel; its result will be in the buffer.
fn submit(device: &wgpu::Device, queue: &wgpu::Queue, size: u32) -> wgpu::Buffer {
    use wgpu::BufferUsages as U;
    let label = Some("subgroup width");
    let source = wgpu::ShaderSource::Wgsl(KERNEL.replace("SIZE", &size.to_string()).into());
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label, source });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label,
        layout: None,
        module: &module,
        entry_point: Some("main"),
        compilation_options: Default::default(),
        cache: None,
    });
    let [result, back] = [U::STORAGE | U::COPY_SRC, U::MAP_READ | U::COPY_DST].map(|usage| {
        device.create_buffer(&wgpu::BufferDescriptor { label, size: 4, usage, mapped_at_creation: false })
    });
    let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label,
        layout: &pipeline.get_bind_group_layout(0),
        entries: &[wgpu::BindGroupEntry { binding: 0, resource: result.as_entire_binding() }],
    });
    let mut encoder = device.create_command_encoder(&Default::default());
    let mut pass = encoder.begin_compute_pass(&Default::default());
    pass.set_pipeline(&pipeline);
    pass.set_bind_group(0, &group, &[]);
    pass.dispatch_workgroups(1, 1, 1);
    drop(pass);
    encoder.copy_buffer_to_buffer(&result, 0, &back, 0, 4);
    queue.submit([encoder.finish()]);
    back
}

#[cfg(test)]
mod tests {
    use crate::gpu::Gpu;

    #[test]
    fn a_driver_with_one_width_has_it_in_every_workgroup() {
        if std::env::var("SAGITTAL_TEST_GPU").is_ok_and(|v| v == "off") {
            return;
        }
        let gpu = Gpu::open(std::env::var("SAGITTAL_DEVICE").ok().as_deref()).unwrap();
        let info = gpu.device().adapter_info();
        if !gpu.device().features().contains(wgpu::Features::SUBGROUP) {
            return;
        }
        let widths = super::of_workgroups(gpu.device(), gpu.queue(), &[64, 128, 256]).unwrap();
        let reported = info.subgroup_min_size..=info.subgroup_max_size;
        assert!(widths.iter().all(|width| reported.contains(width)), "{widths:?}, {reported:?}");
    }
}
