//! Trust at the first start. Drivers compute wrong results, or are slower with kernels that should be faster. So the
//! first time that an adapter is used with a driver, each kernel of its path that is not a plain one runs once on random
//! data beside the plain kernels in f32, and is timed against them. A wrong or slower one is not used. What was found is
//! kept beside the cache of pipelines.
//!
//! Nothing is checked without a folder to keep it in, which would be done anew at each start.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::Result;
use crate::engine::{Engine, PlanRun, Prepared, WeightSource, Weights};
use crate::gpu::Gpu;
use crate::gpu::verdicts::{Verdict, Verdicts, is_slower};
use crate::graph::{Graph, Shape};
use crate::kernels::{self, DeviceProfile, Precision};
use crate::plan::{Plan, PlanOptions, Storage};

/// Changes a plan before it is checked: tests plant faults with it.
pub type Plant<'a> = &'a dyn Fn(&mut Plan);

/// `gpu` with what is known of its kernels: those that were not checked before on this adapter and driver are checked
/// now, if it has a folder to keep what is found.
pub fn check(gpu: Gpu) -> Gpu {
    check_with(gpu, &|_| {})
}

/// The same; `plant` changes the plans of kernels that are checked.
pub fn check_with(gpu: Gpu, plant: Plant<'_>) -> Gpu {
    let Some(known) = gpu.verdicts() else { return gpu };
    let begun = Instant::now();
    let found = match unknown(&gpu, &known).and_then(|checks| measure(&gpu, checks, plant)) {
        Ok(found) if found.is_empty() => return gpu,
        Ok(found) => found,
        Err(e) => {
            log::warn!("the kernels of this device could not be checked: {e}");
            return gpu;
        }
    };
    log::info!("checked {} kernels in {:.1} s", found.len(), begun.elapsed().as_secs_f64());
    for (name, verdict) in found.iter().filter(|(_, v)| !v.is_trusted()) {
        let adapter = gpu.device().adapter_info().name;
        log::warn!("{name} is not used on {adapter}: {}", verdict.words());
    }
    let kernels = known.kernels.into_iter().chain(found).collect();
    gpu.with_verdicts(Verdicts { kernels })
}

/// A graph whose kernel is to be checked.
struct Check {
    /// The kernel or core.
    kernel: &'static str,
    graph: Graph,
    /// By the path of the device, and by plain kernels in f32.
    plans: [Plan; 2],
}

/// The checks of kernels on the path of `gpu` that are not `known`.
fn unknown(gpu: &Gpu, known: &Verdicts) -> Result<Vec<Check>> {
    let own = gpu.profile();
    let plain = own.plain();
    let mut all: Vec<Check> = Vec::new();
    for graph in graphs(own.cpu)? {
        let plan = |device: &DeviceProfile, precision: Precision| {
            let storage = Storage::of(graph.weights(), precision, device, |_| true);
            Plan::new(&graph, &PlanOptions { rows: 1, storage, device: device.clone(), guard: 0 })
        };
        let own = plan(own, own.usual_precision())?;
        // At a later start all are known, and there is nothing more to do.
        for kernel in alternatives(&own).into_iter().filter(|name| !known.kernels.contains_key(*name)) {
            let plans = [own.clone(), plan(&plain, Precision::F32)?];
            all.push(Check { kernel, graph: graph.clone(), plans });
        }
    }
    Ok(all)
}

/// Kernels and cores of `plan` that have a plain alternative.
fn alternatives(plan: &Plan) -> BTreeSet<&'static str> {
    let specs = plan.dispatches.iter().map(|d| match d.variant.core {
        Some(core) => (core.file, core.name()),
        None => (d.variant.kernel.file, d.variant.kernel.name()),
    });
    specs
        .filter(|(file, _)| kernels::alternatives().any(|f| f.name == file.name))
        .map(|(_, name)| name)
        .collect()
}

/// Small networks, of one operation each, that together use every kernel with an alternative; on CPUs smaller ones.
fn graphs(cpu: bool) -> Result<Vec<Graph>> {
    let (side, channels, tokens) = if cpu { (16, 64, 256) } else { (64, 320, 4096) };
    let one = |shape: Shape,
               op: &dyn Fn(&mut Graph, crate::graph::Tensor) -> Result<crate::graph::Tensor>| {
        let mut g = Graph::new("");
        let x = g.input("x", shape);
        let y = op(&mut g, x)?;
        g.output("y", y);
        Ok(g)
    };
    let attention = |heads: usize, dim: usize| {
        one(Shape::tokens(tokens, 3 * heads * dim), &move |g, x| {
            Ok(g.self_attention("attention", x, heads, false, false)?.0)
        })
    };
    Ok(vec![
        one(Shape::tokens(side * side, channels), &|g, x| g.linear("linear", x, channels, true))?,
        one(Shape::new(side, side, channels), &|g, x| g.conv3x3("conv", x, channels, 1, 1))?,
        attention(if cpu { 2 } else { 8 }, 40)?,
        attention(1, if cpu { 160 } else { 512 })?,
        one(Shape::new(side, side, channels), &|g, x| g.group_norm("norm", x, 1e-5))?,
    ])
}

/// Runs and times `checks`. A kernel that several graphs use is as right and as fast as in the worst of them.
fn measure(gpu: &Gpu, checks: Vec<Check>, plant: Plant<'_>) -> Result<BTreeMap<String, Verdict>> {
    let mut found: BTreeMap<String, Verdict> = BTreeMap::new();
    if checks.is_empty() {
        return Ok(found);
    }
    let engine = Engine::new(gpu.clone())?;
    let checks: Vec<Check> = checks
        .into_iter()
        .map(|mut check| {
            plant(&mut check.plans[0]);
            check
        })
        .collect();
    // All at once, on all cores. What cannot be compiled fails again below, by itself.
    if let Err(e) = engine.compile(checks.iter().flat_map(|c| &c.plans), &HashSet::new()) {
        log::debug!("{e}");
    }
    for check in &checks {
        let verdict = compare(&engine, check)?;
        let worst = found.entry(check.kernel.to_owned()).or_insert(verdict);
        *worst = Verdict { apart: worst.apart.max(verdict.apart), faster: worst.faster.min(verdict.faster) };
    }
    // Buffers that are dropped are freed when the device is polled, and would count as memory of the app.
    drop(engine);
    let _ = gpu.device().poll(wgpu::PollType::wait_indefinitely());
    Ok(found)
}

/// # Errors
/// Those of the plain kernels: then nothing is known of the others.
fn compare(engine: &Engine, check: &Check) -> Result<Verdict> {
    let shape = check.graph.inputs().first().map_or(Shape::tokens(1, 1), |(_, t)| check.graph.shape(*t));
    let x = random(shape.positions() * shape.channels, 1);
    let [own, plain] = &check.plans;
    let (own, y) = match ready(engine, check, own, &x) {
        Ok(ready) => ready,
        Err(e) => {
            // If plain kernels fail too, the device is lost or has no memory left.
            ready(engine, check, plain, &x)?;
            log::debug!("{} fails: {e}", check.kernel);
            return Ok(Verdict { apart: f64::INFINITY, faster: f64::INFINITY });
        }
    };
    let (plain, want) = ready(engine, check, plain, &x)?;
    Ok(Verdict { apart: apart(&y, &want), faster: faster(engine, &own, &plain)? })
}

/// `plan` on the device, after a run with `x`, and the result.
fn ready(engine: &Engine, check: &Check, plan: &Plan, x: &[f32]) -> Result<(Prepared, Vec<f32>)> {
    let cancel = AtomicBool::new(false);
    let source = Random(RefCell::default());
    let weights: Weights = engine.upload(check.graph.weights(), &source, &plan.storage, None, &cancel)?;
    let arena = engine.arena(plan)?;
    let prepared = engine.prepare(plan.clone(), &weights, &arena)?;
    let results = engine.run(&prepared, &PlanRun::new(&[("x", x)], &cancel))?;
    Ok((prepared, results.into_iter().flat_map(|(_, values)| values).collect()))
}

/// Times that each of two is timed, in turn, so that other work on the machine meets both.
const TURNS: usize = 4;

/// How often those turns are taken before a kernel is called slow. The least time is that of a moment when nothing else
/// ran, and on a busy machine such a moment can be long in coming.
const ROUNDS: usize = 6;

/// How many times faster `own` is than `plain`, by the least GPU time of a run; infinite without timestamps.
fn faster(engine: &Engine, own: &Prepared, plain: &Prepared) -> Result<f64> {
    if !engine.counts_time() {
        return Ok(f64::INFINITY);
    }
    // A device wakes up, and small work is timed by many runs of it.
    let once = engine.time(plain, 1)?.as_secs_f64();
    let runs = (2e-3 / once.max(1e-6)).clamp(1.0, 50.0) as usize;
    let mut least = [Duration::MAX; 2];
    let mut faster = 0.0;
    for _ in 0..ROUNDS {
        for _ in 0..TURNS {
            for (prepared, least) in [own, plain].into_iter().zip(&mut least) {
                *least = engine.time(prepared, runs)?.min(*least);
            }
        }
        let [own, plain] = least.map(|time| time.as_secs_f64().max(1e-9));
        faster = plain / own;
        if !is_slower(faster) {
            break;
        }
    }
    Ok(faster)
}

/// Mean square of the distance of `y` from `want`, over that of `want`.
fn apart(y: &[f32], want: &[f32]) -> f64 {
    let square = |v: f64| v * v;
    let distance: f64 = y.iter().zip(want).map(|(y, want)| square(f64::from(*y) - f64::from(*want))).sum();
    let size: f64 = want.iter().map(|want| square(f64::from(*want))).sum();
    let apart = distance / size.max(f64::MIN_POSITIVE);
    if apart.is_finite() && y.len() == want.len() { apart } else { f64::INFINITY }
}

/// Random numbers that f16 represents exactly, so that a network has the same weights in both precisions.
struct Random(RefCell<u64>);

impl WeightSource for Random {
    fn read(&self, _name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        *self.0.borrow_mut() += 1;
        Ok(random(shape.iter().product(), *self.0.borrow()))
    }

    fn fits_f16(&self, _name: &str) -> bool {
        true
    }
}

/// `n` multiples of 1/64 from -1 to 1, by Marsaglia's xorshift64.
fn random(n: usize, seed: u64) -> Vec<f32> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64.wrapping_mul(seed);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 40) % 129) as f32 / 64.0 - 1.0
    };
    (0..n).map(|_| next()).collect()
}
