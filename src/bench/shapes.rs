//! Single matrix products, convolutions and attentions in the shapes of SD 1.5 and SDXL: each is a graph of one node,
//! which runs many times in a row.

use std::fmt;
use std::time::Duration;

use super::ready::{Ready, upload};
use super::{Bench, Timing, presets};
use crate::engine::Engine;
use crate::graph::{Graph, Shape as Map};
use crate::{Error, Result};

/// One operation. Sizes are those of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `[m, k] · [k, n]`, with bias.
    Product {
        /// Positions.
        m: usize,
        /// Results at each.
        n: usize,
        /// Values at each.
        k: usize,
    },
    /// 3×3 convolution, with bias.
    Conv {
        /// Height and width.
        side: usize,
        /// Channels in.
        from: usize,
        /// Channels out.
        to: usize,
    },
    /// Self-attention on merged queries, keys and values.
    SelfAttention {
        /// Tokens.
        tokens: usize,
        /// Heads.
        heads: usize,
        /// Channels of each.
        dim: usize,
    },
    /// Attention of `tokens` queries to `keys` of another sequence.
    CrossAttention {
        /// Queries.
        tokens: usize,
        /// Keys and values.
        keys: usize,
        /// Heads.
        heads: usize,
        /// Channels of each.
        dim: usize,
    },
}

/// An operation for a number of rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// What is computed.
    pub kind: Kind,
    /// Rows computed together.
    pub rows: usize,
    /// What the first kernels of this kind reached on an H200, TFLOP/s, without the sum of split-K parts, if it is known:
    /// the figure to reach.
    pub expected: Option<f64>,
}

/// A shape and its time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// The shape.
    pub shape: Shape,
    /// GPU time of one run among many in a row.
    pub time: Duration,
    /// GPU time of its first dispatch: without the sum of split-K parts.
    pub alone: Duration,
    /// Floating-point operations; a multiply-add is two.
    pub flops: u64,
}

impl Measured {
    /// TFLOP/s.
    pub fn tflops(&self) -> f64 {
        self.flops as f64 / self.time.as_secs_f64() / 1e12
    }

    /// TFLOP/s of the first dispatch.
    pub fn tflops_alone(&self) -> f64 {
        self.flops as f64 / self.alone.as_secs_f64() / 1e12
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Product { m, n, k } => write!(f, "product {} x {n} x {k}", self.rows.saturating_mul(m))?,
            Kind::Conv { side, from, to } if from == to => write!(f, "conv 3x3 {from}, {side}x{side}")?,
            Kind::Conv { side, from, to } => write!(f, "conv 3x3 {from} to {to}, {side}x{side}")?,
            Kind::SelfAttention { tokens, heads, dim } => {
                write!(f, "attention {tokens} x {tokens}, {heads} heads of {dim}")?;
            }
            Kind::CrossAttention { tokens, keys, heads, dim } => {
                write!(f, "attention {tokens} x {keys}, {heads} heads of {dim}")?;
            }
        }
        write!(f, ", b{}", self.rows)
    }
}

/// Every shape that is measured, or a few small ones if `tiny` is set.
pub fn all(tiny: bool) -> Vec<Shape> {
    if tiny {
        let kinds = [
            Kind::Product { m: 32, n: 64, k: 32 },
            Kind::Conv { side: 8, from: 32, to: 32 },
            Kind::SelfAttention { tokens: 64, heads: 2, dim: 8 },
            Kind::CrossAttention { tokens: 64, keys: 77, heads: 2, dim: 8 },
        ];
        return kinds.map(|kind| Shape { kind, rows: 2, expected: None }).into();
    }
    let product = |rows: usize, [m, n, k]: [usize; 3], expected| Shape {
        kind: Kind::Product { m: m / rows, n, k },
        rows,
        expected,
    };
    let conv = |rows, [side, from, to]: [usize; 3], expected| Shape {
        kind: Kind::Conv { side, from, to },
        rows,
        expected,
    };
    let own = |tokens, dim, expected| Shape {
        kind: Kind::SelfAttention { tokens, heads: 8, dim },
        rows: 2,
        expected: Some(expected),
    };
    let cross = |tokens, dim| Shape {
        kind: Kind::CrossAttention { tokens, keys: 77, heads: 8, dim },
        rows: 2,
        expected: None,
    };
    vec![
        product(1, [4096, 4096, 4096], Some(227.0)),
        product(2, [8192, 320, 320], Some(116.0)),
        product(2, [8192, 2560, 320], Some(117.0)),
        product(2, [8192, 320, 1280], Some(207.0)),
        product(2, [2048, 5120, 640], Some(220.0)),
        product(2, [2048, 640, 2560], Some(204.0)),
        product(2, [512, 10_240, 1280], Some(185.0)),
        product(2, [512, 1280, 1280], Some(131.0)),
        conv(2, [64, 320, 320], Some(183.0)),
        conv(2, [32, 640, 640], Some(184.0)),
        conv(2, [16, 1280, 1280], Some(163.0)),
        conv(2, [8, 1280, 1280], Some(86.0)),
        own(4096, 40, 72.0),
        own(1024, 80, 49.0),
        own(256, 160, 25.0),
        // Queries, keys and values as one product.
        product(2, [8192, 960, 320], None),
        product(2, [2048, 1920, 640], None),
        product(2, [512, 3840, 1280], None),
        product(2, [2048, 640, 640], None),
        product(2, [512, 1280, 5120], None),
        // Keys and values of a prompt.
        product(2, [154, 640, 768], None),
        product(2, [154, 1280, 768], None),
        product(2, [154, 2560, 768], None),
        // 1×1 convolutions around the skips of the way up.
        product(2, [8192, 320, 960], None),
        product(2, [2048, 640, 1920], None),
        product(2, [512, 1280, 2560], None),
        conv(2, [64, 960, 320], None),
        conv(2, [64, 4, 320], None),
        conv(2, [64, 320, 4], None),
        conv(2, [32, 1920, 640], None),
        conv(2, [16, 2560, 1280], None),
        conv(2, [8, 2560, 1280], None),
        cross(4096, 40),
        cross(1024, 80),
        cross(256, 160),
        // SDXL's, whose heads are 64 wide.
        Shape { kind: Kind::SelfAttention { tokens: 4096, heads: 10, dim: 64 }, rows: 2, expected: None },
        Shape { kind: Kind::SelfAttention { tokens: 1024, heads: 20, dim: 64 }, rows: 2, expected: None },
        product(2, [2048, 1280, 1280], None),
        product(2, [2048, 10_240, 1280], None),
        product(2, [2048, 1280, 5120], None),
        conv(2, [128, 320, 320], None),
        // The VAE's, one picture at a time.
        Shape { kind: Kind::SelfAttention { tokens: 4096, heads: 1, dim: 512 }, rows: 1, expected: None },
        conv(1, [512, 128, 128], None),
        conv(1, [256, 256, 256], None),
        conv(1, [128, 512, 512], None),
        conv(1, [64, 512, 512], None),
    ]
}

impl Kind {
    /// A graph of this operation alone. Its result is not an output of the graph, so that it is stored as within a
    /// network.
    fn graph(self) -> Result<Graph> {
        let mut g = Graph::new("");
        let values = |of: usize, heads: usize, dim| of.saturating_mul(heads).saturating_mul(dim);
        match self {
            Kind::Product { m, n, k } => {
                let x = g.input("x", Map::tokens(m, k));
                g.linear("product", x, n, true)?;
            }
            Kind::Conv { side, from, to } => {
                let x = g.input("x", Map::new(side, side, from));
                g.conv3x3("conv", x, to, 1, 1)?;
            }
            Kind::SelfAttention { tokens, heads, dim } => {
                let qkv = g.input("qkv", Map::tokens(tokens, values(3, heads, dim)));
                g.self_attention("attention", qkv, heads, false, false)?;
            }
            Kind::CrossAttention { tokens, keys, heads, dim } => {
                let q = g.input("q", Map::tokens(tokens, values(1, heads, dim)));
                let kv = g.input("kv", Map::tokens(keys, values(2, heads, dim)));
                g.cross_attention("attention", q, kv, heads)?;
            }
        }
        Ok(g)
    }

    /// Floating-point operations of one row, without padding, as in published figures; a multiply-add is two.
    fn flops(self) -> u64 {
        let factors = match self {
            Kind::Product { m, n, k } => [2, m, n, k, 1],
            Kind::Conv { side, from, to } => [2 * 9, side, side, from, to],
            Kind::SelfAttention { tokens, heads, dim } => [4, tokens, tokens, heads, dim],
            Kind::CrossAttention { tokens, keys, heads, dim } => [4, tokens, keys, heads, dim],
        };
        factors.into_iter().fold(1, |count, n| count.saturating_mul(n as u64))
    }
}

/// About how long the runs between two timestamps should take together.
const LONG_ENOUGH: Duration = Duration::from_millis(20);

/// Most runs between two timestamps.
const MOST_RUNS: f64 = 300.0;

/// Measures one shape.
///
/// # Errors
/// [`ErrorKind::Device`](crate::ErrorKind::Device) if the device has no timestamps.
pub fn measure(bench: &Bench<'_>, engine: &Engine, shape: Shape) -> Result<Measured> {
    bench.go_on()?;
    let graph = shape.kind.graph()?;
    let checkpoint = presets::by_formula("shapes", std::slice::from_ref(&graph), [])?;
    let weights = upload(bench, engine, &graph, &checkpoint)?;
    let ready = Ready::new(bench, engine, &graph, shape.rows, &weights)?;
    let once = engine.time(ready.prepared(), 1)?.max(Duration::from_nanos(100));
    let runs = match bench.tiny {
        true => 2,
        false => (LONG_ENOUGH.as_secs_f64() / once.as_secs_f64()).clamp(1.0, MOST_RUNS) as usize,
    };
    // On the device alone: if it waited for the host to upload inputs, it would stay at low clocks.
    bench.effort.warm(|| engine.time(ready.prepared(), runs).map(drop))?;
    let wanted = bench.effort.calls.min(5);
    let time_of = |dispatches: usize| {
        let samples =
            bench.effort.sample(wanted, || engine.time_part(ready.prepared(), 0..dispatches, runs))?;
        Ok::<_, Error>(Duration::from_secs_f64(Timing::of(&samples).ms / 1e3 / runs as f64))
    };
    let dispatches = ready.prepared().plan().dispatches.len();
    let time = time_of(dispatches)?;
    let alone = if dispatches > 1 { time_of(1)? } else { time };
    let flops = shape.kind.flops().saturating_mul(shape.rows as u64);
    Ok(Measured { shape, time, alone, flops })
}

/// Measures `shapes` one after the other, and reports each.
///
/// # Errors
/// As [`measure`].
pub fn measure_all(
    bench: &Bench<'_>,
    shapes: &[Shape],
    tell: &mut dyn FnMut(Shape, Result<Measured>),
) -> Result<()> {
    let engine = bench.engine()?;
    engine.need_clock()?;
    for &shape in shapes {
        bench.go_on()?;
        tell(shape, measure(bench, &engine, shape));
    }
    Ok(())
}
