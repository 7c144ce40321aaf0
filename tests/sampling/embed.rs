//! The library in an app: the device of the app, with default limits and no features.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::common::{default_device, gpu};
use sagittal::Size;
use sagittal::internals::kernels::Precision;
use sagittal::{CancelToken, ErrorKind, Gpu, Model, ModelOptions, Progress, Request, Sag, embedded, wgpu};

/// A device as an app makes it, with handlers that count their calls.
fn app_device() -> Option<(wgpu::Device, wgpu::Queue, Arc<AtomicUsize>)> {
    let (device, queue) = default_device()?;
    assert_eq!(device.limits().max_storage_buffers_per_shader_stage, 8);
    let reported = Arc::new(AtomicUsize::new(0));
    let count = reported.clone();
    device.on_uncaptured_error(Arc::new(move |e| {
        eprintln!("the app's handler was called: {e}");
        count.fetch_add(1, Ordering::Relaxed);
    }));
    Some((device, queue, reported))
}

fn model(device: &wgpu::Device, queue: &wgpu::Queue, precision: Precision) -> Model {
    let gpu = Gpu::from_device(device.clone(), queue.clone());
    let options = ModelOptions { precision: Some(precision), ..Default::default() };
    Model::new(gpu, embedded::checkpoint().expect("embedded"), options).expect("model")
}

fn small() -> Request {
    let mut r = Request::new("fox, 3d style", Size::square(64));
    (r.schedule.steps, r.guidance.cfg) = (2, 3.5);
    r
}

#[test]
fn a_default_device_without_features_runs_in_both_precisions() {
    let Some((device, queue, reported)) = app_device() else { return };
    for precision in [Precision::F32, Precision::F16] {
        let m = model(&device, &queue, precision);
        let mut steps = Vec::new();
        let mut previews = 0;
        let request = small();
        let made = m.run(&request).preview_every(1).on_event(|e| {
            if let Progress::Sampling { step, preview: Some(p), .. } = e {
                steps.push(step);
                previews += usize::from((p.width, p.height, p.rgb.len()) == (8, 8, 192));
            }
        });
        let made = made.generate();
        assert_eq!(made.expect("a picture").pictures[0].rgb.len(), 64 * 64 * 3);
        assert_eq!(steps, [0, 1, 2]);
        assert_eq!(previews, 3);
    }
    assert_eq!(reported.load(Ordering::Relaxed), 0);
}

#[test]
fn errors_are_typed_and_never_reach_the_apps_handler() {
    let Some((device, queue, reported)) = app_device() else { return };
    let m = model(&device, &queue, Precision::F32);
    let go = CancelToken::new();
    let run = |r: &Request, cancel: &CancelToken| m.run(r).cancel(cancel).generate().err().map(|e| e.kind());
    let set = |f: fn(&mut Request)| {
        let mut r = small();
        f(&mut r);
        r
    };
    assert_eq!(run(&set(|r| r.size.width = 60), &go), Some(ErrorKind::Usage));
    assert_eq!(run(&set(|r| r.schedule.steps = 0), &go), Some(ErrorKind::Usage));
    assert_eq!(
        run(&set(|r| r.guidance.set_sag(Sag { scale: 9.0, ..Sag::default() })), &go),
        Some(ErrorKind::Usage)
    );
    assert_eq!(run(&set(|r| r.clip_skip = Some(40)), &go), Some(ErrorKind::Usage));
    assert_eq!(run(&set(|r| r.limits.memory = Some(1 << 20)), &go), Some(ErrorKind::Memory));
    // One row of this size exceeds the 128 MiB that a default device can bind.
    assert_eq!(run(&set(|r| (r.size.width, r.size.height) = (16_384, 16_384)), &go), Some(ErrorKind::Memory));
    assert_eq!(run(&set(|r| r.guidance.cfg = 1e30), &go), Some(ErrorKind::NonFinite));
    let cancelled = CancelToken::new();
    cancelled.cancel();
    assert_eq!(run(&small(), &cancelled), Some(ErrorKind::Cancelled));
    // The device still works afterwards.
    assert_eq!(run(&small(), &go), None);
    assert_eq!(reported.load(Ordering::Relaxed), 0);
}

#[test]
fn a_non_finite_sampling_names_its_step() {
    let Some((device, queue, _)) = app_device() else { return };
    let m = model(&device, &queue, Precision::F32);
    let mut r = small();
    r.guidance.cfg = 1e30;
    let error = m.generate(&r).expect_err("infinite");
    // The first step's 1e30 overflows in the second.
    assert!(error.to_string().contains("step 2 of 2"), "{error}");
}

#[test]
fn cancel_in_mid_run_ends_it_and_leaves_the_model_usable() {
    let Some((device, queue, _)) = app_device() else { return };
    let m = model(&device, &queue, Precision::F32);
    let cancel = CancelToken::new();
    let mut r = small();
    r.schedule.steps = 50;
    let mut last = 0;
    let run = m.run(&r).cancel(&cancel).on_event(|e| {
        if let Progress::Sampling { step, .. } = e {
            last = step;
            if step >= 3 {
                cancel.cancel();
            }
        }
    });
    assert_eq!(run.generate().expect_err("cancelled").kind(), ErrorKind::Cancelled);
    assert!((3..=4).contains(&last), "stopped at step {last}");
    let pictures = |m: &Model| m.generate(&small()).expect("picture").pictures;
    assert_eq!(pictures(&m), pictures(&model(&device, &queue, Precision::F32)));
}

#[test]
fn threads_share_a_device() {
    let Some((device, queue, reported)) = app_device() else { return };
    let draw = || {
        let m = model(&device, &queue, Precision::F32);
        m.generate(&small()).expect("picture").pictures
    };
    let [a, b] = std::thread::scope(|s| [s.spawn(draw), s.spawn(draw)].map(|t| t.join().expect("no panic")));
    assert_eq!(a, b);
    assert_eq!(reported.load(Ordering::Relaxed), 0);
}

#[test]
fn one_model_serves_several_threads() {
    let Some((device, queue, _)) = app_device() else { return };
    let m = model(&device, &queue, Precision::F32);
    let draw = || m.generate(&small()).expect("picture").pictures;
    let [a, b] = std::thread::scope(|s| [s.spawn(draw), s.spawn(draw)].map(|t| t.join().expect("no panic")));
    assert_eq!(a, b);
}

/// With our descriptor nothing is unused; with default limits and no features something is, and the report says what.
#[test]
fn a_report_says_what_a_device_leaves_unused() {
    let Some(opened) = gpu() else { return };
    assert!(opened.unused().is_empty(), "{:?}", opened.unused());
    let name = opened.device().adapter_info().name;
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    let adapter = adapters.iter().find(|a| a.get_info().name == name).expect("the adapter again");
    let made = |descriptor: &wgpu::DeviceDescriptor<'_>| {
        pollster::block_on(adapter.request_device(descriptor)).expect("a device")
    };
    let (device, queue) = made(&Gpu::device_descriptor(adapter));
    let best = Gpu::from_adapter(adapter, device, queue);
    assert!(best.unused().is_empty(), "{:?}", best.unused());
    assert_eq!(best.profile(), opened.profile());

    let (device, queue) = made(&wgpu::DeviceDescriptor::default());
    let unknown = Gpu::from_device(device.clone(), queue.clone());
    let known = Gpu::from_adapter(adapter, device, queue);
    let (gain, features) = match opened.profile().has_simd() {
        true => ("subgroups and 64-bit integers", "SHADER_INT64, SUBGROUP"),
        false => ("cooperative matrices", "EXPERIMENTAL_COOPERATIVE_MATRIX"),
    };
    let has_matrices = opened.profile().uses_matrices();
    let cpu = opened.profile().has_simd();
    for (gpu, sure) in [(unknown, false), (known, true)] {
        let m = Model::new(gpu, embedded::checkpoint().expect("embedded"), ModelOptions::default())
            .expect("model");
        let report = m.report(&small()).expect("a plan");
        let text = report.unused.join("\n");
        assert_eq!(report.unused, m.engine().gpu().unused());
        let expected = !sure || cpu || has_matrices;
        assert_eq!(text.contains(gain) && text.contains(features), expected, "{text}");
        assert_eq!(text.contains("if the adapter has"), !sure, "{text}");
        assert!(text.contains("buffers of more than 256 MiB"), "{text}");
    }
}

/// A run in a thread of its own gives what a plain call gives, and can be watched, cancelled and dropped.
#[test]
fn a_run_in_a_thread_of_its_own() {
    let Some((device, queue, reported)) = app_device() else { return };
    let m = model(&device, &queue, Precision::F32);
    let plain = m.generate(&small()).expect("a picture");

    let (sender, events) = std::sync::mpsc::channel();
    let handle = m.run(&small()).preview_every(1).on_event(move |event| drop(sender.send(event))).start();
    let handle = handle.expect("a thread");
    // Events are values: they can be received, and kept, elsewhere.
    let last = events.iter().filter(|e| matches!(e, Progress::Sampling { .. })).last();
    let Some(Progress::Sampling { step: 2, total: 2, preview: Some(shown), .. }) = last else {
        panic!("{last:?}")
    };
    assert_eq!(handle.preview(), Some(shown));
    assert!(matches!(handle.progress(), Some(Progress::Decoding { picture: 0, total: 1 })));
    assert!(handle.join().expect("a picture") == plain);

    let long = small().with_steps(500);
    let token = CancelToken::new();
    let both = [m.run(&long).cancel(&token).start(), m.run(&long).cancel(&token).start()];
    token.cancel();
    for handle in both {
        let error = handle.expect("a thread").join().expect_err("cancelled");
        assert_eq!(error.kind(), ErrorKind::Cancelled);
    }
    let handle = m.run(&long).start().expect("a thread");
    handle.cancel();
    assert_eq!(handle.join().expect_err("cancelled").kind(), ErrorKind::Cancelled);

    // Whoever drops the handle is not interested any more: the channel closes, since the run ends.
    let (sender, events) = std::sync::mpsc::channel();
    drop(m.run(&long).on_event(move |event| drop(sender.send(event))).start().expect("a thread"));
    let steps = events.iter().filter(|e| matches!(e, Progress::Sampling { .. })).count();
    assert!(steps < 500, "{steps} steps after the handle was dropped");

    let handle = m.run(&small()).on_event(|_| panic!("the app's own fault")).start().expect("a thread");
    assert_eq!(handle.join().expect_err("it panicked").kind(), ErrorKind::Usage);
    assert!(m.generate(&small()).expect("a picture") == plain, "the model is as usable as before");
    assert_eq!(reported.load(Ordering::Relaxed), 0);
}

/// How long an app's frames may wait changes no picture.
#[test]
fn pictures_do_not_depend_on_the_longest_wait() {
    let Some((device, queue, _)) = app_device() else { return };
    let draw = |wait: Duration| {
        let gpu = Gpu::from_device(device.clone(), queue.clone()).with_longest_wait(wait);
        let options = ModelOptions { precision: Some(Precision::F32), ..ModelOptions::default() };
        let checkpoint = embedded::checkpoint().expect("embedded");
        Model::new(gpu, checkpoint, options).expect("model").generate(&small()).expect("a picture")
    };
    let usual = draw(Duration::from_millis(200));
    for wait in [Duration::ZERO, Duration::from_millis(1), Duration::MAX] {
        assert!(draw(wait) == usual, "{wait:?}");
    }
}
