//! Tensors beyond what a device can bind: networks computed in parts give what they give whole,
//! and every size of picture has a plan within every device's limits.

use crate::common::bench::{Bench, Weights};
use crate::common::{Failures, Rng, gpu, nmse, to_f64};
use sagittal::checkpoint::{Checkpoint, Dtype, Manifest};
use sagittal::internals::engine::Engine;
use sagittal::internals::graph::{Graph, Heads, Op, Shape};
use sagittal::internals::kernels::{DeviceProfile, MAX_GROUPS, Precision, attention, gemm};
use sagittal::internals::model::{ModelConfig, unet, vae};
use sagittal::internals::plan::{Bound, Plan, PlanOptions};

fn config(family: &str) -> ModelConfig {
    let (_, text) = crate::common::MANIFESTS.iter().find(|(name, _)| *name == family).expect("a family");
    let manifest = Manifest::parse(text).expect("manifest");
    ModelConfig::infer(&Checkpoint::synthetic(&manifest, 0, Dtype::F16).expect("checkpoint")).expect("known")
}

/// Bytes of the largest binding of an activation. Partial sums of split-K do not count: how
/// many there are follows from the limit. They are a product's seventh binding, their sum's fifth.
fn largest(plan: &Plan) -> u64 {
    let bound = plan.dispatches.iter().flat_map(|d| {
        let sums = if *d.variant.kernel == gemm::MERGE { 4 } else { 6 };
        d.bindings.iter().enumerate().filter(move |(i, _)| *i != sums).map(|(_, b)| b)
    });
    let bytes = bound.map(|b| if let Bound::Arena(r) = b { r.bytes } else { 0 });
    bytes.max().unwrap_or(0)
}

/// Runs `graph` whole and under ever smaller limits; returns the errors and how often it was cut.
fn compare(bench: &Bench<'_>, graph: &Graph, what: &str, failures: &mut Failures) {
    let mut rng = Rng(11);
    let data: Vec<(String, Vec<f32>)> = graph
        .inputs()
        .iter()
        .map(|(name, t)| (name.clone(), bench.values(&mut rng, graph.shape(*t))))
        .collect();
    let inputs: Vec<(&str, &[f32])> = data.iter().map(|(n, v)| (n.as_str(), v.as_slice())).collect();
    let whole = bench.run(graph, &inputs);
    let plan = bench.plan(graph);
    for share in [2, 5] {
        let most = Some(largest(&plan) / share);
        let parts = Bench { most, profile: bench.profile.clone(), ..*bench };
        let cut = parts.plan(graph);
        assert!(largest(&cut) <= largest(&plan) / share, "{what}: a binding beyond the limit");
        assert!(cut.tensors.iter().any(|(name, _)| name.contains(", from line ")), "{what}: nothing was cut");
        for (a, b) in parts.run(graph, &inputs).iter().zip(&whole) {
            let error = nmse(a, &to_f64(b));
            let limit = if bench.precision == Precision::F32 { 1e-9 } else { 1e-4 };
            println!(
                "{what} in {share}: {} dispatches for {}, {error:.1e}",
                cut.dispatches.len(),
                plan.dispatches.len()
            );
            failures.check(error <= limit, || {
                format!("{:?} {:?} {what} in {share}: {error:.1e}", bench.profile, bench.precision)
            });
        }
    }
}

/// Real networks, among them the UNet that records for SAG, on a map with an odd side.
#[test]
fn networks_in_parts_give_what_they_give_whole() {
    let Some(gpu) = gpu() else { return };
    let engine = Engine::new(gpu).expect("engine");
    let c = config("tiny-sd1");
    let mut failures = Failures::default();
    for (profile, precision) in [
        (DeviceProfile::gpu(), Precision::F32),
        (DeviceProfile::cpu(), Precision::F32),
        (DeviceProfile::gpu(), Precision::F16),
        (DeviceProfile::cpu(), Precision::F16),
    ] {
        let bench = Bench::new(&engine, &profile, precision, 1);
        let build = unet::Options { size: (26, 15), tokens: 77, record: true, ..Default::default() };
        let networks = [
            ("UNet", unet::build(&c.unet, &build).expect("unet")),
            ("decoder", vae::decoder(&c.vae, 7, 10).expect("decoder")),
            ("encoder", vae::encoder(&c.vae, 72, 56).expect("encoder")),
        ];
        for (name, graph) in networks {
            compare(&bench, &graph, name, &mut failures);
        }
    }
    failures.finish();
}

/// Attention whose keys come in several parts, against the reference in f64.
#[test]
fn attention_over_keys_in_parts() {
    let Some(gpu) = gpu() else { return };
    let engine = Engine::new(gpu).expect("engine");
    let mut failures = Failures::default();
    for (profile, precision) in [
        (DeviceProfile::gpu(), Precision::F32),
        (DeviceProfile::cpu(), Precision::F32),
        (DeviceProfile::cpu(), Precision::F16),
    ] {
        // The network's own tensors may be split, what goes in and out may not: both are narrow.
        let (heads, dim, narrow) = (3, 16, 8);
        let c = heads * dim;
        let shape = Shape::new(40, 16, narrow);
        let mut g = Graph::new("");
        let x = g.input("x", shape);
        let qkv = g.linear("qkv", x, 3 * c, false).expect("linear");
        let (y, _) = g.self_attention("a", qkv, heads, false, false).expect("attention");
        let y = g.linear("out", y, narrow, false).expect("linear");
        g.output("y", y);
        let of = g.nodes().iter().find_map(|n| match n.op {
            Op::Attention { heads, .. } => Some(heads),
            _ => None,
        });
        let of: Heads = of.expect("attention");
        let whole = (shape.positions() * 3 * c) as u64 * precision.bytes();
        for share in [1, 2, 4] {
            let bench = Bench { most: Some(whole / share), ..Bench::new(&engine, &profile, precision, 1) };
            let kernels = bench.plan(&g).variants();
            let merges = kernels.keys().any(|k| k.starts_with("attention_merge"));
            assert_eq!(merges, share > 1, "{kernels:?}");
            let xs: Vec<f32> = bench.values(&mut Rng(3), shape).iter().map(|v| v * 3.0).collect();
            let got = &bench.run(&g, &[("x", &xs)])[0];
            let weights = Weights(precision);
            let product = |name: &str, input: Shape, out: usize, x: &[f64]| {
                let (w, output) =
                    (weights.product(name, out, input.channels, 1), Shape { channels: out, ..input });
                gemm::reference(input, output, None, x, &w, None, None, None, None)
            };
            let kept = |v: Vec<f64>| {
                v.iter().map(|v| f64::from(crate::common::stored(*v as f32, precision))).collect()
            };
            let qkv: Vec<f64> = kept(product("qkv.weight", shape, 3 * c, &to_f64(&xs)));
            let y: Vec<f64> = kept(attention::reference(of, false, (&qkv, 3 * c), (&qkv, 3 * c)));
            let want = product("out.weight", Shape { channels: c, ..shape }, narrow, &y);
            let error = nmse(got, &want);
            println!("{profile} {precision:?} in {share}: {error:.1e}");
            let limit = if precision == Precision::F32 { 1e-10 } else { 1e-6 };
            failures.check(error <= limit, || format!("{profile} {precision:?} in {share}: {error:.1e}"));
        }
    }
    failures.finish();
}

/// The planner alone: SD1.5 and SDXL in every size from 64 to 2048 pixels, under the limits that
/// every device offers.
#[test]
fn every_size_from_64_to_2048_has_a_plan_within_the_default_limits() {
    let mut failures = Failures::default();
    for (family, targets) in [
        (
            "sd15",
            vec![
                (DeviceProfile::gpu(), Precision::F16),
                (DeviceProfile::gpu(), Precision::F32),
                (DeviceProfile::cpu(), Precision::F32),
            ],
        ),
        ("sdxl", vec![(DeviceProfile::gpu(), Precision::F16), (DeviceProfile::gpu(), Precision::F32)]),
    ] {
        let c = config(family);
        for (profile, precision) in targets {
            let options =
                PlanOptions { rows: 1, storage: precision.into(), device: profile.clone(), guard: 0 };
            let sizes =
                (64..=2048).step_by(8).flat_map(|n| [(n, n), (n, 2048), (2048, n), (512, n), (n, 512)]);
            for (i, (height, width)) in sizes.enumerate() {
                let latent = (height / 8, width / 8);
                let build = unet::Options { size: latent, tokens: 77, record: true, ..Default::default() };
                let mut graphs = vec![("decoder", vae::decoder(&c.vae, latent.0, latent.1))];
                // The encoder mirrors the decoder, and a UNet of SDXL takes milliseconds to plan.
                if i % 5 == 0 {
                    graphs.push(("UNet", unet::build(&c.unet, &build)));
                    graphs.push(("encoder", vae::encoder(&c.vae, height, width)));
                }
                for (name, graph) in graphs {
                    let fits =
                        graph.and_then(|g| Plan::new(&g, &options)).map(|p| within(&p, &options.device));
                    let fits = fits.unwrap_or_else(|e| Err(e.to_string()));
                    failures.check(fits.is_ok(), || {
                        format!("{family} {profile} {precision:?} {height}x{width} {name}: {fits:?}")
                    });
                }
            }
        }
    }
    failures.finish();
}

/// Whether a device with `limits` can run `plan`.
fn within(plan: &Plan, limits: &DeviceProfile) -> Result<(), String> {
    if let Some(slab) = plan.slabs.iter().find(|s| **s > limits.max_buffer) {
        return Err(format!("a buffer of {slab} bytes"));
    }
    for d in &plan.dispatches {
        if d.groups.iter().any(|g| *g > MAX_GROUPS) {
            return Err(format!("{}: {:?} workgroups", d.path, d.groups));
        }
        for b in &d.bindings {
            if let Bound::Arena(r) = b {
                let inside = r.offset + r.bytes <= plan.slabs[r.slab];
                if r.bytes > limits.max_binding || !r.offset.is_multiple_of(limits.alignment) || !inside {
                    return Err(format!("{}: {r:?}", d.path));
                }
            }
        }
    }
    Ok(())
}
