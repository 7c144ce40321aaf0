//! Graphs, plans, weights and runs on any argument: none panics, and what a caller did wrong is called that.

use std::cell::Cell;
use std::sync::atomic::AtomicBool;

use super::operations::operations;
use crate::common::any_argument::{FLOATS, SIZES, Watch, pairs};
use crate::common::bench::Weights as Anything;
use crate::common::{gpu, synthetic};
use sagittal::checkpoint::Checkpoint;
use sagittal::internals::bench::plot::{Chart, Scale};
use sagittal::internals::bench::profile::{Ceiling, Layer, Profile, classes};
use sagittal::internals::bench::shapes::{Kind, Shape as Measured};
use sagittal::internals::bench::sweep::{Axis, Step};
use sagittal::internals::bench::{Effort, Timing, presets};
use sagittal::internals::engine::{BufferOffset, Engine, PlanRun, Stream, WeightSource};
use sagittal::internals::graph::{Graph, Layout, Shape, Tensor, Weight};
use sagittal::internals::kernels::{Buf, Call, DeviceProfile, Matrices, Operand, Precision, Stretch};
use sagittal::internals::model::config::{Heads, InputBlock, MiddleBlock, UnetConfig};
use sagittal::internals::model::{ModelConfig, unet, vae};
use sagittal::internals::plan::arena::{TensorLifetime, lower_bound, place};
use sagittal::internals::plan::chunk::{ChunkPolicy, rows_per_call};
use sagittal::internals::plan::{Bound, Plan, PlanOptions, tensor_bytes};
use sagittal::internals::text::clip;
use sagittal::{Result, wgpu};

static GO: AtomicBool = AtomicBool::new(false);

fn profiles() -> [DeviceProfile; 4] {
    let [large, .., small] = Matrices::ALL;
    [
        DeviceProfile::gpu(),
        DeviceProfile::cpu(),
        DeviceProfile::with_matrices(large, 32 << 10),
        DeviceProfile::with_matrices(small, 32 << 10),
    ]
}

fn options(rows: usize, device: &DeviceProfile) -> PlanOptions {
    PlanOptions { rows, storage: Precision::F32.into(), device: device.clone(), guard: 0 }
}

/// Of small and of impossible numbers.
const FEW: [usize; 5] = [0, 1, 4, 96, usize::MAX];

/// Every builder on `x` and `y`, with `n` for all numbers; layers that cannot be are left out.
fn layers(watch: &mut Watch, g: &mut Graph, [x, y]: [Tensor; 2], n: usize) {
    let what = format!("{} and {}, {n}", g.shape(x), g.shape(y));
    let what = what.as_str();
    watch.tries(what, || g.linear("a", x, n, true));
    watch.tries(what, || g.conv1x1("b", x, n));
    watch.tries(what, || g.linear_merged("c", x, &[("d", n), ("e", n), ("f", 4)], false));
    watch.tries(what, || g.linear_merged("c", x, &[], true));
    watch.runs(what, || g.linear_named("g", x, n, "w", "b"));
    for (stride, pad) in pairs() {
        watch.tries(what, || g.conv3x3("h", x, n, stride, pad));
    }
    watch.tries(what, || g.conv3x3_doubled("i", x, (n, 2), n));
    watch.tries(what, || g.group_norm("j", x, f32::NAN));
    watch.runs(what, || g.layer_norm("k", x));
    watch.tries(what, || g.self_attention("l", x, n, true, true));
    watch.tries(what, || g.cross_attention("m", x, y, n));
    watch.tries(what, || g.self_attention_of("n", x, y, n));
    watch.tries(what, || g.attention_columns("o", x, y, n));
    for operation in operations() {
        watch.tries(what, || (operation.build)(g, &[x, y]));
    }
    watch.tries(what, || g.channels("u", x, n, n));
    watch.runs(what, || g.blur("v", x, n as f32));
    watch.tries(what, || g.part("w", x, n, Shape::new(1, n, 4)));
    watch.tries(what, || g.place(y, x, n));
    watch.runs(what, || g.room("z", n));
}

#[test]
fn graphs_and_plans_of_any_shape() {
    let mut watch = Watch::default();
    let planned = Cell::new(0);
    for (n, channels) in FEW.into_iter().flat_map(|n| FEW.map(|c| (n, c))) {
        for shape in [Shape::new(n, 2, channels), Shape::new(2, n, channels), Shape::tokens(n, channels)] {
            let what = shape.to_string();
            watch.runs(&what, || (shape.positions(), shape.quads()));
            for number in FEW {
                // One layer after the other in a graph of its own, so that a bad one hides no other.
                let mut g = Graph::new("p.");
                let pair = [g.input("x", shape), g.input("y", shape)];
                layers(&mut watch, &mut g, pair, number);
                watch.runs(&what, || (g.output("o", pair[0]), g.keep("k", pair[1]), g.sliced().len()));
                watch.runs(&what, || g.weights().iter().map(Weight::device_len).max());
                watch.runs(&what, || tensor_bytes(g.info(pair[0]), usize::MAX, Precision::F16));
                for (rows, profile) in [1, usize::MAX, 2].into_iter().zip(profiles()) {
                    watch.tries(&what, || Plan::new(&g, &options(rows, &profile)));
                }
            }
            for profile in profiles() {
                for number in FEW {
                    each_alone(&mut watch, shape, number, &profile, &planned);
                }
            }
        }
    }
    assert!(
        watch.refused > 1000 && planned.get() > 100,
        "{} refused, {} planned",
        watch.refused,
        planned.get()
    );
    watch.failures.finish();
}

/// A plan of each layer by itself.
fn each_alone(watch: &mut Watch, shape: Shape, n: usize, profile: &DeviceProfile, planned: &Cell<usize>) {
    type Make = fn(&mut Graph, Tensor, usize) -> Result<Tensor>;
    let makes: [Make; 11] = [
        |g, x, n| g.linear("l", x, n, true),
        |g, x, n| g.conv3x3("l", x, n, 1, 1),
        |g, x, n| g.conv3x3("l", x, n, 2, 0),
        |g, x, n| {
            let s = g.shape(x);
            g.conv3x3_doubled("l", x, (s.height.saturating_mul(2), s.width.saturating_mul(2)), n)
        },
        |g, x, _| g.group_norm("l", x, 1e-5),
        |g, x, _| Ok(g.layer_norm("l", x)),
        |g, x, n| g.self_attention("l", x, n, false, true).map(|(y, _)| y),
        |g, x, _| Ok(g.geglu("l", x)),
        |g, x, _| g.concat("l", x, x),
        |g, x, n| g.channels("l", x, 0, n),
        |g, x, n| Ok(g.blur("l", x, n as f32)),
    ];
    for (at, make) in makes.into_iter().enumerate() {
        let what = format!("layer {at} of {shape} with {n} on {profile}");
        let mut g = Graph::new("");
        let x = g.input("x", shape);
        let Some(y) = watch.tries(&what, || make(&mut g, x, n)) else { continue };
        g.output("y", y);
        let device =
            DeviceProfile { max_binding: u64::MAX, max_buffer: u64::MAX, ..options(1, profile).device };
        for o in [options(1, profile), options(3, profile), PlanOptions { device, ..options(1, profile) }] {
            let plan = watch.tries(&what, || Plan::new(&g, &o));
            planned.set(planned.get() + usize::from(plan.is_some()));
        }
    }
}

#[test]
fn plans_for_any_device() {
    let mut watch = Watch::default();
    let config = ModelConfig::infer(&synthetic("tiny-sd1")).expect("a configuration");
    let graph = unet::build(&config.unet, &unet::Options { size: (8, 8), tokens: 77, ..Default::default() })
        .expect("a graph");
    let numbers = [0, 1, 3, 16, 256, 1 << 20, u64::MAX / 2, u64::MAX];
    for profile in profiles() {
        for (a, b) in numbers.into_iter().flat_map(|a| numbers.map(|b| (a, b))) {
            let what = format!("{a} and {b} on {profile}");
            let device = |max_binding, max_buffer, alignment| PlanOptions {
                device: DeviceProfile { max_binding, max_buffer, alignment, ..profile.clone() },
                ..options(1, &profile)
            };
            for o in
                [device(a, b, 256), device(1 << 27, a, b), PlanOptions { guard: a, ..options(2, &profile) }]
            {
                let plan = watch.tries(&what, || Plan::new(&graph, &o));
                watch.runs(&what, || {
                    plan.map(|p| {
                        (p.arena_bytes(), p.side_bytes(b), p.params_bytes(a), p.bound_bytes(), p.flops())
                    })
                });
            }
        }
        for rows in SIZES {
            watch.tries("rows", || Plan::new(&graph, &options(rows, &profile)));
            for policy in [ChunkPolicy::Auto, ChunkPolicy::Rows(rows)] {
                for budget in [None, Some(0), Some(u64::MAX)] {
                    let plan = |rows| Plan::new(&graph, &options(rows, &profile));
                    watch.tries("rows of a call", || rows_per_call(policy, rows, budget, plan));
                }
            }
        }
    }
    let plan = Plan::new(&graph, &options(1, &DeviceProfile::gpu())).expect("a plan");
    watch.tries("no slot", || plan.slot("none"));
    watch.runs("any slabs", || plan.enlarge(&mut vec![u64::MAX; 3]));
    for (first, last) in pairs() {
        for bytes in numbers {
            let what = format!("{bytes} bytes from {first} to {last}");
            let request = TensorLifetime { bytes, first, last };
            let requests = [request, TensorLifetime { bytes: 7, ..request }, request];
            for alignment in numbers {
                watch.runs(&what, || place(&requests, alignment, bytes, alignment).slabs);
            }
            watch.runs(&what, || lower_bound(&requests));
        }
    }
    // Handles of another graph.
    let mut other = Graph::new("");
    let foreign: Vec<Tensor> = (0..9).map(|i| other.room(&i.to_string(), 4)).collect();
    let mut g = Graph::new("");
    let x = g.input("x", Shape::tokens(4, 96));
    layers(&mut watch, &mut g, [x, foreign[8]], 4);
    layers(&mut watch, &mut g, [foreign[8], foreign[8]], 96);
    watch.runs("foreign results", || {
        (g.output("o", foreign[8]), g.keep("k", foreign[7]), g.trace("t", foreign[6]))
    });
    let refused = watch.refused;
    watch.tries("a foreign tensor", || Plan::new(&g, &options(1, &DeviceProfile::gpu())));
    assert!(watch.refused > refused, "a plan with tensors of another graph");
    watch.failures.finish();
}

/// Configurations with one number replaced.
fn unets(config: &UnetConfig, n: usize) -> Vec<UnetConfig> {
    let with = |change: &dyn Fn(&mut UnetConfig)| {
        let mut changed = config.clone();
        change(&mut changed);
        changed
    };
    vec![
        with(&|c| c.in_channels = n),
        with(&|c| c.out_channels = n),
        with(&|c| c.model_channels = n),
        with(&|c| c.time_channels = n),
        with(&|c| c.context_dim = n),
        with(&|c| c.adm_in_channels = Some(n)),
        with(&|c| c.heads = Heads::Count(n)),
        with(&|c| c.heads = Heads::Width(n)),
        with(&|c| c.middle = MiddleBlock::Attention { transformer_depth: n }),
        with(&|c| c.middle = MiddleBlock::Absent),
        with(&|c| c.input_blocks.truncate(n)),
        with(&|c| c.output_blocks.truncate(n)),
        with(&|c| c.input_blocks.push(InputBlock::Down { channels: n })),
        with(&|c| c.output_blocks.iter_mut().for_each(|b| (b.out_channels, b.up) = (n, true))),
        with(&|c| c.output_blocks.iter_mut().for_each(|b| b.transformer_depth = n)),
        with(&|c| {
            c.input_blocks[1] =
                InputBlock::Res { in_channels: n, out_channels: n, transformer_depth: n.min(9) };
        }),
    ]
}

#[test]
fn networks_of_any_configuration() {
    let mut watch = Watch::default();
    let model = ModelConfig::infer(&synthetic("tiny-sdxl")).expect("a configuration");
    for n in [0, 1, 3, 64, 100, 1 << 20, usize::MAX / 3, usize::MAX] {
        let what = n.to_string();
        for config in unets(&model.unet, n) {
            watch.runs(&what, || (config.channel_mult(), config.downs(), config.level_channels()));
            watch.runs(&what, || (config.heads.count(n), config.middle_channels(), config.num_res_blocks()));
            for (size, tokens) in [((8, 8), 77), ((n, 8), 77), ((8, 8), n)] {
                let options = unet::Options { size, tokens, record: true, ..Default::default() };
                watch.tries(&what, || Plan::new(&unet::build(&config, &options)?, &options_of(n)));
            }
            watch.tries(&what, || unet::weights(&config));
            watch.tries(&what, || unet::conditioning(&config, n));
        }
        watch.runs(&what, || unet::time_embedding(f32::NAN, n).len());
        let mut vaes = vec![model.vae.clone(); 6];
        vaes[0].channels = n;
        vaes[1].level_channels = vec![n; n.min(70)];
        vaes[2].res_blocks = n;
        (vaes[3].z_channels, vaes[4].latent_channels, vaes[5].image_channels) = (n, n, n);
        for config in &vaes {
            watch.runs(&what, || (config.scale(), config.channel_mult()));
            watch.tries(&what, || vae::decoder(config, 8, n));
            watch.tries(&what, || vae::encoder(config, n, 64));
            watch.tries(&what, || Plan::new(&vae::decoder(config, 8, 8)?, &options_of(1)));
            watch.tries(&what, || Plan::new(&vae::encoder(config, 64, 64)?, &options_of(2)));
        }
        let whole = ModelConfig { vae: vaes[1].clone(), ..model.clone() };
        watch.runs(&what, || (whole.latent_cell(), whole.native_side()));
        let mut texts = vec![model.text[0].clone(); 5];
        (texts[0].width, texts[1].heads, texts[2].layers) = (n, n, n);
        (texts[3].mlp_width, texts[4].projection) = (n, Some(n));
        for (config, pooled) in texts.iter().flat_map(|c| [(c, true), (c, false)]) {
            let options = clip::Options { skip: n, norm: pooled, pooled };
            watch.tries(&what, || Plan::new(&clip::build(config, &options)?, &options_of(1)));
        }
    }
    assert!(watch.refused > 100, "{} refused", watch.refused);
    watch.failures.finish();
}

fn options_of(rows: usize) -> PlanOptions {
    options(rows, &DeviceProfile::gpu())
}

/// Values of another number than were asked for.
struct Odd(usize);

impl WeightSource for Odd {
    fn read(&self, _: &str, shape: &[usize]) -> Result<Vec<f32>> {
        Ok(vec![0.5; if self.0 == 1 { 1 } else { self.0 * shape.iter().product::<usize>() }])
    }
}

#[test]
fn engines_with_anything() {
    let Some(gpu) = gpu() else { return };
    let mut watch = Watch::default();
    let engine = Engine::new(gpu.clone()).expect("an engine");
    let storage = Precision::F32.into();
    for shapes in [vec![], vec![vec![]], vec![vec![0]], vec![vec![usize::MAX; 4]], vec![vec![4, 4], vec![8]]]
    {
        for layout in [Layout::Vector, Layout::Linear, Layout::Conv3x3, Layout::Conv3x3Doubled] {
            for sources in [vec![], vec!["a".to_owned()], vec!["a".to_owned(), "b".to_owned()]] {
                let weight = [Weight { sources, shapes: shapes.clone(), layout }];
                let what = format!("{weight:?}");
                watch.runs(&what, || (weight[0].in_features(), weight[0].device_len()));
                for most in [None, Some(0), Some(u64::MAX)] {
                    watch.tries(&what, || engine.weight_bytes(&weight, &storage, most));
                    watch.tries(&what, || engine.upload(&weight, &Odd(3), &storage, most, &GO));
                }
            }
        }
    }
    watch.tries("no weights", || engine.upload(&[], &Odd(0), &storage, None, &GO));
    let mut g = Graph::new("");
    let x = g.input("x", Shape::new(2, 3, 8));
    let y = g.linear("l", x, 4, true).expect("a layer");
    g.output("y", y);
    for odd in [0, 1, 2, 7] {
        watch.tries("an odd source", || engine.upload(g.weights(), &Odd(odd), &storage, None, &GO));
    }
    let weights =
        engine.upload(g.weights(), &Anything(Precision::F32), &storage, None, &GO).expect("weights");
    let device = gpu.profile().clone();
    let plan = Plan::new(&g, &PlanOptions { rows: 2, storage, device, guard: 0 }).expect("a plan");
    let arena = engine.arena(&plan).expect("an arena");
    // A plan's fields are anybody's.
    let broken: [fn(&mut Plan); 9] = [
        |p| p.rows = 0,
        |p| p.rows = usize::MAX,
        |p| p.weights.clear(),
        |p| p.slabs.clear(),
        |p| p.dispatches[0].groups = [u32::MAX; 3],
        |p| p.dispatches[0].bindings.extend(vec![Bound::Unused; 40]),
        |p| p.inputs[0].region.slab = usize::MAX,
        |p| p.outputs[0].region.offset = u64::MAX,
        |p| p.outputs[0].shape = Shape::new(usize::MAX, usize::MAX, 3),
    ];
    for (at, change) in broken.into_iter().enumerate() {
        let mut plan = plan.clone();
        change(&mut plan);
        let refused =
            watch.tries(&format!("broken {at}"), || engine.prepare(plan, &weights, &arena)).is_none();
        watch.failures.check(refused, || format!("a plan broken in way {at} is prepared"));
    }
    let prepared = engine.prepare(plan, &weights, &arena).expect("prepared");
    let sound = vec![0.5; 2 * 6 * 8];
    let many = vec![f32::NAN; 1000];
    for (name, values) in [("x", &[][..]), ("x", &many), ("y", &sound), ("x", &sound), ("x", &many[..96])] {
        let inputs = [(name, values)];
        watch.tries(name, || engine.run(&prepared, &PlanRun::new(&inputs, &GO)));
        watch.tries(name, || engine.run_and_keep(&prepared, &PlanRun::new(&inputs, &GO)));
        watch.tries(name, || engine.keep(&prepared, &inputs));
    }
    watch.tries("no inputs", || engine.run(&prepared, &PlanRun::new(&[], &GO)));
    let done = engine.run(&prepared, &PlanRun::new(&[("x", &sound)], &GO)).expect("the engine is as it was");
    assert_eq!(done[0].1.len(), 2 * 6 * 4);
    streams(&mut watch, &engine, &prepared.plan().dispatches[0]);
    watch.runs("no adapter", || sagittal::gpu::adapters().len());
    for choice in ["", "99", "18446744073709551616", "no such adapter", "\0"] {
        watch.tries(choice, || sagittal::Gpu::open(Some(choice)));
    }
    watch.failures.finish();
}

/// Single dispatches whose operands are nowhere, and waiting for what was not sent.
fn streams(watch: &mut Watch, engine: &Engine, dispatch: &sagittal::internals::plan::Dispatch) {
    let mut stream = Stream::new(engine, &GO);
    let stretch = Stretch { buf: Buf(usize::MAX), offset: u64::MAX, bytes: u64::MAX };
    let usage = wgpu::BufferUsages::STORAGE;
    let buffer = engine.gpu().device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 256,
        usage,
        mapped_at_creation: false,
    });
    let spots = [BufferOffset { buffer, offset: u64::MAX }];
    for operand in
        [Operand::Read(stretch), Operand::Write(Stretch { buf: Buf(0), ..stretch }), Operand::Unused]
    {
        for params in [vec![], dispatch.params.clone()] {
            let call = Call {
                variant: dispatch.variant.clone(),
                params,
                operands: vec![operand; dispatch.bindings.len()],
                groups: [1; 3],
                path: String::new(),
                flops: u64::MAX,
            };
            // The device says what it does not bind.
            watch.runs("a dispatch of anything", || stream.dispatch(&call, &spots).is_err());
        }
    }
    watch.tries("scalars", || stream.scalars(&[[0; 4]; 65]));
    watch.tries("no scalars", || stream.scalars(&[]));
    watch.tries("what was not sent", || stream.done(u64::MAX));
    watch.tries("sent", || stream.send());
}

#[test]
fn measurements_of_anything() {
    let mut watch = Watch::default();
    for (batch, rows) in pairs() {
        let what = format!("{batch} and {rows}");
        for axis in Axis::ALL {
            let step = Step { axis, side: batch, batch, rows };
            watch.runs(&what, || (step.value(), step.calls()));
        }
        let kinds = [
            Kind::Product { m: batch, n: rows, k: batch },
            Kind::Conv { side: batch, from: rows, to: batch },
            Kind::SelfAttention { tokens: batch, heads: rows, dim: rows },
            Kind::CrossAttention { tokens: batch, keys: rows, heads: rows, dim: batch },
        ];
        for kind in kinds {
            watch.runs(&what, || Measured { kind, rows, expected: None }.to_string());
        }
    }
    watch.runs("no samples", || Timing::of(&[]).scaled(f64::NAN));
    watch.runs("efforts", || (Effort::least(), Effort::default()));
    let times = [0, 1, u64::MAX].map(std::time::Duration::from_secs);
    for (a, b) in FLOATS.into_iter().flat_map(|a| FLOATS.map(|b| (f64::from(a), f64::from(b)))) {
        let what = format!("{a} and {b}");
        let values = [(a, b), (b, a), (f64::MAX, f64::MIN_POSITIVE), (5e-324, 5e-324)];
        for points in [&values[..2], &values[..], &values[3..], &[]] {
            for log in [true, false] {
                let scale = || Scale { label: "<".into(), log, curves: vec![("&".into(), points.to_vec())] };
                let (title, x_label) = (String::new(), String::new());
                let chart = Chart { title, x_label, left: scale(), right: Some(scale()) };
                watch.runs(&what, || chart.svg().len());
            }
        }
        let layer = |time| Layer {
            path: String::new(),
            variant: String::new(),
            class: sagittal::internals::bench::profile::Class::Linear,
            groups: [0; 3],
            time,
            flops: u64::MAX,
            bytes: u64::MAX,
        };
        let whole = Timing::of(&[]);
        let profile =
            Profile { rows: 0, total: whole, layers: times.into_iter().chain(times).map(layer).collect() };
        let ceiling = Ceiling { flops: a, bytes: b };
        watch.runs(&what, || (profile.sum(), profile.classes(&ceiling), profile.longest().len()));
    }
    let mut g = Graph::new("");
    let x = g.input("x", Shape::tokens(4, 8));
    g.linear("l", x, usize::MAX, true).expect("a layer");
    watch.tries("a weight without end", || presets::by_formula("x", &[g.clone()], []));
    let empty: Vec<(String, Vec<usize>)> = vec![("e".into(), vec![]), ("z".into(), vec![0])];
    watch.tries("no values", || presets::by_formula("x", &[], empty));
    let plan = Plan::new(&Graph::new(""), &options_of(1)).expect("a plan of nothing");
    watch.runs("no dispatches", || classes(&plan));
    assert!(watch.tries("no tensors", || Checkpoint::from_bytes("none", Vec::new())).is_none());
    watch.failures.finish();
}
