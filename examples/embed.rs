//! sagittal in an app that has a device of its own: the app makes it with what pays for both, keeps using it,
//! follows the progress with previews, and cancels.
//!
//! `cargo run --release --example embed`

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use sagittal::Size;
use sagittal::{Event, Gpu, Model, ModelOptions, Request, embedded, wgpu};

/// What an app does at its start; any device would do, made by this descriptor it is the fastest.
fn app_device() -> Result<(wgpu::Adapter, wgpu::Device, wgpu::Queue), Box<dyn std::error::Error>> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()))?;
    let wanted = wgpu::DeviceDescriptor { label: Some("app"), ..Gpu::device_descriptor(&adapter) };
    let (device, queue) = pollster::block_on(adapter.request_device(&wanted))?;
    Ok((adapter, device, queue))
}

/// The app's own work on the device: here, clearing a buffer.
fn draw_frame(device: &wgpu::Device, queue: &wgpu::Queue, buffer: &wgpu::Buffer) {
    let mut encoder = device.create_command_encoder(&Default::default());
    encoder.clear_buffer(buffer, 0, None);
    queue.submit([encoder.finish()]);
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (adapter, device, queue) = app_device()?;
    let model = Model::new(
        Gpu::from_adapter(&adapter, device.clone(), queue.clone()),
        embedded::checkpoint()?,
        ModelOptions::default(),
    )?;
    let frame = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("frame"),
        size: 1 << 20,
        usage: wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });

    let cancel = Arc::new(AtomicBool::new(false));
    let step_now = Arc::new(AtomicUsize::new(0));
    let worker = {
        let (cancel, step_now) = (cancel.clone(), step_now.clone());
        std::thread::spawn(move || {
            let mut request = Request::new("rocket, 3d style", Size::square(64));
            request.guidance.cfg = embedded::CFG;
            let mut observe = |event: Event<'_>| {
                if let Event::Sampling { step, total, preview, .. } = event {
                    // It is read from the device, which may be lost meanwhile: then the run ends.
                    let Ok(small) = preview() else { return };
                    println!("step {step} of {total}, preview {}x{}", small.width, small.height);
                    step_now.store(step, Ordering::Relaxed);
                }
            };
            model.generate(&request, &mut observe, &cancel)
        })
    };
    // The user changes his mind after five steps; frames are drawn all the while.
    while !worker.is_finished() {
        draw_frame(&device, &queue, &frame);
        if step_now.load(Ordering::Relaxed) >= 5 {
            cancel.store(true, Ordering::Relaxed);
        }
        std::thread::sleep(std::time::Duration::from_millis(16));
    }
    match worker.join() {
        Ok(Err(e)) => println!("stopped as asked: {e}"),
        Ok(Ok(made)) => println!("done before the cancel: {} pictures", made.pictures.len()),
        Err(_) => println!("the worker failed"),
    }
    Ok(())
}
