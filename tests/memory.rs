//! Memory: a run takes the planned bytes, limits are respected, and the report says what a limit changes.

// Tests panic where something is not as they expect.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

use common::{Failures, gpu, nmse, own_gpu, to_f64};
use sagittal::Size;
use sagittal::guidance::Perturbed;
use sagittal::internals::kernels::Precision;
use sagittal::pipeline::{Progress, Start, Tiling};
use sagittal::sampler::Sampler;
use sagittal::{ErrorKind, Latent, Model, ModelOptions, Picture, Remedy, Request, embedded};

const MIB: u64 = 1 << 20;

/// Counts the host memory of each thread.
struct Counting;

thread_local! {
    /// Bytes that the thread has allocated and not freed, and the maximum.
    static HELD: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

/// Does nothing in a thread that is ending.
fn count(bytes: isize) {
    let _ = HELD.try_with(|held| {
        let now = held.get().0 + bytes;
        held.set((now, held.get().1.max(now)));
    });
}

// SAFETY: all memory is allocated by the system's allocator; this only counts it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTED: Counting = Counting;

/// The most host memory that `f` has allocated at one time on this thread.
fn most_of(f: impl FnOnce()) -> u64 {
    let before = HELD.get().0;
    HELD.set((before, before));
    f();
    (HELD.get().1 - before) as u64
}

fn model(options: ModelOptions) -> Option<Model> {
    Some(Model::new(gpu()?, embedded::checkpoint().expect("embedded"), options).expect("model"))
}

fn request(limit: Option<u64>) -> Request {
    let mut r = Request::new("fox", Size::new(320, 256));
    (r.schedule.steps, r.guidance.cfg, r.limits.memory, r.batch) = (1, 3.5, limit, 2);
    r
}

/// Planned and measured peak of two generations, the result of the first, and the reported events.
fn run(m: &Model, r: &Request) -> (u64, u64, sagittal::Generated, Vec<&'static str>) {
    let planned = m.report(r).expect("a plan").peak_bytes;
    let mut reported = Vec::new();
    let mut observe = |e: Progress| {
        if let Progress::Tiles { .. } = e {
            reported.push("tiles");
        }
    };
    let made = m.run(r).on_event(&mut observe).generate().expect("a run");
    m.generate(r).expect("another run");
    (planned, m.engine().peak_bytes(), made, reported)
}

#[test]
fn a_run_takes_the_planned_memory_and_respects_a_limit() {
    let mut failures = Failures::default();
    let mut first = HashMap::new();
    // All is resident; networks make room for others; weights are streamed and the decoder works in tiles.
    let in_f16 = [None, Some(45), Some(31)].map(|limit| (Precision::F16, limit));
    // On a CPU driver some weights are in f16 here too.
    let in_f32 = [None, Some(60)].map(|limit| (Precision::F32, limit));
    let (mut streamed, mut in_tiles) = (0, 0);
    for (precision, limit) in in_f16.into_iter().chain(in_f32) {
        let case = format!("{precision:?}, limit {limit:?}");
        let Some(gpu) = own_gpu() else { return };
        let options = ModelOptions { precision: Some(precision), ..Default::default() };
        let m = Model::new(gpu, embedded::checkpoint().expect("embedded"), options).expect("model");
        let r = request(limit.map(|l| l * MIB));
        let report = m.report(&r).expect("a plan");
        let (planned, measured, made, reported) = run(&m, &r);
        println!(
            "{case}: planned {:.1}, measured {:.1} MiB, {} rows together, streamed: {}, tiles {}",
            planned as f64 / MIB as f64,
            measured as f64 / MIB as f64,
            report.rows_per_call(),
            report.weights_in_turn,
            report.decoder_tiles,
        );
        streamed += usize::from(report.weights_in_turn);
        in_tiles += usize::from(report.decoder_tiles > 1);
        let ratio = measured as f64 / planned as f64;
        failures.check((0.95..=1.0).contains(&ratio), || format!("{case}: {measured} of {planned}"));
        failures.check(limit.is_none_or(|l| planned <= l * MIB), || format!("{case}: {planned}"));
        // The latent does not depend on the memory; nor does the picture, unless tiles were reported.
        let (latent, picture) =
            first.entry(precision).or_insert_with(|| (made.latent.clone(), made.pictures.clone()));
        failures.check(*latent == made.latent, || format!("{case}: another latent"));
        failures
            .check(*picture == made.pictures || reported == ["tiles"], || format!("{case}: another picture"));
        failures
            .check((report.decoder_tiles > 1) == (reported == ["tiles"]), || format!("{case}: {reported:?}"));
    }
    failures.check(streamed > 0 && in_tiles > 0, || format!("{streamed} streamed, {in_tiles} in tiles"));
    failures.finish();
}

/// If a run is possible with a limit, it is possible with every larger one; and an error proposes the smallest.
#[test]
fn more_memory_is_never_too_little() {
    for precision in [Precision::F16, Precision::F32] {
        let Some(m) = model(ModelOptions { precision: Some(precision), ..Default::default() }) else {
            return;
        };
        let fits = |limit: u64| m.report(&request(Some(limit)));
        let mut limits = (0..210).map(|i| 18 * MIB + i * (MIB / 5)).skip_while(|limit| fits(*limit).is_err());
        let least = limits.next().expect("60 MiB suffice");
        let refused: Vec<u64> = limits.filter(|limit| fits(*limit).is_err()).collect();
        assert!(refused.is_empty(), "{precision:?}: {least} bytes suffice, but not {refused:?}");
        for limit in [0, MIB, least - MIB / 5] {
            let error = fits(limit).expect_err("too little");
            let remedies = error.remedies();
            let proposed = remedies.iter().find_map(|remedy| match remedy {
                Remedy::RaiseMemoryLimit(bytes) => *bytes,
                _ => None,
            });
            assert_eq!(proposed.expect("a proposal").div_ceil(MIB), least.div_ceil(MIB), "{error}");
            assert_eq!(remedies.contains(&Remedy::UseF16), precision == Precision::F32, "{error}");
        }
        println!("{precision:?}: from {least} bytes on");
    }
}

#[test]
fn too_little_memory_is_an_error_before_anything_runs() {
    let Some(m) = model(ModelOptions::default()) else { return };
    for limit in [0, 1, 10 * MIB, 20 * MIB] {
        let mut events = 0;
        let r = request(Some(limit));
        let error = m.run(&r).on_event(|_| events += 1).generate().expect_err("too little");
        assert_eq!((error.kind(), events), (ErrorKind::Memory, 0), "{error}");
        let raise = |remedy: &Remedy| matches!(remedy, Remedy::RaiseMemoryLimit(Some(_)));
        assert!(error.remedies().iter().any(raise), "{error}");
    }
}

/// The largest and the mean difference to the picture decoded without tiles; seams would be large differences where tiles
/// meet.
#[test]
fn tiles_leave_no_seams() {
    let Some(untiled) = model(ModelOptions { tiling: Tiling::Off, ..Default::default() }) else { return };
    let tiled = model(ModelOptions { tiling: Tiling::Side(32), ..Default::default() }).expect("model");
    let cancel = AtomicBool::new(false);
    // The decoder is meant for pictures of the model.
    let mut r = request(None);
    (r.size.width, r.size.height, r.schedule.steps, r.batch, r.seed) = (448, 320, 8, 1, 3);
    let made = untiled.generate(&r).expect("a picture");
    let again = tiled.decode(&made.latent, &mut |_| {}, &cancel).expect("a picture").remove(0);
    let picture = &made.pictures[0];
    let differences: Vec<u8> = picture.rgb.iter().zip(&again.rgb).map(|(a, b)| a.abs_diff(*b)).collect();
    let largest = differences.iter().max().expect("pixels");
    let mean = differences.iter().map(|d| f64::from(*d)).sum::<f64>() / differences.len() as f64;
    println!("decoded in tiles: largest difference {largest} of 255, mean {mean:.2}");
    assert!(*largest <= 48 && mean <= 3.0, "largest {largest}, mean {mean}");

    let values = picture.to_values();
    let of = |m: &Model| m.encode_values(320, 448, &values, &cancel).expect("a latent");
    let (a, b) = (of(&tiled), of(&untiled));
    let error = nmse(a.data(), &to_f64(b.data()));
    println!("encoded in tiles: squared error {error:.1e}");
    assert!(error <= 3e-2, "{error}");
}

/// Memory for activations is kept for the next picture, until a limit or the app needs it.
#[test]
fn memory_of_a_picture_is_reused_for_the_next() {
    let Some(gpu) = own_gpu() else { return };
    let checkpoint = embedded::checkpoint().expect("embedded");
    let options = ModelOptions { precision: Some(Precision::F16), ..Default::default() };
    let m = Model::new(gpu, checkpoint, options).expect("model");
    let held = || m.engine().gpu().buffer_bytes();
    let (_, _, first, _) = run(&m, &request(None));
    let after = held();
    // The device may free its own memory a little later, but nothing is added.
    let (_, peak, again, _) = run(&m, &request(None));
    assert!(held() <= after && again.pictures == first.pictures, "{after} and {}", held());
    assert!(after > peak * 9 / 10, "{after} of {peak}");

    m.engine().forget_peak();
    let limit = 45 * MIB;
    let (planned, measured, limited, _) = run(&m, &request(Some(limit)));
    assert!(measured <= planned && planned <= limit, "{measured} of {planned}");
    assert_eq!(limited.latent, first.latent);

    let before = held();
    m.engine().release_spare_memory();
    assert!(held() < before, "{before} and {}", held());
}

/// Many rows with their own prompts take memory beside the arena. It is forecast, and if the budget is too small for all
/// of them, fewer rows are computed at a time, before weights are streamed.
#[test]
fn many_rows_take_the_planned_memory() {
    let Some(gpu) = own_gpu() else { return };
    let mut failures = Failures::default();
    let cases = [
        (Precision::F32, 64, 16, None),
        (Precision::F32, 128, 4, None),
        (Precision::F16, 64, 16, None),
        (Precision::F16, 64, 16, Some(40)),
        (Precision::F16, 64, 16, Some(36)),
        (Precision::F16, 64, 16, Some(31)),
    ];
    for (precision, side, batch, limit) in cases {
        let case = format!("{precision:?}, {batch} of {side}, limit {limit:?}");
        let options = ModelOptions { precision: Some(precision), ..Default::default() };
        let m = Model::new(gpu.clone(), embedded::checkpoint().expect("embedded"), options).expect("model");
        let mut r = request(limit.map(|l| l * MIB));
        (r.size.width, r.size.height, r.batch) = (side, side, batch);
        let report = m.report(&r).expect("a plan");
        let mut peak = 0;
        for _ in 0..2 {
            m.engine().forget_peak();
            run(&m, &r);
            peak = peak.max(m.engine().peak_bytes());
        }
        let (planned, rows) = (report.peak_bytes, report.rows_per_call());
        println!(
            "{case}: planned {:.1}, measured {:.1} MiB, {rows} rows together, streamed: {}",
            planned as f64 / MIB as f64,
            peak as f64 / MIB as f64,
            report.weights_in_turn,
        );
        let ratio = peak as f64 / planned as f64;
        failures.check((0.95..=1.0).contains(&ratio), || format!("{case}: {peak} of {planned}"));
        failures.check(limit.is_none_or(|l| l < 36) || rows >= 4 && !report.weights_in_turn, || {
            format!("{case}: {rows} rows")
        });
    }
    failures.finish();
}

/// The forecast of a run is arithmetic: it allocates nothing that grows with the pictures, for every kind of guidance, and
/// does not copy a start picture or a mask.
#[test]
fn a_report_takes_no_memory_that_grows_with_pictures() {
    let Some(m) = model(ModelOptions::default()) else { return };
    let mut failures = Failures::default();
    let samplers = [Sampler::Euler, Sampler::EulerAncestral, Sampler::Dpmpp2mSde, Sampler::DpmAdaptive];
    for (sampler, from_picture) in samplers.into_iter().zip([false, true, false, true]) {
        let peak = |side: usize, batch: usize, limit: Option<u64>| {
            let mut r = Request::new("fox", Size::square(side));
            (r.batch, r.solver.sampler, r.limits.memory) = (batch, sampler, limit);
            r.guidance = r.guidance.with(Perturbed::pag(3.0));
            if from_picture {
                let picture = Picture { width: side, height: side, rgb: vec![0; side * side * 3] };
                r.start = Some(Start::Picture(picture));
                r.schedule.denoise = 0.5;
                r.mask = Some(Latent::zeros(1, 1, side / 8, side / 8));
            }
            let mut refused = false;
            // The first call makes plans, which are cached: the second is measured.
            let most = [(); 2].map(|()| most_of(|| refused = m.report(&r).is_err()));
            assert_eq!(refused, limit.is_some() || side > 4000, "{side}, {batch}");
            most[1]
        };
        let small = peak(64, 1, None);
        // A latent of all these pictures has 16 bytes per cell: 32 MiB, 1 MiB, and far more than a device can bind. Lists
        // of their rows are allowed.
        for (side, batch, limit) in
            [(1024, 128, None), (4000, 1, None), (1024, 128, Some(MIB)), (4096, 4096, None)]
        {
            let large = peak(side, batch, limit);
            failures.check(large < small + 2 * MIB, || {
                format!(
                    "{sampler}, {batch} of {side}, from a picture: {from_picture}: {large} bytes for {small}"
                )
            });
        }
    }
    failures.finish();
}
