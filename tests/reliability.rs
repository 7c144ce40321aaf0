//! Problems around a run: a lost device, too little memory, a caller who cancels, other users of the device, weights that
//! are not finite. The table in docs/RELIABILITY.md says which test covers which promise.

// Tests panic where something is not as they expect.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{Failures, default_device, gpu, own_gpu};
use sagittal::Size;
use sagittal::guidance::term::{At, GuidanceTerm, GuidedStep, Wants};
use sagittal::guidance::{Guidance, Term};
use sagittal::internals::kernels::Precision;
use sagittal::latent::Value;
use sagittal::pipeline::DeviceContext;
use sagittal::{
    CancelToken, Checkpoint, ErrorKind, Gpu, Model, ModelOptions, Progress, Request, Result, Sag, embedded,
    wgpu,
};

static GO: AtomicBool = AtomicBool::new(false);

fn options(precision: Precision) -> ModelOptions {
    ModelOptions { precision: Some(precision), ..Default::default() }
}

fn model(gpu: Gpu, precision: Precision) -> Model {
    Model::new(gpu, embedded::checkpoint().expect("embedded"), options(precision)).expect("model")
}

fn small(seed: u64) -> Request {
    let mut r = Request::new("fox, 3d style", Size::square(64));
    (r.schedule.steps, r.guidance.cfg, r.seed) = (2, 3.5, seed);
    r
}

fn run(m: &Model, r: &Request) -> Result<Vec<sagittal::Picture>> {
    Ok(m.generate(r)?.pictures)
}

fn draw(m: &Model, r: &Request) -> Vec<sagittal::Picture> {
    run(m, r).expect("a picture")
}

/// Bytes of buffers when all work is done, without the memory that the engine keeps for the next work. Buffers that a
/// thread has just dropped are freed by a later poll.
fn settled(m: &Model) -> u64 {
    m.engine().release_spare_memory();
    let gpu = m.engine().gpu();
    let polled = || {
        gpu.device().poll(wgpu::PollType::wait_indefinitely()).expect("a device");
        gpu.buffer_bytes()
    };
    let mut bytes = polled();
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(5));
        let now = polled();
        if now == bytes {
            break;
        }
        bytes = now;
    }
    bytes
}

#[test]
fn a_lost_device_is_reported_within_two_seconds_and_a_new_one_gives_the_same_bytes() {
    let Some(first) = own_gpu() else { return };
    let m = model(first.clone(), Precision::F32);
    let want = draw(&m, &small(1));
    // In the middle of a step, from another thread.
    let (mut long, lost) = (small(1), std::sync::Mutex::new(None));
    long.schedule.steps = 1000;
    let (say, received) = std::sync::mpsc::channel();
    let error = std::thread::scope(|scope| {
        let (device, lost) = (first.device(), &lost);
        scope.spawn(move || {
            received.recv().expect("a step is done");
            std::thread::sleep(Duration::from_millis(5));
            *lost.lock().expect("no panic") = Some(Instant::now());
            device.destroy();
        });
        let mut observe = |e: Progress| {
            if let Progress::Sampling { step: 1, .. } = e {
                say.send(()).expect("it waits");
            }
        };
        m.run(&long).on_event(&mut observe).generate().map(drop).expect_err("the device is lost")
    });
    let took = lost.lock().expect("no panic").expect("it was destroyed").elapsed();
    println!("reported {took:?} after a loss in mid-step: {error}");
    assert_eq!(error.kind(), ErrorKind::Device, "{error}");
    assert!(took <= Duration::from_secs(2), "{took:?}");
    assert_eq!(run(&m, &small(1)).expect_err("still lost").kind(), ErrorKind::Device);

    let second = own_gpu().expect("an adapter");
    let m = model(second.clone(), Precision::F32);
    assert!(draw(&m, &small(1)) == want, "another picture on a new device");
    // In the observer's own call, before the picture is decoded.
    let mut when = None;
    let mut observe = |e: Progress| {
        if let Progress::Decoding { .. } = e {
            when = Some(Instant::now());
            second.device().destroy();
        }
    };
    let error = m.run(&small(1)).on_event(&mut observe).generate().map(drop).expect_err("the device is lost");
    let took = when.expect("it came to decoding").elapsed();
    println!("reported {took:?} after a loss before decoding: {error}");
    assert_eq!(error.kind(), ErrorKind::Device, "{error}");
    assert!(took <= Duration::from_secs(2), "{took:?}");
}

/// Work that can be cancelled, and says when its phase begins.
type Work<'a> = &'a dyn Fn(&CancelToken, &dyn Fn()) -> Result<()>;

/// Time from setting the flag to the end of `work`, which calls its second argument when its phase begins.
fn cancelled(delay: Duration, work: impl FnOnce(&CancelToken, &dyn Fn()) -> Result<()>) -> Duration {
    let (cancel, begun) = (CancelToken::new(), AtomicBool::new(false));
    let set = std::sync::Mutex::new(None);
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !begun.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_micros(200));
            }
            std::thread::sleep(delay);
            *set.lock().expect("no panic") = Some(Instant::now());
            cancel.cancel();
        });
        let result = work(&cancel, &|| begun.store(true, Ordering::Release));
        let took = set.lock().expect("no panic").map(|at| at.elapsed());
        // If the phase never began, the other thread must still end.
        begun.store(true, Ordering::Release);
        result.map(|()| None).or_else(|e| {
            assert_eq!(e.kind(), ErrorKind::Cancelled, "{e}");
            Ok::<_, sagittal::Error>(took)
        })
    });
    result.expect("judged").expect("it ended before it could be cancelled")
}

/// In every phase. On a GPU a run ends within 250 ms. A CPU driver gets ten times as long, since its time depends on how
/// busy the machine is.
#[test]
fn cancel_ends_every_phase_within_a_submission_and_leaves_no_buffers() {
    let Some(gpu) = own_gpu() else { return };
    let slow = gpu.profile().cpu;
    let (limit, delay) = match slow {
        true => (Duration::from_millis(2500), Duration::from_millis(10)),
        false => (Duration::from_millis(250), Duration::ZERO),
    };
    let device_context = DeviceContext::new(gpu.clone()).expect("device_context");
    let checkpoint = Arc::new(embedded::checkpoint().expect("embedded"));
    let open = || {
        Model::open_in(device_context.clone(), checkpoint.clone(), &options(Precision::F32)).expect("model")
    };
    let m = open();
    let side = if slow { 256 } else { 1024 };
    let mut r = small(1);
    (r.size.width, r.size.height, r.schedule.steps) = (side, side, 1);
    r.prompt = "fox, 3d style, ".repeat(200);
    r.guidance.set_sag(Sag::off());
    let values = vec![0.1; side * side * 3];
    // Now kernels are compiled, weights uploaded, and the speed is known.
    let latent = m.generate(&r).expect("a picture").latent;
    m.encode_values(side, side, &values, &GO).expect("a latent");
    let upon = |phase: fn(&Progress) -> bool| {
        let (m, r) = (&m, &r);
        move |cancel: &CancelToken, begun: &dyn Fn()| {
            let mut observe = |e: Progress| {
                if phase(&e) {
                    begun();
                }
            };
            m.run(r).on_event(&mut observe).cancel(cancel).generate().map(drop)
        }
    };
    let mut failures = Failures::default();
    let mut judge = |phase: &str, work: Work<'_>| {
        let before = settled(&m);
        let took = cancelled(delay, work);
        println!("{phase}: ended {took:.0?} after cancel");
        failures.check(took <= limit, || format!("{phase}: {took:?}"));
        let after = settled(&m);
        failures.check(before == after, || format!("{phase}: {before} bytes of buffers became {after}"));
    };
    judge("text encoder", &upon(|e| matches!(e, Progress::Encoding)));
    judge("UNet", &upon(|e| matches!(e, Progress::Sampling { step: 0, .. })));
    judge("VAE decoder", &|cancel, begun| {
        begun();
        m.decode(&latent, &mut |_| {}, cancel.flag()).map(drop)
    });
    judge("VAE encoder", &|cancel, begun| {
        begun();
        m.encode_values(side, side, &values, cancel.flag()).map(drop)
    });
    judge("upload", &|cancel, begun| {
        let fresh = open();
        begun();
        // The weights of a small model may be uploaded before they can be cancelled.
        match fresh.unet_weights(cancel.flag()) {
            Ok(_) => Err(sagittal::Error::cancelled()),
            Err(e) => Err(e),
        }
    });
    failures.finish();
    // The model still works.
    assert_eq!(draw(&m, &small(1)).len(), 1);
}

/// A term that does nothing until evaluation `bad`, counted from 0, whose result it makes NaN. It also counts the
/// evaluations of a forecast: see `GuidanceTerm::pull`.
#[derive(Debug)]
struct Poison {
    bad: usize,
    /// Evaluations that were recorded.
    seen: Arc<AtomicUsize>,
}

impl GuidanceTerm for Poison {
    fn wants(&self, _: &At<'_>) -> Option<Wants> {
        Some(Wants::default())
    }

    fn pull(&self, step: &mut GuidedStep<'_>) -> Result<Option<Value>> {
        let now = self.seen.fetch_add(1, Ordering::Relaxed);
        Ok(step.cond().map(|cond| cond.scaled(if now == self.bad { f32::NAN } else { 0.0 })))
    }
}

/// NaN, cancel and a lost device, each in the middle of a run while steps are submitted that are not reported yet. How
/// many are submitted ahead depends on the measured speed of the device, so each case is repeated until there are some.
#[test]
fn errors_while_steps_are_submitted_ahead() {
    const TRIES: usize = 10;
    let (steps, bad, stop) = (20, 6, 3);
    let named = format!("step {} of {steps}", bad + 1);
    type Stop<'a> = &'a dyn Fn(&CancelToken, &Gpu);
    let cases: [(&str, usize, Stop<'_>, ErrorKind, &str); 3] = [
        ("NaN", bad, &|_, _| {}, ErrorKind::NonFinite, &named),
        ("cancel", usize::MAX, &|cancel, _| cancel.cancel(), ErrorKind::Cancelled, ""),
        ("a lost device", usize::MAX, &|_, gpu| gpu.device().destroy(), ErrorKind::Device, ""),
    ];
    let mut failures = Failures::default();
    for (what, bad, upon_stop, kind, word) in cases {
        let mut most_ahead = 0;
        for _ in 0..TRIES {
            let Some(gpu) = own_gpu() else { return };
            // On a slow device a step that takes long is not submitted ahead: one row per step, where much is short. The
            // speed is learned from call to call.
            let patient = gpu.clone().with_longest_wait(Duration::from_secs(2));
            let m =
                Model::new(patient, common::synthetic("tiny-sd1"), options(Precision::F32)).expect("model");
            let mut r = Request::new("fox", Size::square(64)).with_steps(8);
            r.guidance = Guidance::new(1.0).with(Sag::off());
            run(&m, &r).expect("a picture");
            let before = settled(&m);
            let (seen, cancel) = (Arc::new(AtomicUsize::new(0)), CancelToken::new());
            r.schedule.steps = steps;
            r.guidance.terms.push(Term::own(Poison { bad, seen: seen.clone() }));
            let mut reported = 0;
            let mut observe = |e: Progress| {
                if let Progress::Sampling { step, .. } = e {
                    if step == 0 {
                        // So far the evaluations of the forecast were counted.
                        seen.store(0, Ordering::Relaxed);
                        return;
                    }
                    reported = step;
                    most_ahead = most_ahead.max(seen.load(Ordering::Relaxed) - step);
                    if step == stop {
                        upon_stop(&cancel, &gpu);
                    }
                }
            };
            let error = m
                .run(&r)
                .on_event(&mut observe)
                .cancel(&cancel)
                .generate()
                .map(drop)
                .expect_err("it goes wrong");
            println!("{what}: {reported} steps reported, {most_ahead} ahead at most: {error}");
            failures.check(error.kind() == kind && error.to_string().contains(word), || {
                format!("{what}: {error}")
            });
            failures.check(reported < steps, || format!("{what}: all steps were reported"));
            if kind != ErrorKind::Device {
                let after = settled(&m);
                failures.check(before == after, || format!("{what}: {before} bytes became {after}"));
            }
            if most_ahead > 0 {
                break;
            }
        }
        failures.check(most_ahead > 0, || format!("{what}: no step was submitted ahead"));
    }
    failures.finish();
}

#[test]
fn two_threads_on_one_device_get_the_bytes_of_one_alone() {
    let Some(gpu) = gpu() else { return };
    let work = |seed: u64, precision: Precision| {
        let m = model(gpu.clone(), precision);
        [draw(&m, &small(seed)), draw(&m, &small(seed + 10))]
    };
    let jobs = [(1, Precision::F32), (2, Precision::F16)];
    let alone = jobs.map(|(seed, precision)| work(seed, precision));
    let together = std::thread::scope(|s| {
        jobs.map(|(seed, precision)| s.spawn(move || work(seed, precision)))
            .map(|t| t.join().expect("no panic"))
    });
    assert!(alone == together && alone[0] != alone[1]);
}

/// Callbacks and error scopes of an app stay as they are, through every kind of failure.
#[test]
fn the_apps_callbacks_and_error_scopes_are_left_alone() {
    let Some((device, queue)) = default_device() else { return };
    let (errors, losses) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let count = errors.clone();
    device.on_uncaptured_error(Arc::new(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
    }));
    let count = losses.clone();
    device.set_device_lost_callback(move |_, _| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    let reported = || (errors.load(Ordering::Relaxed), losses.load(Ordering::Relaxed));
    let m = model(Gpu::from_device(device.clone(), queue), Precision::F32);
    let scopes = [wgpu::ErrorFilter::Validation, wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Internal]
        .map(|filter| device.push_error_scope(filter));
    let set = |f: fn(&mut Request)| {
        let mut r = small(1);
        f(&mut r);
        r
    };
    let bad: [(Request, ErrorKind); 7] = [
        (set(|r| r.size.width = 60), ErrorKind::Usage),
        (set(|r| r.schedule.steps = 0), ErrorKind::Usage),
        (set(|r| r.clip_skip = Some(40)), ErrorKind::Usage),
        (set(|r| r.noise = sagittal::pipeline::Noise::Pictures(vec![])), ErrorKind::Usage),
        (set(|r| r.limits.memory = Some(1 << 20)), ErrorKind::Memory),
        (set(|r| (r.size.width, r.size.height) = (16_384, 16_384)), ErrorKind::Memory),
        (set(|r| r.guidance.cfg = 1e30), ErrorKind::NonFinite),
    ];
    for (r, kind) in bad {
        assert_eq!(run(&m, &r).map(drop).map_err(|e| e.kind()), Err(kind));
    }
    let token = CancelToken::new();
    token.cancel();
    let stopped = m.run(&small(1)).cancel(&token).generate().map(drop);
    assert_eq!(stopped.expect_err("cancelled").kind(), ErrorKind::Cancelled);
    draw(&m, &small(1));
    for scope in scopes.into_iter().rev() {
        let found = pollster::block_on(scope.pop());
        assert!(found.is_none(), "a scope of the app's holds {found:?}");
    }
    assert_eq!(reported(), (0, 0), "errors and losses reported to the app");
    // They still work: an error of the app, then the loss of the device.
    let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::STORAGE;
    drop(device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 16,
        usage,
        mapped_at_creation: false,
    }));
    assert_eq!(reported(), (1, 0));
    device.destroy();
    assert_eq!(run(&m, &small(1)).expect_err("lost").kind(), ErrorKind::Device);
    let _ = device.poll(wgpu::PollType::Poll);
    assert_eq!(reported(), (1, 1));
}

/// A checkpoint of the small SD 1 family in F32, whose tensors can be filled with a value.
struct Injected {
    folder: tempfile::TempDir,
    tensors: Vec<common::files::Tensor>,
}

impl Injected {
    fn new() -> Self {
        let (_, text) = common::MANIFESTS.iter().find(|(n, _)| *n == "tiny-sd1").expect("a family");
        let manifest = sagittal::checkpoint::Manifest::parse(text).expect("a manifest");
        let injected = Self {
            folder: tempfile::tempdir().expect("a folder"),
            tensors: common::files::tensors(&manifest),
        };
        common::files::write(&injected.file(), &injected.tensors, &[], |_| sagittal::checkpoint::Dtype::F32);
        injected
    }

    fn file(&self) -> std::path::PathBuf {
        self.folder.path().join("injected.safetensors")
    }

    /// Overwrites a tensor: with `value`, or with its own values.
    fn fill(&self, name: &str, value: Option<f32>) {
        use std::io::{Seek, Write};
        let at = self.tensors.iter().position(|t| t.name == name).unwrap_or_else(|| panic!("no {name}"));
        let bytes = |t: &common::files::Tensor| 4 * t.values.len() as u64;
        let behind: u64 = self.tensors[at..].iter().map(bytes).sum();
        let mut file = std::fs::File::options().write(true).open(self.file()).expect("the file");
        file.seek(std::io::SeekFrom::End(-(behind as i64))).expect("a place");
        let own = &self.tensors[at].values;
        let values: Vec<u8> = own.iter().flat_map(|v| value.unwrap_or(*v).to_le_bytes()).collect();
        file.write_all(&values).expect("written");
    }
}

#[test]
fn weights_that_are_not_finite_name_the_first_operation() {
    let Some(gpu) = gpu() else { return };
    let injected = Injected::new();
    let outcome = |name: &str, value: f32, trace: bool| {
        injected.fill(name, Some(value));
        let checkpoint = Checkpoint::open(injected.file()).expect("a sound header");
        let m = Model::new(gpu.clone(), checkpoint, options(Precision::F32)).expect("sound shapes");
        m.engine().trace_nonfinite(trace);
        let error = run(&m, &small(1).with_steps(1)).map(drop).expect_err("nothing can come of it");
        injected.fill(name, None);
        error
    };
    // NaN and infinity are found during the upload, with tracing and without.
    let name = "model.diffusion_model.middle_block.1.proj_in.weight";
    for value in [f32::NAN, f32::INFINITY] {
        let error = outcome(name, value, false);
        assert_eq!(error.kind(), ErrorKind::Model, "{error}");
        assert!(error.to_string().contains(&format!("{name} element 0")), "{error}");
    }
    // Weights that cause an overflow are found where it happens, in each of the three networks.
    let cases = [
        ("cond_stage_model.transformer.text_model.encoder.layers.1.mlp.fc1.weight", "layers.1.mlp.fc1"),
        (name, "middle_block.1.proj_in"),
        ("first_stage_model.decoder.up.2.block.0.conv1.weight", "decoder.up.2.block.0.conv1"),
    ];
    for (name, layer) in cases {
        let error = outcome(name, 3e38, true);
        println!("{error}");
        assert_eq!(error.kind(), ErrorKind::NonFinite, "{error}");
        assert!(error.to_string().contains(layer), "{error}");
    }
    // Without tracing the error names the step.
    let error = outcome(name, 3e38, false);
    assert!(error.kind() == ErrorKind::NonFinite && error.to_string().contains("step 1 of 1"), "{error}");
}

/// Streamed weights are checked too.
#[test]
fn invalid_streamed_weights_are_named() {
    let Some(gpu) = gpu() else { return };
    let injected = Injected::new();
    let name = "model.diffusion_model.output_blocks.3.1.proj_out.weight";
    for (value, precision, expected) in [
        (f32::NAN, Precision::F32, "NaN"),
        (f32::INFINITY, Precision::F16, "inf"),
        // Finite in f32, but not in f16.
        (70000.0, Precision::F16, "70000"),
    ] {
        injected.fill(name, Some(value));
        let checkpoint = Checkpoint::open(injected.file()).expect("a sound header");
        let m = Model::new(gpu.clone(), checkpoint, options(precision)).expect("sound shapes");
        let mut r = small(1).with_steps(2);
        let in_turn = |mib: &u64| {
            r.limits.memory = Some(mib << 20);
            m.report(&r).is_ok_and(|report| report.weights_in_turn)
        };
        let mib = (8..400).find(in_turn).expect("a limit at which weights are streamed");
        r.limits.memory = Some(mib << 20);
        let error = run(&m, &r).map(drop).expect_err("nothing can come of it");
        injected.fill(name, None);
        println!("{precision:?}, {mib} MiB: {error}");
        assert_eq!(error.kind(), ErrorKind::Model, "{error}");
        assert!(error.to_string().contains(name) && error.to_string().contains(expected), "{error}");
        run(&m, &r).expect("sound weights");
    }
}

#[test]
fn tracing_sound_weights_changes_nothing() {
    let Some(gpu) = gpu() else { return };
    for precision in [Precision::F32, Precision::F16] {
        let m = model(gpu.clone(), precision);
        let want = draw(&m, &small(1));
        m.engine().trace_nonfinite(true);
        assert!(draw(&m, &small(1)) == want, "{precision:?}: another picture while it is traced");
        // A value that the sampler makes infinite is not an error of the network.
        let error = run(&m, &small(1).with_cfg(1e30)).expect_err("infinite");
        assert!(error.kind() == ErrorKind::NonFinite, "{error}");
        println!("{error}");
        m.engine().trace_nonfinite(false);
        assert!(draw(&m, &small(1)) == want);
    }
}
