//! sagittal in an app with its own device: the app requests the device with features that make sagittal faster, keeps
//! drawing frames on it, shows progress with previews, and cancels.
//!
//! `cargo run --release --example embed [SIDE [MILLISECONDS]]`: the picture's side, and the longest wait of a frame.

use std::collections::BTreeMap;
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

    let request = Request::new("rocket, 3d style", Size::square(side)).with_cfg(embedded::CFG).with_steps(8);
    // The first run compiles kernels and uploads weights; the second is as all further ones.
    for round in ["first", "second"] {
        let run = model.run(&request).preview_every(4).on_event(|event| {
            if let Progress::Sampling { step, total, preview: Some(small), .. } = event {
                println!("step {step} of {total}, preview {}x{}", small.width, small.height);
            }
        });
        // It computes in its own thread. Frames are drawn meanwhile.
        let handle = run.start()?;
        let mut waits = BTreeMap::<&str, Vec<Duration>>::new();
        while !handle.is_finished() {
            let work = match handle.progress() {
                Some(Progress::Sampling { step, total, .. }) if step < total => "sampling",
                Some(Progress::Sampling { .. } | Progress::Decoding { .. }) => "decoding",
                _ => "preparing",
            };
            waits.entry(work).or_default().push(draw_frame(&device, &queue, &frame)?);
            std::thread::sleep(Duration::from_millis(16));
        }
        let made = handle.join()?;
        println!("{round} run: {} picture", made.pictures.len());
        for (work, mut waits) in waits {
            waits.sort();
            if let (Some(middle), Some(longest)) = (waits.get(waits.len() / 2), waits.last()) {
                let frames = waits.len();
                println!(
                    "  {work}: {frames} frames waited for {middle:.1?} in the middle, {longest:.1?} at most"
                );
            }
        }
    }

    // A run that is cancelled after two steps.
    let handle = model.run(&request).start()?;
    while !handle.is_finished() {
        draw_frame(&device, &queue, &frame)?;
        if matches!(handle.progress(), Some(Progress::Sampling { step: 2.., .. })) {
            handle.cancel();
        }
        std::thread::sleep(Duration::from_millis(16));
    }
    match handle.join() {
        Ok(_) => println!("done before the cancel"),
        Err(e) => println!("stopped as asked: {e}"),
    }
    Ok(())
}
