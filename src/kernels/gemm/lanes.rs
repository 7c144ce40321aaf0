//! Products on CPU drivers, where an invocation is a SIMD lane: `gemm_lanes.wgsl`.

use super::{Call, Const, Core, CoreSpec, Form, Gemm, Params, dispatch, params};
use crate::kernels::{LANES, Variant};
use crate::shader::file;

/// The core. Lanes have rows of x in common.
pub const CORE: CoreSpec =
    CoreSpec { file: file!("shared/gemm_lanes"), form: Form::Lanes { shares: "ROWS" }, bindings: &[] };

/// Says that weights are in f16 beside values in f32, which chooses among `shared/weight_*.wgsl`: it stands in
/// no shader. A plan leaves it false: see [`with_halves`].
const HALVES: &str = "HALVES";

/// Positions of a tile, and quads for each lane. Measured on software Vulkan with 2 cores, 8,192×320×320:
/// each lane for itself, 16 positions × 4 quads, 473 ms; with what lanes share of x 16×4 341, 32×2 181,
/// 64×1 298; by 64-bit words 16×4 203, 16×2 175, 32×1 148, 32×2 145, 64×1 325. A small network with maps of
/// 2×2 to 8×8 took 117 ms with 32×2 throughout, 98 with 16×2. What compiles shaders there takes as long as
/// the tile is large: 64×2 takes 15 s.
fn tile(positions: u32, n4: u32) -> [u32; 2] {
    [if positions < 32 { 16 } else { 32 }, if n4 <= LANES { 1 } else { 2 }]
}

/// The dispatch of `g`. What surrounds the sum is told at run time, so that there are few variants: what
/// compiles shaders takes up to a second for each.
pub(super) fn call(g: &Gemm<'_>) -> Call {
    let [rows, quads] = tile(g.cells(), g.output.quads() as u32);
    let params = Params { part_m: rows, part_n4: quads, ..params(g, rows) };
    let consts = vec![
        Const::Bool("DOUBLED", g.doubled()),
        Const::U32("ROWS", rows),
        Const::U32("QUADS", quads),
        Const::Bool(HALVES, false),
    ];
    dispatch(g, Core::Lanes, consts, &params, [rows, LANES * quads])
}

/// The variant of the same product whose weight is in f16 beside values in f32: how weights are stored is
/// known when they are on the device, not when a call is planned. None if it is no product of CPU drivers.
pub fn with_halves(variant: &Variant) -> Option<Variant> {
    let mut halved = variant.clone();
    *halved.consts.iter_mut().find(|c| **c == Const::Bool(HALVES, false))? = Const::Bool(HALVES, true);
    Some(halved)
}

/// Whether `variant` reads such weights.
pub fn has_halves(variant: &Variant) -> bool {
    variant.consts.contains(&Const::Bool(HALVES, true))
}
