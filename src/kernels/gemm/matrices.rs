//! Products with cooperative matrices: `gemm_matrices.wgsl`, and `gemm_merge.wgsl` where the depth is
//! divided among workgroups.

use super::{Call, Const, Epilogue, Gemm, Operand, Precision, Stretch, Variant};
use super::{epilogue_consts, flops, grid, params, shader, taps, window_consts};
use crate::kernels::spread;

/// The core that multiplies with cooperative matrices.
pub const CORE: &str = "gemm_matrices";

/// How a product is divided among workgroups and subgroups.
struct Tile {
    /// Positions and output channels of a workgroup.
    size: [u32; 2],
    /// Channels of a step through the depth: 32 or 64.
    step: u32,
    /// Subgroups along positions and output channels.
    subgroups: [u32; 2],
    /// Whether the next step is fetched while this one is multiplied.
    prefetch: bool,
    /// Parts of the depth that workgroups sum for themselves.
    splits: u32,
}

/// Whether cooperative matrices help: they read f16, eight channels at a time.
pub(super) fn pay(g: &Gemm<'_>) -> bool {
    g.precision == Precision::F16 && g.input.channels.is_multiple_of(8) && g.output.channels.is_multiple_of(8)
}

/// The tile for the shape of a row. Measured on an H100, 328 variants on 42 shapes, one row and two;
/// µs of one row and two together, the best, then others:
///
/// | product | 128×160×32 | 64×160×32 | others |
/// |---|---|---|---|
/// | 4096×2560×320 | 172, without prefetch 210 | | 128×128 193 |
/// | 1024×640×2560 | 125, K in 2 | 111, K in 2 | |
/// | 256×1280×1280 | 55, K in 4 | 45, K in 2; 48, K in 4 | |
/// | 256×1280×5120 | 128, K in 8 | 114, K in 4; 118, K in 2 | |
/// | 3×3 of 320 at 64×64 | 203, K in 2; 204 | | 64×320 218 |
/// | 3×3 of 640 at 32×32 | 208, K in 4; 228, K in 2 | | |
/// | 3×3 of 1280 at 16×16 | 229, K in 8; with prefetch 258 | | 64×320 240 |
/// | 3×3 of 512 at 128×128 | | | 128×128 562, 128×64 571 |
///
/// Steps of 64 won only for at most 32 channels and for rows of fewer than 128 positions. The partial sums of a row take at most `most` bytes.
fn choose(g: &Gemm<'_>, most: u64) -> Tile {
    let (positions, channels) = (g.output.positions() as u32, g.output.channels as u32);
    let steps = taps(g) * (g.input.channels as u32).div_ceil(32);
    if channels <= 32 {
        return Tile { size: [128, 32], step: 64, subgroups: [4, 1], prefetch: false, splits: 1 };
    }
    let width = if channels.is_multiple_of(160) { 160 } else { 128.min(channels.next_multiple_of(64)) };
    let tiles = |height: u32| positions.div_ceil(height) * channels.div_ceil(width);
    let linear = g.window.is_none();
    let height = if linear && (positions <= 64 || tiles(128) < 48) { 64 } else { 128 };
    // Parts of the depth so short cost more to add than they save. In the UNet of one row, whose
    // weights are not in the cache as they are in the table: 16 steps 13.6 ms, 8 steps 13.0, 5 steps 13.6.
    let shortest = if linear { 8 } else { 9 };
    let of_row = u64::from(tiles(height) * height * width) * 4;
    let bound = u32::try_from(most / of_row).unwrap_or(u32::MAX);
    let splits = match linear && height == 128 {
        // Partial sums cost these their registers: 8192×320×1280 46 µs whole, 135 in two parts.
        true => 1,
        false => (BUSY / tiles(height)).min(steps / shortest).min(bound).clamp(1, 16),
    };
    Tile { size: [height, width], step: 32, subgroups: [2, 2], prefetch: linear, splits }
}

/// Workgroups of a row beyond which dividing the depth gains nothing.
const BUSY: u32 = 128;

/// The dispatches of `g`; `room` gives memory for partial sums, at most `most` bytes a row.
pub(super) fn calls(g: &Gemm<'_>, most: u64, room: impl FnOnce(u64) -> Stretch) -> Vec<Call> {
    let tile = choose(g, most);
    let blocks = (g.input.channels as u32).div_ceil(tile.step);
    let all = taps(g) * blocks;
    let steps = all.div_ceil(tile.splits);
    let splits = all.div_ceil(steps);
    let [tile_m, tile_n] = tile.size;
    let mut params = params(g, tile_m);
    params.steps = steps;
    params.splits = splits;
    params.part_m = params.m.next_multiple_of(tile_m);
    params.part_n4 = (params.n4 * 4).next_multiple_of(tile_n) / 4;
    let bytes = u64::from(splits) * u64::from(params.part_m) * u64::from(params.part_n4) * 16;
    let parts = (splits > 1).then(|| room(bytes));
    let (e, y) = match parts {
        Some(_) => (&Epilogue::NONE, Operand::Unused),
        None => (&g.epilogue, g.y),
    };
    let threads = 32 * tile.subgroups[0] * tile.subgroups[1];
    let own = [
        Const::U32("PARTS_M", tile_m / tile.subgroups[0] / 16),
        Const::U32("PARTS_N", tile_n / tile.subgroups[1] / 16),
        Const::U32("STEP", tile.step),
        Const::U32("LOADS_X", tile_m * tile.step / 8 / threads),
        Const::U32("LOADS_W", (tile.step * tile_n / 8).div_ceil(threads)),
        Const::U32("SUB_M", tile.subgroups[0]),
        Const::U32("SUB_N", tile.subgroups[1]),
        Const::Bool("PREFETCH", tile.prefetch),
        Const::Bool("FULL_C", g.input.channels.is_multiple_of(tile.step as usize)),
        Const::Bool("FULL_N", g.output.channels.is_multiple_of(tile_n as usize)),
        Const::Bool("PARTIAL", parts.is_some()),
    ];
    let mut calls = vec![Call {
        variant: Variant {
            shader: shader(g),
            consts: [&epilogue_consts(e), window_consts(g).as_slice(), &own].concat(),
            core: Some(CORE),
            precision: g.precision,
            out_f32: g.out_f32 && parts.is_none(),
        },
        params: bytemuck::bytes_of(&params).to_vec(),
        operands: vec![
            e.bias,
            e.vector.operand,
            e.residual,
            y,
            g.w,
            g.x,
            parts.map_or(Operand::Unused, Operand::Write),
        ],
        groups: grid(&params, [tile_m, tile_n / 4]),
        path: g.path.to_owned(),
        flops: flops(g),
    }];
    if let Some(parts) = parts {
        let e = &g.epilogue;
        let [x, y] = spread((params.m * params.n4).div_ceil(64));
        params.groups_y = x;
        calls.push(Call {
            variant: Variant {
                shader: "gemm_merge",
                consts: epilogue_consts(e).to_vec(),
                core: None,
                precision: g.precision,
                out_f32: g.out_f32,
            },
            params: bytemuck::bytes_of(&params).to_vec(),
            operands: vec![e.bias, e.vector.operand, e.residual, g.y, Operand::Read(parts)],
            groups: [x, y, 1],
            path: g.path.to_owned(),
            flops: u64::from(params.m * params.n4) * 4 * u64::from(splits),
        });
    }
    calls
}
