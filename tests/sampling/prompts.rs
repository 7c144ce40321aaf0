//! Tensors that depend only on the prompt are computed once for it: slices of tensors, kept tensors, and prompts of every
//! length within the limits of every device.

use std::sync::atomic::AtomicBool;

use crate::common::bench::{Bench, Weights};
use crate::common::{Failures, MANIFESTS, Rng, gpu, nmse};
use sagittal::ErrorKind;
use sagittal::checkpoint::{Checkpoint, Dtype, Manifest};
use sagittal::internals::engine::{Engine, KeptTensors, PlanRun, WeightSource};
use sagittal::internals::graph::{Graph, Heads, Shape};
use sagittal::internals::kernels::{DeviceProfile, Precision, attention, gemm};
use sagittal::internals::model::{ModelConfig, unet};
use sagittal::internals::plan::{Bound, Plan, PlanOptions};

fn checkpoint(family: &str) -> Checkpoint {
    let (_, text) = MANIFESTS.iter().find(|(name, _)| *name == family).expect("a family");
    Checkpoint::synthetic(&Manifest::parse(text).expect("manifest"), 0, Dtype::F16).expect("checkpoint")
}

fn config(family: &str) -> ModelConfig {
    ModelConfig::infer(&checkpoint(family)).expect("known")
}

fn kinds() -> [(DeviceProfile, Precision); 4] {
    [
        (DeviceProfile::gpu(), Precision::F32),
        (DeviceProfile::cpu(), Precision::F32),
        (DeviceProfile::gpu(), Precision::F16),
        (DeviceProfile::cpu(), Precision::F16),
    ]
}

/// Keys and values, and the vector of a product, that are slices of longer tensors, compared with the references: at
/// offsets where a binding may begin and at others, for several rows.
#[test]
fn slices_are_read_in_place() {
    let Some(gpu) = gpu() else { return };
    let engine = Engine::new(gpu).expect("engine");
    let mut failures = Failures::default();
    for (profile, precision) in kinds() {
        for (rows, first) in [(1, 0), (2, 12), (3, 256), (3, 1036)] {
            let bench = Bench::new(&engine, &profile, precision, rows);
            let mut rng = Rng(first as u64 + 1);
            let (count, dim, keys) = (2, 20, 7);
            let c = count * dim;
            let (x_shape, long) = (Shape::new(3, 5, c), Shape::new(1, 1, first + 2 * c * keys + c + 8));
            let mut g = Graph::new("");
            let x = g.input("x", x_shape);
            let all = g.input("all", long);
            let kv = g.part("kv", all, first, Shape::tokens(keys, 2 * c)).expect("a part");
            let v = g.part("v", all, first + 2 * c * keys, Shape::tokens(1, c)).expect("a part");
            let attended = g.cross_attention("a", x, kv, count).expect("attention");
            g.output("attended", attended);
            let product = g.linear("l", x, c, false).expect("linear");
            let sum = g.add_vector("v", product, v).expect("vector");
            g.output("sum", sum);
            let (xs, alls) = (bench.values(&mut rng, x_shape), bench.values(&mut rng, long));
            let got = bench.run(&g, &[("x", &xs), ("all", &alls)]);
            let weight = Weights(precision).product("l.weight", c, c, 1);
            let heads = Heads { heads: count, dim, offsets: [0, 0, c] };
            let mut want = [Vec::new(), Vec::new()];
            for (x, all) in bench.rows(&xs).iter().zip(bench.rows(&alls)) {
                let (kv, v) = all[first..][..2 * c * keys + c].split_at(2 * c * keys);
                want[0].extend(attention::reference(heads, false, (x, c), (kv, 2 * c)));
                let sum = gemm::reference(x_shape, x_shape, None, x, &weight, None, Some(v), None, None);
                want[1].extend(sum);
            }
            let limit = if precision == Precision::F32 { 1e-10 } else { 1e-6 };
            for (got, want) in got.iter().zip(&want) {
                let error = nmse(got, want);
                failures.check(error <= limit, || {
                    format!("{profile} {precision:?} {rows} rows at {first}: {error:.1e}")
                });
            }
        }
    }
    failures.finish();
}

#[test]
fn invalid_slices_are_errors() {
    let options = |rows| {
        let device = DeviceProfile::gpu();
        PlanOptions { rows, storage: Precision::F32.into(), device, guard: 0 }
    };
    let mut g = Graph::new("");
    let all = g.input("all", Shape::new(1, 1, 64));
    for (first, channels) in [(0, 68), (36, 32), (2, 32), (0, 30)] {
        let error = g.part("p", all, first, Shape::tokens(1, channels)).expect_err("no such part");
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
    }
    // A kernel without strides would read values of another row.
    let mut g = Graph::new("");
    let all = g.input("all", Shape::new(1, 1, 64));
    let part = g.part("p", all, 0, Shape::tokens(1, 32)).expect("a part");
    let y = g.layer_norm("n", part);
    g.output("y", y);
    let error = Plan::new(&g, &options(2)).expect_err("not read");
    assert!(error.to_string().contains("another tensor"), "{error}");
    // Joined tensors are computed for one row.
    let c = config("tiny-sd1");
    let g = unet::conditioning(&c.unet, 77).expect("conditioning");
    assert!(Plan::new(&g, &options(1)).is_ok() && Plan::new(&g, &options(2)).is_err());
}

/// Rows with several prompts in one call give the same results as each alone, bit for bit.
#[test]
fn each_row_reads_the_prompt_that_was_kept_for_it() {
    let Some(gpu) = gpu() else { return };
    let engine = Engine::new(gpu).expect("engine");
    let model = checkpoint("tiny-sd1");
    let c = ModelConfig::infer(&model).expect("known").unet;
    let (tokens, size, precision) = (19, (9, 6), Precision::F16);
    let (device, cancel) = (engine.gpu().profile().clone(), AtomicBool::new(false));
    let wanted = unet::weights(&c).expect("weights");
    let weights = engine.upload(&wanted, &model, &precision.into(), None, &cancel).expect("upload");
    let from = (&weights, &model as &dyn WeightSource);
    let prepare = |graph: &Graph, rows| {
        let storage = weights.storage().clone();
        let plan =
            Plan::new(graph, &PlanOptions { rows, storage, device: device.clone(), guard: 0 }).expect("plan");
        let arena = engine.arena(&plan).expect("arena");
        engine.prepare(plan, &weights, &arena).expect("prepare")
    };
    let reader = prepare(&unet::conditioning(&c, tokens).expect("conditioning"), 1);
    let kept: Vec<KeptTensors> = (1..3)
        .map(|seed| {
            let prompt = Rng(seed).values(tokens * c.context_dim, precision);
            engine
                .run_and_keep(
                    &reader,
                    &PlanRun { streamed: Some(from), ..PlanRun::new(&[("context", &prompt)], &cancel) },
                )
                .expect("kept")
        })
        .collect();
    let build = unet::Options { size, tokens, record: false, ..Default::default() };
    let graph = unet::build(&c, &build).expect("unet");
    let x = Rng(9).values(size.0 * size.1 * c.in_channels, precision);
    let time = unet::time_embedding(500.0, c.model_channels);
    let run = |kept: &[&KeptTensors], rows: usize| {
        let (x, time) = (x.repeat(rows), time.repeat(rows));
        let inputs = [("x", x.as_slice()), ("time", time.as_slice())];
        Ok(engine
            .run(
                &prepare(&graph, rows),
                &PlanRun { streamed: Some(from), ..PlanRun::new(&inputs, &cancel).on(kept) },
            )?
            .remove(0)
            .1)
    };
    let alone: Vec<Vec<f32>> = kept.iter().map(|k| run(&[k], 1).expect("a run")).collect();
    assert_ne!(alone[0], alone[1], "the prompt matters");
    let together = run(&[&kept[1], &kept[0], &kept[1]], 3).expect("a run");
    assert_eq!(together, [1, 0, 1].map(|i| alone[i].clone()).concat());
    let error: sagittal::Error = run(&[&kept[0]], 3).expect_err("a prompt for one of three rows");
    assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
    let other = prepare(&unet::conditioning(&c, tokens + 1).expect("conditioning"), 1);
    let longer = vec![0.0; (tokens + 1) * c.context_dim];
    let longer = engine
        .run_and_keep(
            &other,
            &PlanRun { streamed: Some(from), ..PlanRun::new(&[("context", &longer)], &cancel) },
        )
        .expect("kept");
    assert!(run(&[&longer], 1).is_err(), "a prompt of another length");
}

/// Plans only: prompts of 1 to 2,310 tokens (thirty chunks) within the limits of every device; joined keys and values do
/// not overlap.
#[test]
fn prompts_of_any_length_stay_within_the_default_limits() {
    let mut failures = Failures::default();
    for family in ["tiny-sd1", "sd15", "sdxl"] {
        let c = config(family);
        for (tokens, precision) in [1, 77, 154, 770, 2310]
            .into_iter()
            .flat_map(|tokens| [(tokens, Precision::F16), (tokens, Precision::F32)])
        {
            let device = DeviceProfile::gpu();
            let options =
                PlanOptions { rows: 1, storage: precision.into(), device: device.clone(), guard: 0 };
            let plan = unet::conditioning(&c.unet, tokens).and_then(|g| Plan::new(&g, &options));
            let plan = plan.unwrap_or_else(|e| panic!("{family} {tokens} {precision:?}: {e}"));
            let mut written: Vec<(usize, u64, u64)> = Vec::new();
            for d in &plan.dispatches {
                // The result of a product is bound after bias, vector and residual. A split-K product has no result:
                // the next dispatch sums its parts.
                let r = match d.bindings.get(3) {
                    Some(Bound::Arena(r)) => r,
                    Some(Bound::Unused) => continue,
                    _ => panic!("{}: no result", d.path),
                };
                failures.check(r.offset.is_multiple_of(device.alignment), || format!("{}: {r:?}", d.path));
                written.push((r.slab, r.offset, r.offset + r.bytes));
            }
            failures.check(!written.is_empty(), || format!("{family} {tokens}: nothing is written"));
            written.sort_unstable();
            let apart = written.windows(2).all(|w| w[0].0 != w[1].0 || w[0].2 <= w[1].1);
            failures.check(apart, || format!("{family} {tokens}: results overlap"));
            let build = unet::Options { size: (16, 16), tokens, record: true, ..Default::default() };
            let reads = unet::build(&c.unet, &build).and_then(|g| Plan::new(&g, &options)).expect("a plan");
            let of = |slots: &[sagittal::internals::plan::PlanSlot]| -> Vec<(String, u64)> {
                let kept = slots.iter().filter(|s| s.kept);
                let mut kept: Vec<_> = kept.map(|s| (s.name.clone(), s.region.bytes)).collect();
                kept.sort();
                kept
            };
            failures.check(of(&plan.outputs) == of(&reads.inputs), || {
                format!("{family} {tokens}: not what is read")
            });
            for slab in plan.slabs.iter().chain(&reads.slabs) {
                failures.check(*slab <= device.max_buffer, || format!("{family} {tokens}: {slab} bytes"));
            }
        }
    }
    failures.finish();
}
