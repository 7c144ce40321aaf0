//! Runs of one plan after another: the same results whatever was encoded ahead, and errors that leave
//! the engine as it was.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::common::bench::{Bench, Weights};
use crate::common::{Rng, gpu, own_gpu, synthetic};
use sagittal::internals::engine::{Arena, Engine, KeptTensors, PlanRun, Prepared};
use sagittal::internals::graph::Graph;
use sagittal::internals::kernels::Precision;
use sagittal::internals::model::{ModelConfig, unet};
use sagittal::internals::text::CHUNK;
use sagittal::wgpu;
use sagittal::{ErrorKind, Gpu};

static GO: AtomicBool = AtomicBool::new(false);

/// A small UNet on an engine of its own, with a second plan of one row in the same arena.
struct Unet {
    engine: Engine,
    plans: [Prepared; 2],
}

fn graph() -> Graph {
    let config = ModelConfig::infer(&synthetic("tiny-sd1")).expect("a configuration");
    let options = unet::Options { size: (8, 6), tokens: CHUNK, record: true, ..Default::default() };
    unet::build(&config.unet, &options).expect("a graph")
}

fn unet(gpu: Gpu) -> Unet {
    let engine = Engine::new(gpu).expect("engine");
    let graph = graph();
    let weights = engine.upload(graph.weights(), &Weights(Precision::F32), &Precision::F32.into(), None, &GO);
    let weights = weights.expect("upload");
    let mut arena: Option<Arena> = None;
    let plans = [2, 1].map(|rows| {
        let profile = engine.gpu().profile().clone();
        let bench = Bench {
            engine: &engine,
            profile,
            precision: Precision::F32,
            weights: Precision::F32,
            rows,
            most: None,
        };
        let plan = bench.plan(&graph);
        let arena = arena.get_or_insert_with(|| engine.arena(&plan).expect("arena")).clone();
        engine.prepare(plan, &weights, &arena).expect("prepare")
    });
    Unet { engine, plans }
}

impl Unet {
    /// Values of the inputs that are not of the prompt, by `seed`.
    fn inputs(&self, plan: usize, seed: u64, kept: bool) -> Vec<(String, Vec<f32>)> {
        let mut rng = Rng(seed);
        let plan = self.plans[plan].plan();
        let rows = if kept { 1 } else { plan.rows };
        let slots = plan.inputs.iter().filter(|s| s.kept == kept);
        let n = |s: &sagittal::internals::plan::PlanSlot| rows * s.shape.positions() * s.shape.channels;
        slots.map(|s| (s.name.clone(), rng.values(n(s), Precision::F32))).collect()
    }

    fn prompt(&self, seed: u64) -> KeptTensors {
        self.engine.keep(&self.plans[0], &named(&self.inputs(0, seed, true))).expect("kept")
    }

    fn run(&self, plan: usize, seed: u64, prompts: &[&KeptTensors]) -> sagittal::Result<Vec<f32>> {
        let inputs = self.inputs(plan, seed, false);
        let results = self.engine.run(&self.plans[plan], &PlanRun::new(&named(&inputs), &GO).on(prompts))?;
        Ok(results.into_iter().flat_map(|(_, v)| v).collect())
    }
}

fn named(values: &[(String, Vec<f32>)]) -> Vec<(&str, &[f32])> {
    values.iter().map(|(n, v)| (n.as_str(), v.as_slice())).collect()
}

/// Other inputs, other prompts, another plan in the same arena in between, an input that does not fit,
/// a run that is cancelled: the next run gives what it gives on an engine that did nothing before.
#[test]
fn what_was_encoded_ahead_changes_nothing() {
    let Some(gpu) = gpu() else { return };
    let used = unet(gpu.clone());
    let [a, b] = [1, 2].map(|seed| used.prompt(seed));
    let runs: &[(usize, u64, &[&KeptTensors])] = &[
        (0, 10, &[&a, &b]),
        (0, 10, &[&a, &b]),
        (1, 11, &[&b]),
        (0, 12, &[&b, &a]),
        (1, 11, &[&a]),
        (1, 12, &[&b]),
        (0, 10, &[&a, &b]),
    ];
    let mut results = Vec::new();
    for (i, (plan, seed, prompts)) in runs.iter().enumerate() {
        results.push(used.run(*plan, *seed, prompts).expect("a run"));
        let inputs = used.inputs(*plan, *seed, false);
        if i == 1 {
            let stop = AtomicBool::new(true);
            let error =
                used.engine.run(&used.plans[*plan], &PlanRun::new(&named(&inputs), &stop).on(prompts));
            assert_eq!(error.expect_err("cancelled").kind(), ErrorKind::Cancelled);
        }
        if i == 2 {
            let short: Vec<(&str, &[f32])> = named(&inputs).into_iter().map(|(n, v)| (n, &v[1..])).collect();
            let error = used.engine.run(&used.plans[*plan], &PlanRun::new(&short, &GO).on(prompts));
            assert_eq!(error.expect_err("too short").kind(), ErrorKind::Usage);
            let error = used.run(*plan, *seed, &[&a, &b, &a]).expect_err("too many prompts");
            assert_eq!(error.kind(), ErrorKind::Usage);
        }
    }
    assert!(results[0] == results[1] && results[0] == results[6] && results[0] != results[3]);
    assert!(results[2] != results[4] && results[2] != results[5]);
    for (result, (plan, seed, prompts)) in results.iter().zip(runs).skip(2) {
        let fresh = unet(gpu.clone());
        let own: Vec<KeptTensors> =
            prompts.iter().map(|p| fresh.prompt(if std::ptr::eq(*p, &a) { 1 } else { 2 })).collect();
        let own: Vec<&KeptTensors> = own.iter().collect();
        assert_eq!(&fresh.run(*plan, *seed, &own).expect("a run"), result, "plan {plan} seed {seed}");
    }
}

#[test]
fn threads_take_turns_on_one_plan() {
    let Some(gpu) = gpu() else { return };
    let unet = unet(gpu);
    let prompt = unet.prompt(1);
    let want: Vec<Vec<f32>> = (0..3).map(|seed| unet.run(1, seed, &[&prompt]).expect("a run")).collect();
    std::thread::scope(|scope| {
        for (seed, want) in want.iter().enumerate() {
            let (unet, prompt) = (&unet, &prompt);
            scope.spawn(move || {
                for _ in 0..3 {
                    assert_eq!(&unet.run(1, seed as u64, &[prompt]).expect("a run"), want);
                }
            });
        }
    });
}

/// Runs leave no buffers behind.
#[test]
fn memory_does_not_grow() {
    let Some(gpu) = own_gpu() else { return };
    let unet = unet(gpu);
    let [a, b] = [1, 2].map(|seed| unet.prompt(seed));
    let bytes = || {
        unet.engine.gpu().device().poll(wgpu::PollType::wait_indefinitely()).expect("a device");
        unet.engine.gpu().buffer_bytes()
    };
    let mut seen = Vec::new();
    for seed in 0..8 {
        unet.run(0, seed, &[&a, &b]).expect("a run");
        unet.run(1, seed, &[&b]).expect("a run");
        seen.push(bytes());
    }
    assert!(seen.iter().all(|s| *s == seen[0]), "{seen:?}");
    drop((a, b));
    assert!(bytes() < seen[0], "prompts stay after all have let go of them");
}

/// A device that is lost, before a run or in the middle of one, is a typed error, and at once.
#[test]
fn a_lost_device_is_an_error() {
    for between in [false, true] {
        let Some(gpu) = own_gpu() else { return };
        let unet = unet(gpu);
        let prompt = unet.prompt(1);
        unet.run(1, 1, &[&prompt]).expect("a run");
        let device = unet.engine.gpu().device().clone();
        let begun = Instant::now();
        let error = std::thread::scope(|scope| {
            if between {
                device.destroy();
            } else {
                scope.spawn(|| {
                    std::thread::sleep(Duration::from_millis(10));
                    device.destroy();
                });
            }
            loop {
                if let Err(e) = unet.run(1, 1, &[&prompt]) {
                    return e;
                }
            }
        });
        assert_eq!(error.kind(), ErrorKind::Device, "{error}");
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        assert_eq!(unet.run(1, 1, &[&prompt]).expect_err("still lost").kind(), ErrorKind::Device);
    }
}

/// A plan that is made for weights stored otherwise than those that it is given would read nonsense.
#[test]
fn a_plan_for_weights_stored_otherwise_is_an_error() {
    let Some(gpu) = gpu() else { return };
    let engine = Engine::new(gpu).expect("engine");
    let (graph, profile) = (graph(), engine.gpu().profile().clone());
    let plan = |precision, weights| {
        Bench { engine: &engine, profile: profile.clone(), precision, weights, rows: 1, most: None }
            .plan(&graph)
    };
    let whole = engine.upload(graph.weights(), &Weights(Precision::F32), &Precision::F32.into(), None, &GO);
    let whole = whole.expect("upload");
    let prepare = |plan| {
        let arena = engine.arena(&plan).expect("arena");
        engine.prepare(plan, &whole, &arena).map(drop)
    };
    prepare(plan(Precision::F32, Precision::F32)).expect("the same storage");
    let error = prepare(plan(Precision::F16, Precision::F32)).expect_err("another precision");
    assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
    // Only CPU drivers have f16 beside f32.
    let halved = prepare(plan(Precision::F32, Precision::F16));
    assert_eq!(halved.is_err(), profile.has_simd(), "{halved:?}");
}
