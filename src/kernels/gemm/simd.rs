//! Products on CPU drivers, where an invocation is a SIMD lane: `gemm_simd.wgsl`.

use super::description::{Gemm, dispatch, params};
use crate::kernels::{Call, Const, CoreSpec, Form, LANES, Precision, Variant};
use crate::shader::file;

/// The core. Lanes have rows of x in common.
pub static CORE: CoreSpec =
    CoreSpec { file: file!("cores/gemm_simd"), form: Form::Simd { shares: "ROWS" }, bindings: &[] };

/// Says that weights are in f16 beside values in f32, for which `types/weight.wgsl` asks.
const F16_WEIGHTS: &str = "F16_WEIGHTS";

/// Positions of a tile, and quads for each lane. Measured on software Vulkan with 2 cores, 8,192×320×320:
/// each lane for itself, 16 positions × 4 quads, 473 ms; with what lanes share of x 16×4 341, 32×2 181,
/// 64×1 298; by 64-bit words 16×4 203, 16×2 175, 32×1 148, 32×2 145, 64×1 325. A small network with maps of
/// 2×2 to 8×8 took 117 ms with 32×2 throughout, 98 with 16×2. What compiles shaders there takes as long as
/// the tile is large: 64×2 takes 15 s.
fn usual(g: &Gemm<'_>) -> [u32; 2] {
    let (positions, n4) = (g.cells(), g.output.quads() as u32);
    [if positions < 32 { 16 } else { 32 }, if n4 <= LANES { 1 } else { 2 }]
}

/// Tiles by name, positions and quads for each lane.
const TILES: [(&str, [u32; 2]); 4] =
    [("32x2", [32, 2]), ("32x1", [32, 1]), ("16x2", [16, 2]), ("16x1", [16, 1])];

/// The tiles for `g`, the usual one first.
pub(super) fn tiles(g: &Gemm<'_>) -> Vec<(&'static str, [u32; 2])> {
    let mut all = TILES.to_vec();
    all.sort_by_key(|(_, tile)| *tile != usual(g));
    all
}

/// The dispatch of `g` by a tile. The epilogue's inputs are chosen at run time, so that there are few variants: what
/// compiles shaders takes up to a second for each.
pub(super) fn call(g: &Gemm<'_>, [rows, quads]: [u32; 2]) -> Call {
    let mut params = params(g, rows);
    (params.part_m, params.part_n4) = (rows, quads);
    let consts = vec![
        Const::Bool("UPSAMPLED", g.upsampled()),
        Const::U32("ROWS", rows),
        Const::U32("QUADS", quads),
        Const::Bool(F16_WEIGHTS, (g.precision, g.w_precision) == (Precision::F32, Precision::F16)),
    ];
    dispatch(g, &CORE, consts, &params, [rows, LANES * quads])
}

/// Whether `variant` reads weights in f16 beside values in f32.
pub fn has_f16_weights(variant: &Variant) -> bool {
    variant.consts.contains(&Const::Bool(F16_WEIGHTS, true))
}
