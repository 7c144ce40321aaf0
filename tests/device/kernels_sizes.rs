//! Products and convolutions in the sizes of networks, where K is divided among workgroups and
//! large tiles are taken, against f64 at some of their positions.

use crate::common::bench::{Bench, Weights};
use crate::common::{Failures, Rng, gpu, matrices, matrices_of_little_memory, nmse, thorough};
use sagittal::internals::engine::Engine;
use sagittal::internals::graph::{Activation, Graph, Shape};
use sagittal::internals::kernels::{self, DeviceProfile, Precision, gemm};

/// What is multiplied with.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Linear,
    Conv3x3,
    /// Of a map of half the size.
    Doubled,
}
use Kind::{Conv3x3, Doubled, Linear};

/// Height and width of the result, channels in and out.
type Size = (usize, usize, usize, usize, Kind);

/// For each rule by which a kernel divides its work, a size that it applies to, as small as can be.
const SIZES: &[Size] = &[
    (64, 64, 64, 640, Linear),
    (64, 64, 64, 320, Linear),
    (32, 32, 96, 1920, Linear),
    (32, 32, 64, 640, Linear),
    (32, 24, 1920, 160, Linear),
    (16, 16, 1280, 320, Linear),
    (16, 16, 1920, 320, Linear),
    (16, 16, 3840, 320, Linear),
    (8, 8, 1280, 320, Linear),
    (1, 77, 768, 768, Linear),
    (1, 77, 3072, 96, Linear),
    (1, 77, 4096, 128, Linear),
    (13, 11, 640, 72, Linear),
    (8, 8, 320, 320, Conv3x3),
    (16, 16, 256, 320, Conv3x3),
    (12, 16, 640, 160, Conv3x3),
    (24, 24, 128, 128, Conv3x3),
    (8, 8, 256, 128, Conv3x3),
    (16, 16, 512, 64, Conv3x3),
    (64, 64, 8, 320, Conv3x3),
    (64, 64, 8, 640, Conv3x3),
    (32, 32, 320, 4, Conv3x3),
    (23, 19, 130, 3, Conv3x3),
    (16, 16, 256, 320, Doubled),
    (32, 32, 320, 160, Doubled),
    (24, 24, 128, 128, Doubled),
    (16, 48, 64, 64, Doubled),
    (19, 30, 96, 72, Doubled),
];

/// Beyond the sizes above, for devices that need no patience.
const LARGE: &[Size] = &[
    (32, 32, 4096, 1280, Linear),
    (32, 32, 2560, 640, Linear),
    (64, 64, 320, 320, Conv3x3),
    (32, 32, 640, 640, Conv3x3),
    (16, 16, 1280, 1280, Conv3x3),
    (128, 128, 128, 128, Conv3x3),
    (16, 16, 1280, 1280, Doubled),
    (64, 64, 640, 640, Doubled),
    (75, 100, 640, 640, Doubled),
];

/// Error of `y = conv(x) + bias + vector + residual` at every 37th position.
fn error(b: &Bench<'_>, rng: &mut Rng, (height, width, from, to, kind): Size) -> f64 {
    let zoom = if kind == Doubled { 2 } else { 1 };
    let x_shape = Shape::new(height.div_ceil(zoom), width.div_ceil(zoom), from);
    let y_shape = Shape::new(height, width, to);
    let mut g = Graph::new("");
    let x = g.input("x", x_shape);
    let v = g.input("v", Shape::tokens(1, to));
    let r = g.input("r", y_shape);
    let y = match kind {
        Linear => g.linear("p", x, to, true),
        Conv3x3 => g.conv3x3("p", x, to, 1, 1),
        Doubled => g.conv3x3_doubled("p", x, (height, width), to),
    };
    let y = g.add_vector("v", y.expect("product"), v).expect("vector");
    let y = g.add("r", r, y).expect("residual");
    g.output("y", y);
    let (xs, rs) = (b.values(rng, x_shape), b.values(rng, y_shape));
    let vs = b.values(rng, Shape::tokens(1, to));
    let got = &b.run(&g, &[("x", &xs), ("v", &vs), ("r", &rs)])[0];
    let weights = Weights(b.weights);
    let taps = if kind == Linear { 1 } else { 9 };
    let w = weights.product("p.weight", to, from, taps);
    let bias = weights.f64("p.bias", &[to]);
    let (xs, vs, rs) = (b.rows(&xs), b.rows(&vs), b.rows(&rs));
    let (mut some, mut want) = (Vec::new(), Vec::new());
    for row in 0..b.rows {
        for at in (row..height * width).step_by(37) {
            let mut sums: Vec<f64> = (0..to).map(|n| bias[n] + vs[row][n] + rs[row][at * to + n]).collect();
            for tap in 0..taps {
                let (dy, dx) = if kind == Linear { (1, 1) } else { (tap / 3, tap % 3) };
                let (line, column) = (at / width + dy, at % width + dx);
                if line == 0 || column == 0 || line > height || column > width {
                    continue;
                }
                let stored = (line - 1) / zoom * x_shape.width + (column - 1) / zoom;
                let x = &xs[row][stored * from..][..from];
                for (c, x) in x.iter().enumerate() {
                    let w = &w[(tap * from + c) * to..][..to];
                    sums.iter_mut().zip(w).for_each(|(sum, w)| *sum += x * w);
                }
            }
            want.extend(sums);
            some.extend_from_slice(&got[(row * height * width + at) * to..][..to]);
        }
    }
    nmse(&some, &want)
}

/// A feed-forward layer's values and gates, which a device may make its result of at once.
#[test]
fn values_and_gates() {
    let Some(gpu) = gpu() else { return };
    let engine = Engine::new(gpu).expect("engine");
    let native = engine.gpu().profile().clone();
    let mut kinds = vec![(native.clone(), native.usual_precision())];
    kinds.extend(matrices_of_little_memory(engine.gpu()));
    for (profile, precision) in kinds {
        let error = error_of_gates(&Bench::new(&engine, &profile, precision, 2));
        // Without fusion values and gates are rounded to f16 in between.
        let limit = if precision == Precision::F32 { 1e-10 } else { 1e-6 };
        assert!(error <= limit, "{profile}: {error:.2e} > {limit:.0e}");
    }
}

fn error_of_gates(b: &Bench) -> f64 {
    let rng = &mut Rng(5);
    let (from, to) = (48, 320);
    let (x_shape, y_shape) = (Shape::new(61, 66, from), Shape::new(61, 66, to));
    let mut g = Graph::new("");
    let x = g.input("x", x_shape);
    let both = g.linear("p", x, 2 * to, true).expect("product");
    let y = g.geglu("y", both);
    g.output("y", y);
    let xs = b.values(rng, x_shape);
    let got = &b.run(&g, &[("x", &xs)])[0];
    let weights = Weights(b.weights);
    let w = weights.product("p.weight", 2 * to, from, 1);
    let bias = weights.f64("p.bias", &[2 * to]);
    let sums: Vec<Vec<f64>> = b
        .rows(&xs)
        .iter()
        .map(|x| {
            let shape = Shape { channels: 2 * to, ..y_shape };
            gemm::reference(x_shape, shape, None, x, &w, Some(&bias), None, None, None)
        })
        .collect();
    let gelu = |x: f64| kernels::activation_reference(Some(Activation::Gelu), x);
    let want = sums
        .iter()
        .flat_map(|row| row.chunks(2 * to).flat_map(|at| (0..to).map(|n| at[n] * gelu(at[to + n]))));
    let want: Vec<f64> = want.collect();
    assert_eq!(got.len(), want.len());
    nmse(got, &want)
}

#[test]
fn products_in_the_sizes_of_networks() {
    let Some(gpu) = gpu() else { return };
    let engine = Engine::new(gpu).expect("engine");
    let native = engine.gpu().profile().clone();
    let mut kinds = vec![(DeviceProfile::gpu(), Precision::F32), (DeviceProfile::gpu(), Precision::F16)];
    if native.has_simd() {
        kinds.push((DeviceProfile::cpu(), Precision::F32));
    }
    kinds.extend(matrices(engine.gpu()));
    let sizes = SIZES.iter().chain(if native.has_simd() { &[] } else { LARGE });
    hold(&engine, sizes, &kinds);
}

fn hold<'a>(engine: &Engine, sizes: impl Iterator<Item = &'a Size>, kinds: &[(DeviceProfile, Precision)]) {
    let mut failures = Failures::default();
    for &size in sizes {
        for (profile, precision) in kinds {
            let precision = *precision;
            let limit = if precision == Precision::F32 { 1e-10 } else { 1e-6 };
            let bench = Bench::new(engine, profile, precision, 2);
            let error = error(&bench, &mut Rng(99), size);
            failures.check(error <= limit, || {
                format!("{profile} {precision:?} {size:?}: {error:.2e} > {limit:.0e}")
            });
        }
    }
    failures.finish();
}

/// With the least workgroup memory, and on a device without cooperative matrices with those written out:
/// for each of their tiles a size that takes it, of other kinds of matrices than the first two of these sizes.
#[test]
fn products_with_matrices_of_little_memory() {
    const SIZES: &[Size] = &[
        (32, 24, 1920, 160, Linear),
        (64, 64, 64, 320, Linear),
        (8, 8, 1280, 320, Linear),
        (13, 11, 64, 24, Linear),
        (8, 8, 320, 320, Conv3x3),
        (24, 24, 128, 128, Conv3x3),
        (64, 64, 8, 320, Conv3x3),
        (16, 16, 256, 320, Doubled),
        (19, 30, 96, 72, Doubled),
    ];
    let Some(gpu) = gpu() else { return };
    let engine = Engine::new(gpu).expect("engine");
    let kinds = matrices_of_little_memory(engine.gpu());
    for (number, kind) in kinds.iter().enumerate() {
        // Written out, a tile takes seconds to compile.
        let some = |(at, _): &(usize, &Size)| number == 0 || thorough() || [number, number + 4].contains(at);
        hold(
            &engine,
            SIZES.iter().enumerate().filter(some).map(|(_, size)| size),
            std::slice::from_ref(kind),
        );
    }
}
