//! The planner, on random work and on real models' shapes. No GPU.

use std::collections::HashMap;

use crate::common::{Failures, Rng};
use sagittal::ErrorKind;
use sagittal::checkpoint::{Checkpoint, Manifest};
use sagittal::internals::graph::{Activation, Graph, Shape};
use sagittal::internals::kernels::gemm::simd;
use sagittal::internals::kernels::{DeviceProfile, MAX_GROUPS, Precision, spread};
use sagittal::internals::model::{ModelConfig, unet, vae};
use sagittal::internals::plan::arena::{TensorLifetime, place};
use sagittal::internals::plan::chunk::{ChunkPolicy, rows_per_call};
use sagittal::internals::plan::{Plan, PlanOptions, Storage};

fn options(rows: usize, precision: Precision) -> PlanOptions {
    PlanOptions { rows, storage: precision.into(), device: (DeviceProfile::gpu()), guard: 0 }
}

fn config(family: &str) -> ModelConfig {
    let path = format!("tests/golden/manifests/{family}.json");
    let manifest = Manifest::parse(&std::fs::read_to_string(path).expect("manifest")).expect("manifest");
    let checkpoint =
        Checkpoint::synthetic(&manifest, 0, sagittal::checkpoint::Dtype::F16).expect("checkpoint");
    ModelConfig::infer(&checkpoint).expect("a known family")
}

fn unet_plan(
    config: &ModelConfig,
    size: (usize, usize),
    record: bool,
    o: &PlanOptions,
) -> sagittal::Result<Plan> {
    let build = unet::Options { size, tokens: 77, record, ..Default::default() };
    Plan::new(&unet::build(&config.unet, &build)?, o)
}

#[test]
fn nothing_that_lives_together_overlaps() {
    let mut rng = Rng(5);
    for _ in 0..300 {
        let steps = rng.range(1, 60);
        let requests: Vec<TensorLifetime> = (0..rng.range(1, 120))
            .map(|_| {
                let first = rng.range(0, steps);
                TensorLifetime {
                    bytes: rng.range(1, 100_000) as u64,
                    first,
                    last: rng.range(first, (first + 8).min(steps)),
                }
            })
            .collect();
        let alignment = [16, 256][rng.range(0, 1)];
        let guard = [0, 64][rng.range(0, 1)];
        let slab = rng.range(100_000, 2_000_000) as u64 + 512;
        let placed = place(&requests, alignment, guard, slab);
        for (i, (a, ra)) in requests.iter().zip(&placed.regions).enumerate() {
            assert_eq!(ra.bytes, a.bytes);
            assert_eq!(ra.offset % alignment, 0);
            assert!(ra.offset + ra.bytes + guard <= placed.slabs[ra.slab], "inside its buffer");
            assert!(placed.slabs[ra.slab] <= slab.next_multiple_of(alignment));
            for (b, rb) in requests.iter().zip(&placed.regions).take(i) {
                let together = a.first <= b.last && b.first <= a.last && ra.slab == rb.slab;
                let apart =
                    ra.offset + ra.bytes + guard <= rb.offset || rb.offset + rb.bytes + guard <= ra.offset;
                assert!(!together || apart, "{a:?} at {ra:?} and {b:?} at {rb:?}");
            }
        }
    }
}

#[test]
fn arenas_of_real_models_stay_near_the_lower_bound() {
    let mut failures = Failures::default();
    for family in ["tiny-sd1", "sd15", "sd21", "sdxl"] {
        let c = config(family);
        for (size, rows) in [((64, 64), 2), ((33, 47), 1), ((96, 64), 3)] {
            for record in [false, true] {
                let plan = unet_plan(&c, size, record, &options(rows, Precision::F16)).expect("plan");
                let ratio = plan.arena_bytes() as f64 / plan.lower_bound as f64;
                println!("{family} {size:?} x{rows}: {ratio:.3} of {} MiB", plan.lower_bound >> 20);
                failures.check(ratio <= 1.15, || format!("{family} {size:?} x{rows}: {ratio:.3}"));
            }
        }
        let graph = vae::decoder(&c.vae, 32, 32).expect("decoder");
        let plan = Plan::new(&graph, &options(1, Precision::F16)).expect("plan");
        let ratio = plan.arena_bytes() as f64 / plan.lower_bound as f64;
        failures.check(ratio <= 1.15, || format!("{family} VAE: {ratio:.3}"));
    }
    failures.finish();
}

/// At a latent of 128×128 the first self-attention has T = 16,384 tokens: a T×T buffer would be
/// 16 times that of 64×64, and half a gigabyte a head.
#[test]
fn no_buffer_grows_with_the_square_of_the_tokens() {
    let mut failures = Failures::default();
    for family in ["tiny-sd1", "sd15", "sdxl"] {
        let c = config(family);
        let [small, large] = [64, 128].map(|n| {
            // Beyond the baseline's binding: this test is about growth.
            let device = DeviceProfile { max_binding: 1 << 40, max_buffer: 1 << 40, ..DeviceProfile::gpu() };
            let o = PlanOptions { rows: 1, storage: Precision::F32.into(), device, guard: 0 };
            unet_plan(&c, (n, n), true, &o).expect("plan")
        });
        let before: HashMap<&String, u64> =
            small.tensors.iter().map(|(name, bytes)| (name, *bytes)).collect();
        for (name, b) in &large.tensors {
            // Statistics in spans are there for large maps only: 16 bytes a span and group.
            let a = before.get(name).copied().unwrap_or(4 << 10);
            failures.check(*b <= 4 * a, || format!("{family} {name}: {a} bytes at 64, {b} at 128"));
        }
        let growth = large.arena_bytes() as f64 / small.arena_bytes() as f64;
        println!("{family}: arena grows {growth:.2} times");
        failures.check(growth <= 4.1, || format!("{family}: arena grows {growth:.2} times"));
    }
    failures.finish();
}

#[test]
fn a_tensor_beyond_the_devices_limit_is_a_typed_error() {
    let c = config("sd15");
    let device = DeviceProfile { max_binding: 1 << 20, ..DeviceProfile::gpu() };
    let o = PlanOptions { device, ..options(1, Precision::F32) };
    let error = unet_plan(&c, (64, 64), false, &o).expect_err("too large");
    assert_eq!(error.kind(), ErrorKind::Memory);
    assert!(error.to_string().contains("at most 1048576 bytes"), "{error}");
}

#[test]
fn chunks_follow_policy_budget_and_limits() {
    let c = config("tiny-sd1");
    let plan = |rows| unet_plan(&c, (16, 16), true, &options(rows, Precision::F32));
    let arena = |rows| plan(rows).expect("plan").arena_bytes();
    let rows = |policy, budget| rows_per_call(policy, 12, budget, plan);
    assert_eq!(rows(ChunkPolicy::Auto, None).expect("fits"), 12);
    assert_eq!(rows(ChunkPolicy::Rows(5), None).expect("fits"), 5);
    assert_eq!(rows(ChunkPolicy::Rows(99), None).expect("fits"), 12);
    assert_eq!(rows(ChunkPolicy::Auto, Some(arena(4))).expect("fits"), 4);
    assert_eq!(rows(ChunkPolicy::Auto, Some(arena(5) - 1)).expect("fits"), 4);
    let error = rows(ChunkPolicy::Auto, Some(arena(1) - 1)).expect_err("too small");
    assert_eq!(error.kind(), ErrorKind::Memory);
    let narrow = DeviceProfile { max_binding: 1 << 20, ..DeviceProfile::gpu() };
    let limited = |rows| {
        unet_plan(
            &c,
            (16, 16),
            true,
            &PlanOptions { device: narrow.clone(), ..options(rows, Precision::F32) },
        )
    };
    let most = rows_per_call(ChunkPolicy::Auto, 1000, None, limited).expect("fits");
    assert!(limited(most).is_ok() && limited(most + 1).is_err(), "{most}");
}

#[test]
fn large_grids_spread_over_two_directions() {
    for n in [1, 65_535, 65_536, 1_000_000, 100_000_000] {
        let [x, y] = spread(n);
        assert!(x <= MAX_GROUPS && y <= MAX_GROUPS && u64::from(x) * u64::from(y) >= u64::from(n), "{n}");
    }
}

#[test]
fn fusion_leaves_nothing_to_do_that_a_kernel_does_on_its_way() {
    let mut g = Graph::new("");
    let x = g.input("x", Shape::new(4, 4, 32));
    let v = g.input("v", Shape::tokens(1, 64));
    let n = g.group_norm("n", x, 1e-5).expect("norm");
    let n = g.activate("n", Activation::Silu, n);
    let c = g.conv3x3_doubled("c", n, (8, 8), 64).expect("conv");
    let c = g.add_vector("cv", c, v).expect("vector");
    let l = g.linear("l", c, 64, true).expect("linear");
    let s = g.add("s", l, c).expect("sum");
    g.output("y", s);
    let plan = Plan::new(&g, &options(1, Precision::F32)).expect("plan");
    let kernels: Vec<_> = plan.dispatches.iter().map(|d| d.variant.kernel.name()).collect();
    assert_eq!(kernels, ["group_norm_stats", "group_norm_apply", "conv2d", "matmul"]);
}

/// On CPU drivers, where a product computes an activation whether it has one or not, none has.
#[test]
fn activations_are_taken_in_where_that_pays() {
    let mut g = Graph::new("");
    let x = g.input("x", Shape::tokens(9, 32));
    let y = g.linear("l", x, 48, true).expect("linear");
    let y = g.activate("a", Activation::Gelu, y);
    g.output("y", y);
    for (profile, expected) in
        [(DeviceProfile::gpu(), &["matmul"][..]), (DeviceProfile::cpu(), &["matmul", "activate"])]
    {
        let o = PlanOptions { device: profile, ..options(1, Precision::F32) };
        let plan = Plan::new(&g, &o).expect("plan");
        let kernels: Vec<_> = plan.dispatches.iter().map(|d| d.variant.kernel.name()).collect();
        assert_eq!(kernels, expected);
    }
}

/// A plan names what runs: on a CPU driver a product in f32 whose weight is f16 in its file is another variant
/// than one whose weight is not, unless the weight is summed first; nowhere else is any.
#[test]
fn a_plan_has_the_variants_of_its_weights() {
    let mut g = Graph::new("");
    let x = g.input("x", Shape::new(4, 5, 32));
    let y = g.conv3x3("narrow", x, 48, 1, 1).expect("convolution");
    let y = g.linear_merged("mixed", y, &[("narrow", 16), ("wide", 16)], false).expect("linear");
    let y = g.conv3x3_doubled("narrow.doubled", y, (8, 10), 32).expect("convolution");
    let y = g.linear("narrow.last", y, 32, true).expect("linear");
    g.output("y", y);
    for (profile, precision) in [
        (DeviceProfile::cpu(), Precision::F32),
        (DeviceProfile::cpu(), Precision::F16),
        (DeviceProfile::gpu(), Precision::F32),
        (DeviceProfile::gpu(), Precision::F16),
    ] {
        let storage = Storage::of(g.weights(), precision, &profile, |name| !name.contains("wide"));
        let o = PlanOptions { device: profile.clone(), storage, ..options(2, precision) };
        let plan = Plan::new(&g, &o).expect("plan");
        let halved = plan.dispatches.iter().filter(|d| simd::has_f16_weights(&d.variant));
        let halved: Vec<&str> = halved.map(|d| d.path.as_str()).collect();
        let expected = match (profile.cpu, precision) {
            (true, Precision::F32) => vec!["narrow", "narrow.last"],
            _ => vec![],
        };
        assert_eq!(halved, expected, "{profile} {precision:?}");
        // Without exceptions the storage is that of the precision by itself.
        assert_eq!(plan.storage == precision.into(), expected.is_empty(), "{profile} {precision:?}");
    }
    // What is stored for a CPU driver is not for other devices.
    let storage = Storage::of(g.weights(), Precision::F32, &DeviceProfile::cpu(), |_| true);
    let error = Plan::new(&g, &PlanOptions { storage, ..options(1, Precision::F32) }).expect_err("no kernel");
    assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
}

#[test]
fn the_variants_of_a_row_do_not_depend_on_its_company() {
    for family in ["tiny-sd1", "sd15"] {
        let c = config(family);
        for profile in [DeviceProfile::gpu(), DeviceProfile::cpu()] {
            let of = |rows| {
                let o = PlanOptions { device: profile.clone(), ..options(rows, Precision::F16) };
                unet_plan(&c, (17, 23), true, &o).expect("plan").variants()
            };
            assert_eq!(of(1), of(7), "{family} {profile}");
        }
    }
}

#[test]
fn a_unet_without_middle_attention_cannot_record() {
    let mut c = config("tiny-sd1");
    c.unet.middle = sagittal::internals::model::config::MiddleBlock::Res;
    let error = unet_plan(&c, (16, 16), true, &options(1, Precision::F32)).expect_err("no attention");
    assert_eq!(error.kind(), ErrorKind::Model);
    assert!(error.to_string().contains("middle_block.1.transformer_blocks.0.attn1"), "{error}");
    unet_plan(&c, (16, 16), false, &options(1, Precision::F32)).expect("runs without SAG");
}

/// Parts of a convolution with split-K are added as a convolution, those of a product as a product.
#[test]
fn parts_are_added_in_the_class_of_what_they_are_parts_of() {
    use sagittal::internals::bench::profile::classes;
    use sagittal::internals::kernels::Class;
    let mut g = Graph::new("");
    let x = g.input("x", Shape::new(8, 8, 1280));
    let y = g.conv3x3("conv", x, 1280, 1, 1).unwrap();
    let z = g.linear("product", y, 64, true).unwrap();
    g.output("z", z);
    let device = DeviceProfile { max_binding: 1 << 40, max_buffer: 1 << 40, ..DeviceProfile::gpu() };
    let storage = Storage::of(g.weights(), Precision::F32, &DeviceProfile::gpu(), |_| false);
    let plan = Plan::new(&g, &PlanOptions { rows: 1, storage, device, guard: 0 }).unwrap();
    let found: Vec<(&str, Class)> = plan
        .dispatches
        .iter()
        .zip(classes(&plan))
        .map(|(d, class)| (d.variant.kernel.name(), class))
        .collect();
    let wanted = [
        ("conv2d", Class::Convolution),
        ("gemm_merge", Class::Convolution),
        ("matmul", Class::Linear),
        ("gemm_merge", Class::Linear),
    ];
    assert_eq!(found, wanted);
}
