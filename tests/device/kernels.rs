//! Every kernel in every variant against its f64 reference, on random odd shapes, with a pattern
//! around all results that must survive.

use super::operations::{operations, shape};
use crate::common::bench::{Bench, Weights};
use crate::common::{
    Failures, Rng, gpu, halves, matrices, matrices_of_little_memory, nmse, stored, thorough,
};
use sagittal::internals::engine::Engine;
use sagittal::internals::graph::{Activation, Graph, Heads, Op, Shape, Tensor};
use sagittal::internals::kernels::gemm::Window;
use sagittal::internals::kernels::{
    DeviceProfile, Precision, attention, attention_columns, blur, gemm, group_norm, layer_norm,
};

/// Runs `case` for both targets and precisions with several seeds; it returns what was tested and
/// the error. Limits: f32 as given, f16 storage 1e-6 (inputs are f16 values already, results f32).
fn each(limit: f64, case: impl Fn(&Bench<'_>, &mut Rng) -> Vec<(String, f64)>) {
    let Some(gpu) = gpu() else { return };
    let engine = Engine::new(gpu).expect("engine");
    let mut failures = Failures::default();
    let mut worst: f64 = 0.0;
    let mut kinds = vec![
        (DeviceProfile::gpu(), Precision::F32),
        (DeviceProfile::cpu(), Precision::F32),
        (DeviceProfile::gpu(), Precision::F16),
        (DeviceProfile::cpu(), Precision::F16),
    ];
    kinds.extend(matrices(engine.gpu()));
    let same = kinds.into_iter().map(|(profile, precision)| (profile, precision, precision));
    for (profile, precision, weights) in same.chain(halves(engine.gpu())) {
        let limit = if precision == Precision::F32 { limit } else { 1e-6 };
        for seed in 0..4 {
            let mut rng = Rng(seed * 1000 + 17);
            let rows = rng.range(1, 3);
            let bench =
                Bench { engine: &engine, profile: profile.clone(), precision, weights, rows, most: None };
            for (what, error) in case(&bench, &mut rng) {
                worst = worst.max(error / limit);
                failures.check(error <= limit, || {
                    format!(
                        "{profile} {precision:?} of {weights:?} seed {seed} rows {rows} {what}: {error:.2e} > {limit:.0e}"
                    )
                });
            }
        }
    }
    println!("largest share of the tolerance used: {:.1} %", worst * 100.0);
    failures.finish();
}

fn check(
    bench: &Bench<'_>,
    what: String,
    got: &[f32],
    want: impl Iterator<Item = Vec<f64>>,
) -> (String, f64) {
    let want: Vec<f64> = want.flatten().collect();
    assert_eq!(got.len(), want.len(), "{what} with {} rows", bench.rows);
    (what, nmse(got, &want))
}

#[test]
fn linear() {
    each(1e-10, |b, rng| {
        let x_shape = Shape::new(rng.range(1, 9), rng.range(1, 13), rng.range(1, 90));
        let out = rng.range(1, 150);
        let activation = [None, Some(Activation::Silu), Some(Activation::Gelu), Some(Activation::QuickGelu)]
            [rng.range(0, 3)];
        let (bias, vector, residual) = (rng.range(0, 1) == 1, rng.range(0, 1) == 1, rng.range(0, 1) == 1);
        let y_shape = Shape { channels: out, ..x_shape };
        let mut g = Graph::new("");
        let x = g.input("x", x_shape);
        let v = g.input("v", Shape::tokens(1, out));
        let r = g.input("r", y_shape);
        let mut y = g.linear("l", x, out, bias).expect("linear");
        if vector {
            y = g.add_vector("v", y, v).expect("vector");
        }
        if let Some(f) = activation {
            y = g.activate("a", f, y);
        }
        if residual {
            y = g.add("r", r, y).expect("residual");
        }
        g.output("y", y);
        let (xs, vs, rs) =
            (b.values(rng, x_shape), b.values(rng, Shape::tokens(1, out)), b.values(rng, y_shape));
        let got = &b.run(&g, &[("x", &xs), ("v", &vs), ("r", &rs)])[0];
        let w = Weights(b.weights);
        let weight = w.product("l.weight", out, x_shape.channels, 1);
        let bs = w.f64("l.bias", &[out]);
        let (xs, vs, rs) = (b.rows(&xs), b.rows(&vs), b.rows(&rs));
        let want = (0..b.rows).map(|i| {
            let part = |used: bool, v: &[f64]| used.then(|| v.to_vec());
            let (bs, vs, rs) = (part(bias, &bs), part(vector, &vs[i]), part(residual, &rs[i]));
            let (bs, vs, rs) = (bs.as_deref(), vs.as_deref(), rs.as_deref());
            gemm::reference(x_shape, y_shape, None, &xs[i], &weight, bs, vs, activation, rs)
        });
        vec![check(b, format!("{x_shape} -> {out} {activation:?} {bias} {vector} {residual}"), got, want)]
    });
}

#[test]
fn conv3x3() {
    each(1e-10, |b, rng| {
        let x_shape = Shape::new(rng.range(2, 11), rng.range(2, 17), rng.range(1, 40));
        let out = rng.range(1, 80);
        let plain = [(1, 1), (2, 1), (2, 0)].map(|(stride, pad)| Window { stride, pad, upsampled: None });
        // Of doubled maps a last line or column may be left out.
        let doubled = [(0, 0), (1, 1), (0, 1), (1, 0)].map(|(lines, columns)| {
            let seen = (2 * x_shape.height - lines, 2 * x_shape.width - columns);
            Window { stride: 1, pad: 1, upsampled: Some(seen) }
        });
        plain
            .into_iter()
            .chain(doubled)
            .map(|window| {
                let mut g = Graph::new("");
                let x = g.input("x", x_shape);
                let v = g.input("v", Shape::tokens(1, out));
                let y = match window.upsampled {
                    Some(seen) => g.conv3x3_doubled("c", x, seen, out),
                    None => g.conv3x3("c", x, out, window.stride, window.pad),
                };
                let y = y.expect("conv");
                let y_shape = g.shape(y);
                let y = g.add_vector("v", y, v).expect("vector");
                g.output("y", y);
                let (xs, vs) = (b.values(rng, x_shape), b.values(rng, Shape::tokens(1, out)));
                let got = &b.run(&g, &[("x", &xs), ("v", &vs)])[0];
                let w = Weights(b.weights);
                let weight = w.product("c.weight", out, x_shape.channels, 9);
                let bias = w.f64("c.bias", &[out]);
                let (xs, vs) = (b.rows(&xs), b.rows(&vs));
                let want = (0..b.rows).map(|i| {
                    let (bias, v) = (Some(bias.as_slice()), Some(vs[i].as_slice()));
                    gemm::reference(x_shape, y_shape, Some(window), &xs[i], &weight, bias, v, None, None)
                });
                check(b, format!("{x_shape} -> {y_shape} {window:?}"), got, want)
            })
            .collect()
    });
}

#[test]
fn group_norm() {
    each(1e-11, |b, rng| {
        // Above 4,096 positions the statistics come in spans.
        let (height, width) = [(13, 19), (70, 67)][rng.range(0, 1)];
        let shape = Shape::new(
            rng.range(height / 2, height),
            rng.range(width / 2 + 30, width + 30),
            32 * [1, 2, 3, 4, 5, 10, 40][rng.range(0, 6)],
        );
        let activation = [None, Some(Activation::Silu)][rng.range(0, 1)];
        let mut g = Graph::new("");
        let x = g.input("x", shape);
        let mut y = g.group_norm("n", x, 1e-5).expect("norm");
        if let Some(f) = activation {
            y = g.activate("a", f, y);
        }
        g.output("y", y);
        // A mean far from zero shows a variance that was computed carelessly.
        let xs: Vec<f32> = b.values(rng, shape).iter().map(|v| stored(v + 3.0, b.precision)).collect();
        let got = &b.run(&g, &[("x", &xs)])[0];
        let w = Weights(b.weights);
        let (gamma, beta) = (w.f64("n.weight", &[shape.channels]), w.f64("n.bias", &[shape.channels]));
        let want = b
            .rows(&xs)
            .into_iter()
            .map(|x| group_norm::reference(shape, 32, 1e-5, activation, &x, &gamma, &beta));
        vec![check(b, format!("{shape} {activation:?}"), got, want)]
    });
}

#[test]
fn layer_norm() {
    each(1e-11, |b, rng| {
        let shape = Shape::tokens(rng.range(1, 130), 4 * rng.range(1, 50));
        let mut g = Graph::new("");
        let x = g.input("x", shape);
        let y = g.layer_norm("n", x);
        g.output("y", y);
        let xs: Vec<f32> = b.values(rng, shape).iter().map(|v| stored(v + 3.0, b.precision)).collect();
        let got = &b.run(&g, &[("x", &xs)])[0];
        let w = Weights(b.weights);
        let (gamma, beta) = (w.f64("n.weight", &[shape.channels]), w.f64("n.bias", &[shape.channels]));
        let want =
            b.rows(&xs).into_iter().map(|x| layer_norm::reference(shape.channels, 1e-5, &x, &gamma, &beta));
        vec![check(b, shape.to_string(), got, want)]
    });
}

/// The heads that the last attention of `g` was built with.
fn heads_of(g: &Graph) -> Heads {
    let heads = g.nodes().iter().rev().find_map(|n| match n.op {
        Op::Attention { heads, .. } => Some(heads),
        _ => None,
    });
    heads.expect("an attention was built")
}

#[test]
fn self_attention_and_its_column_sums() {
    each(1e-10, |b, rng| {
        let (heads, dim) = (rng.range(1, 5), 4 * rng.range(1, 45));
        let tokens = Shape::new(rng.range(1, 9), rng.range(1, 11), 3 * heads * dim);
        let mut g = Graph::new("");
        let qkv = g.input("qkv", tokens);
        let (y, lse) = g.self_attention("a", qkv, heads, false, true).expect("attention");
        let c = g.attention_columns("c", qkv, lse.expect("recorded"), heads).expect("columns");
        g.output("y", y);
        g.output("c", c);
        let xs: Vec<f32> = b.values(rng, tokens).iter().map(|v| stored(v * 2.0, b.precision)).collect();
        let got = b.run(&g, &[("qkv", &xs)]);
        let h = heads_of(&g);
        let stride = tokens.channels;
        let rows = b.rows(&xs);
        let want = rows.iter().map(|x| attention::reference(h, false, (x, stride), (x, stride)));
        let columns = rows.iter().map(|x| attention_columns::reference(h, x, stride));
        let what = format!("{tokens} heads {heads} dim {dim}");
        vec![check(b, what.clone(), &got[0], want), check(b, format!("columns of {what}"), &got[1], columns)]
    });
}

#[test]
fn causal_attention() {
    each(1e-10, |b, rng| {
        let (heads, dim) = (rng.range(1, 3), 4 * rng.range(1, 20));
        let tokens = Shape::tokens(rng.range(1, 90), 3 * heads * dim);
        let mut g = Graph::new("");
        let qkv = g.input("qkv", tokens);
        let (y, _) = g.self_attention("a", qkv, heads, true, false).expect("attention");
        g.output("y", y);
        let xs = b.values(rng, tokens);
        let got = &b.run(&g, &[("qkv", &xs)])[0];
        let h = heads_of(&g);
        let stride = tokens.channels;
        let want = b.rows(&xs).into_iter().map(|x| attention::reference(h, true, (&x, stride), (&x, stride)));
        vec![check(b, format!("{tokens} heads {heads}"), got, want)]
    });
}

/// Queries of one sequence on keys and values of another.
fn attend(
    b: &Bench<'_>,
    rng: &mut Rng,
    (heads, dim): (usize, usize),
    queries: Shape,
    keys: usize,
) -> (String, f64) {
    let kv_shape = Shape::tokens(keys, 2 * heads * dim);
    let mut g = Graph::new("");
    let q = g.input("q", queries);
    let kv = g.input("kv", kv_shape);
    let y = g.cross_attention("a", q, kv, heads).expect("attention");
    g.output("y", y);
    let (qs, kvs) = (b.values(rng, queries), b.values(rng, kv_shape));
    let got = &b.run(&g, &[("q", &qs), ("kv", &kvs)])[0];
    let h = heads_of(&g);
    let want = b
        .rows(&qs)
        .into_iter()
        .zip(b.rows(&kvs))
        .map(|(q, kv)| attention::reference(h, false, (&q, queries.channels), (&kv, kv_shape.channels)));
    check(b, format!("{queries} x {kv_shape} heads {heads}"), got, want)
}

#[test]
fn cross_attention() {
    each(1e-10, |b, rng| {
        let (heads, dim) = (rng.range(1, 5), 4 * rng.range(1, 20));
        let queries = Shape::new(rng.range(1, 9), rng.range(1, 9), heads * dim);
        let keys = rng.range(1, 160);
        // Many queries are divided otherwise.
        let many = Shape::tokens(rng.range(2048, 2100), 40);
        vec![attend(b, rng, (heads, dim), queries, keys), attend(b, rng, (1, 40), many, 33)]
    });
}

/// A driver on the CPU compiles a kernel whose matrices are written out for long, as the square of the head dimension:
/// a case of 32 queries a subgroup, and one of 16 for the first kind of matrices; no head dimension is a multiple of 16.
#[test]
fn attention_with_matrices_of_little_memory() {
    let Some(gpu) = gpu() else { return };
    let engine = Engine::new(gpu).expect("engine");
    for (number, (profile, precision)) in matrices_of_little_memory(engine.gpu()).into_iter().enumerate() {
        let bench = Bench::new(&engine, &profile, precision, 2);
        for dim in if number == 0 || thorough() { &[24, 104][..] } else { &[24] }.iter().copied() {
            let (what, error) = attend(&bench, &mut Rng(7), (2, dim), Shape::tokens(70, 2 * dim), 77);
            assert!(error <= 1e-6, "{profile} {what}: {error:.2e}");
        }
    }
}

/// The same of large heads, as a VAE's: where matrices read multiples of 16, and where they cannot.
#[test]
fn attention_of_large_heads_with_matrices() {
    let Some(gpu) = gpu() else { return };
    let engine = Engine::new(gpu).expect("engine");
    let kinds = matrices_of_little_memory(engine.gpu()).into_iter().chain(matrices(engine.gpu()));
    for (number, (profile, precision)) in kinds.enumerate() {
        let bench = Bench::new(&engine, &profile, precision, 2);
        let cases = [(1, 512, 48, 96), (2, 256, 16, 32), (1, 512, 33, 64), (1, 512, 32, 40)];
        // Each kind of matrices takes some time to compile when it is written out.
        for &(heads, dim, queries, keys) in cases.iter().take(if number == 0 || thorough() { 4 } else { 1 }) {
            let queries = Shape::tokens(queries, heads * dim);
            let (what, error) = attend(&bench, &mut Rng(7), (heads, dim), queries, keys);
            assert!(error <= 1e-6, "{profile} {what}: {error:.2e}");
        }
    }
}

/// As in a VAE, whose single head has 512 channels: a driver may end long loops early.
#[test]
fn a_large_head_over_many_keys() {
    each(1e-10, |b, rng| {
        let (dim, queries, keys) = (4 * rng.range(100, 128), rng.range(1, 9), rng.range(300, 400));
        vec![attend(b, rng, (1, dim), Shape::tokens(queries, dim), keys)]
    });
}

/// One elementwise operation on inputs of the given shapes against a function of one row.
fn elementwise(
    b: &Bench<'_>,
    rng: &mut Rng,
    shapes: &[Shape],
    build: impl Fn(&mut Graph, &[Tensor]) -> Tensor,
    reference: impl Fn(&[Vec<f64>]) -> Vec<f64>,
) -> (String, f64) {
    let names = ["a", "b"];
    let mut g = Graph::new("");
    let tensors: Vec<Tensor> = shapes.iter().zip(names).map(|(s, n)| g.input(n, *s)).collect();
    let y = build(&mut g, &tensors);
    g.output("y", y);
    let data: Vec<Vec<f32>> =
        shapes.iter().map(|s| b.values(rng, *s).iter().map(|v| v * 4.0).collect()).collect();
    let data: Vec<Vec<f32>> =
        data.iter().map(|d| d.iter().map(|v| stored(*v, b.precision)).collect()).collect();
    let inputs: Vec<(&str, &[f32])> = names.iter().zip(&data).map(|(n, d)| (*n, d.as_slice())).collect();
    let got = &b.run(&g, &inputs)[0];
    let rows: Vec<Vec<Vec<f64>>> = data.iter().map(|d| b.rows(d)).collect();
    let want = (0..b.rows).map(|i| reference(&rows.iter().map(|r| r[i].clone()).collect::<Vec<_>>()));
    check(b, format!("{:?}", g.nodes()[0].op), got, want)
}

/// One axis after the other, on sides from a single position on, from widths that reach no neighbour
/// to the mean.
#[test]
fn blurs() {
    each(1e-11, |b, rng| {
        let mut results = Vec::new();
        for sigma in [0.1, 0.4, 1.3, 7.0, f32::INFINITY] {
            let shape = Shape::new(rng.range(1, 9), rng.range(1, 9), 4 * rng.range(1, 9));
            for down in [false, true] {
                results.push(elementwise(
                    b,
                    rng,
                    &[shape],
                    |g, t| g.blur_along("y", t[0], down, sigma),
                    |x| blur::reference(shape, down, f64::from(sigma), &x[0]),
                ));
            }
        }
        results
    });
}

#[test]
fn operations_of_a_position() {
    let all = operations();
    each(1e-11, |b, rng| {
        let mut results = Vec::new();
        for o in &all {
            let shapes = (o.shapes)(shape(rng));
            results.push(elementwise(
                b,
                rng,
                &shapes,
                |g, t| (o.build)(g, t).expect(o.name),
                |x| (o.reference)(&shapes, x),
            ));
        }
        let one = [shape(rng)];
        results.push(elementwise(
            b,
            rng,
            &one,
            |g, t| {
                g.trace("copy", t[0]);
                g.activate("y", Activation::Silu, t[0])
            },
            |x| x[0].clone(),
        ));
        results
    });
}
