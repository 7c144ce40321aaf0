//! sagittal in an app with its own device: the app requests the device with features that make sagittal faster, keeps
//! using it, shows progress with previews, and cancels.
//!
//! `cargo run --release --example embed [SIDE [MILLISECONDS]]`: the picture's side, and the longest wait of a frame.

use std::time::{Duration, Instant};

use sagittal::{Gpu, Model, ModelOptions, Progress, Request, Size, embedded, wgpu};

/// Opens a device. Any device works; this descriptor gives the fastest one.
fn app_device() -> Result<(wgpu::Adapter, wgpu::Device, wgpu::Queue), Box<dyn std::error::Error>> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()))?;
    let wanted = wgpu::DeviceDescriptor { label: Some("app"), ..Gpu::device_descriptor(&adapter) };
    let (device, queue) = pollster::block_on(adapter.request_device(&wanted))?;
    Ok((adapter, device, queue))
}

/// The app's own work on the device: here, clearing a buffer. Waits until it is done, and returns the time.
fn draw_frame(
    device: &wgpu::Device,
    queue: &wgpu::Queue,
    buffer: &wgpu::Buffer,
) -> Result<Duration, wgpu::PollError> {
    let began = Instant::now();
    let mut encoder = device.create_command_encoder(&Default::default());
    encoder.clear_buffer(buffer, 0, None);
    let frame = queue.submit([encoder.finish()]);
    device.poll(wgpu::PollType::Wait { submission_index: Some(frame), timeout: None })?;
    Ok(began.elapsed())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let side = words.next().map_or(Ok(64), |word| word.parse())?;
    let wait = words.next().map_or(Ok(50), |word| word.parse())?;
    let (adapter, device, queue) = app_device()?;
    let gpu = Gpu::from_adapter(&adapter, device.clone(), queue.clone());
    let model = Model::new(
        gpu.with_longest_wait(Duration::from_millis(wait)),
        embedded::checkpoint()?,
        ModelOptions::default(),
    )?;
    let frame = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("frame"),
        size: 1 << 20,
        usage: wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });

    let request = Request::new("rocket, 3d style", Size::square(side)).with_cfg(embedded::CFG);
    let run = model.run(&request).preview_every(1).on_event(|event| {
        if let Progress::Sampling { step, total, preview: Some(small), .. } = event {
            println!("step {step} of {total}, preview {}x{}", small.width, small.height);
        }
    });
    // It computes in its own thread.
    let handle = run.start()?;
    // Frames are drawn meanwhile. After five steps the run is cancelled.
    let mut waits = Vec::new();
    while !handle.is_finished() {
        waits.push(draw_frame(&device, &queue, &frame)?);
        if matches!(handle.progress(), Some(Progress::Sampling { step: 5.., .. })) {
            handle.cancel();
        }
        std::thread::sleep(std::time::Duration::from_millis(16));
    }
    waits.sort();
    if let (Some(middle), Some(longest)) = (waits.get(waits.len() / 2), waits.last()) {
        println!(
            "{} frames, which waited for {middle:.1?} in the middle and {longest:.1?} at most",
            waits.len()
        );
    }
    match handle.join() {
        Ok(made) => println!("done before the cancel: {} pictures", made.pictures.len()),
        Err(e) => println!("stopped as asked: {e}"),
    }
    Ok(())
}
