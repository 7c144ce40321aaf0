//! Streaming attention: `attention_cooperative.wgsl` for GPUs with cooperative matrices, for large heads
//! `attention_cooperative_large_heads.wgsl`, `attention_blocks.wgsl` for others, `attention_tile.wgsl` for heads
//! too large for either, `attention_simd.wgsl` and `attention_simd_large_heads.wgsl` for CPU drivers.

mod cooperative;
mod description;
mod simd;

use super::binding::{input, result};
use super::costs::{Candidate, WayName};
use super::{Call, Class, Const, DeviceProfile, KernelSpec, Operand, Strided, Variant, params, spread};
use crate::graph::Heads;
use crate::shader::file;
use crate::{Error, Result};
pub use description::{Attention, Params};
use description::{dispatch, spec};
use simd::SimdTile;

params! {
    /// Parameters as `shaders/kernels/attention_merge.wgsl` reads them.
    pub struct MergeParams {
        total: u32,
        width: u32,
        dim4: u32,
    }
}

/// For GPUs.
pub static BLOCKS: KernelSpec = spec(file!("kernels/attention_blocks"));

/// For heads too large for the others.
pub static TILE: KernelSpec = spec(file!("kernels/attention_tile"));

/// Those that a device may not have, or not compute right.
pub static ALTERNATIVES: [&KernelSpec; 4] =
    [&cooperative::SPEC, &cooperative::LARGE_HEADS, &simd::SPEC, &simd::LARGE_HEADS];

/// [`merge`]
pub static MERGE: KernelSpec = KernelSpec::new(
    file!("kernels/attention_merge"),
    Class::Attention,
    MergeParams::FIELDS,
    &[input("a"), input("la"), input("b"), input("lb"), result("o"), result("l")],
);

/// Keys that one dispatch may see. Beyond them the planner attends to parts of the keys, one after
/// the other, and [`merge`]s.
pub fn most_keys(heads: Heads, device: &DeviceProfile) -> usize {
    match device.most_iterations() {
        u64::MAX => usize::MAX,
        most => SimdTile::new(heads).most_keys(most).max(most_keys_of_tiles(heads, most)) as usize,
    }
}

/// The same of `attention_tile` where an invocation has `most` iterations: for 16 keys the head dimension is run through
/// in steps of eight quads, then each key is added to the quads of the sum.
fn most_keys_of_tiles(heads: Heads, most: u64) -> u64 {
    let quads = heads.dim as u64 / 4;
    let (steps, own) = (quads.div_ceil(8), quads.div_ceil(16));
    16 * (most / (9 * steps + 17 * own + 33))
}

/// How an attention is computed.
enum Way {
    Cooperative(cooperative::Way),
    Simd(SimdTile),
    /// With the queries of an invocation, in quads.
    Blocks(u32),
    Tile,
}

/// The ways to compute `a`, whose keys and values are at `kv`, on `device`.
fn candidates(a: &Attention<'_>, kv: Strided, device: &DeviceProfile) -> Vec<Candidate<Way>> {
    let mut all = Vec::new();
    let mut offer = |way, spec: &KernelSpec, tile, queries: u32| {
        let name = WayName { kernel: spec.name(), tile, parts: 1 };
        all.push(Candidate { way, name, form: spec.form, time: time(a, device, name, queries) });
    };
    let most = device.most_iterations();
    let simd = SimdTile::new(a.heads);
    if device.has_simd() && a.kv.positions() as u64 <= simd.most_keys(most) {
        let (spec, queries) = (simd.kernel, simd.queries());
        offer(Way::Simd(simd), spec, "", queries);
    }
    // Larger heads' sums do not fit into registers. It has more iterations than are counted here.
    if a.heads.dim <= 160 && most == u64::MAX {
        offer(Way::Blocks(1), &BLOCKS, "32", 32);
        // Few queries are spread over more workgroups.
        if a.heads.dim <= 64 && a.q.positions() >= 2048 {
            offer(Way::Blocks(2), &BLOCKS, "64", 64);
        }
    }
    offer(Way::Tile, &TILE, "16", 16);
    let with_matrices = cooperative::ways(a, kv, device);
    for way in with_matrices {
        let (spec, name, queries) = (way.kernel, way.name, way.full_queries);
        offer(Way::Cooperative(way), spec, name, queries);
    }
    all
}

/// Microseconds of `a` in workgroups of `queries` queries: costs are of a workgroup and of heads up to a size.
fn time(a: &Attention<'_>, device: &DeviceProfile, name: WayName, queries: u32) -> f32 {
    let most = [64, 96, 160].into_iter().find(|most| a.heads.dim <= *most).unwrap_or(512);
    let cost = device.costs.of_heads(name, most as u32);
    let groups = (a.q.positions() * a.heads.heads) as f32 / queries as f32;
    device.costs.steady(cost, groups, a.kv.positions() as u32)
}

/// The name of an attention in tables of costs.
fn operation(a: &Attention<'_>) -> String {
    let (queries, keys) = (a.q.positions(), a.kv.positions());
    format!("{} attention {queries} x {keys}, {} heads of {}", a.precision.name(), a.heads.heads, a.heads.dim)
}

/// The dispatch of `a` on `device`. `kv` may be a slice of something longer; `lse` is
/// [`Operand::Unused`] when nothing is recorded.
pub fn call(
    a: &Attention<'_>,
    device: &DeviceProfile,
    q: Operand,
    kv: Strided,
    y: Operand,
    lse: Operand,
) -> Result<Call> {
    let operands = ([q, y, lse], kv);
    let Some(way) = device.cheapest(a.path, || operation(a), candidates(a, kv, device)) else {
        return Err(Error::internal(format!("no kernel of this device computes {}", a.path)));
    };
    Ok(match way {
        Way::Cooperative(way) => dispatch(a, way.kernel, &way.consts(a), way.queries, operands),
        Way::Simd(simd) => dispatch(a, simd.kernel, &simd.consts(), simd.queries(), operands),
        Way::Blocks(q4) => dispatch(a, &BLOCKS, &[Const::U32("Q4", q4)], 32 * q4, operands),
        Way::Tile => dispatch(a, &TILE, &[], 16, operands),
    })
}

/// Attention over all keys from that over two parts of them. `a` and `b` are results in f32 with
/// their log-sum-exp; so are `y` and `lse`, which is [`Operand::Unused`] when nothing is recorded.
pub fn merge(of: &Attention<'_>, a: [Operand; 2], b: [Operand; 2], y: Operand, lse: Operand) -> Call {
    let dim4 = (of.heads.dim / 4) as u32;
    let total = (of.rows * of.q.positions() * of.heads.heads) as u32 * dim4;
    let [x, y_groups] = spread(total.div_ceil(64));
    let params = MergeParams { total, width: x * 64, dim4 };
    Call {
        variant: Variant {
            kernel: &MERGE,
            consts: vec![Const::Bool("RECORD", lse != Operand::Unused)],
            core: None,
            precision: of.precision,
            out_f32: of.out_f32,
        },
        params: bytemuck::bytes_of(&params).to_vec(),
        operands: vec![a[0], a[1], b[0], b[1], y, lse],
        groups: [x, y_groups, 1],
        path: of.path.to_owned(),
        flops: 16 * u64::from(total),
    }
}

/// One row in f64: probabilities `[head][query][key]`.
pub fn probabilities(
    heads: Heads,
    causal: bool,
    q: (&[f64], usize),
    k: (&[f64], usize),
) -> Vec<Vec<Vec<f64>>> {
    let ((q, q_stride), (k, k_stride)) = (q, k);
    let (queries, keys) = (q.len() / q_stride, k.len() / k_stride);
    let [q_at, k_at, _] = heads.offsets;
    let dot = |h: usize, i: usize, j: usize| -> f64 {
        let d = heads.dim;
        let q = &q[i * q_stride + q_at + h * d..][..d];
        let k = &k[j * k_stride + k_at + h * d..][..d];
        q.iter().zip(k).map(|(a, b)| a * b).sum::<f64>() / (d as f64).sqrt()
    };
    (0..heads.heads)
        .map(|h| {
            (0..queries)
                .map(|i| {
                    let seen = if causal { i + 1 } else { keys };
                    let s: Vec<f64> = (0..seen).map(|j| dot(h, i, j)).collect();
                    let top = s.iter().copied().fold(f64::MIN, f64::max);
                    let e: Vec<f64> = s.iter().map(|s| (s - top).exp()).collect();
                    let sum: f64 = e.iter().sum();
                    e.iter().map(|e| e / sum).collect()
                })
                .collect()
        })
        .collect()
}

/// One row in f64: result `[query][head·dim]` from projections with their strides.
pub fn reference(heads: Heads, causal: bool, q: (&[f64], usize), kv: (&[f64], usize)) -> Vec<f64> {
    let p = probabilities(heads, causal, q, kv);
    let queries = q.0.len() / q.1;
    let mut y = Vec::with_capacity(queries * heads.heads * heads.dim);
    for i in 0..queries {
        for (h, p) in p.iter().enumerate() {
            for d in 0..heads.dim {
                let v = |j: usize| kv.0[j * kv.1 + heads.offsets[2] + h * heads.dim + d];
                y.push(p[i].iter().enumerate().map(|(j, p)| p * v(j)).sum());
            }
        }
    }
    y
}
