//! Products with cooperative matrices: `gemm_matrices.wgsl`, and `gemm_merge.wgsl` where the depth is
//! divided among workgroups.

use super::{Call, Const, Epilogue, Gemm, Operand, Precision, Stretch, Variant};
use super::{epilogue_consts, flops, grid, params, shader, taps, window_consts};
use crate::kernels::spread;

/// The core that multiplies with cooperative matrices.
pub const CORE: &str = "gemm_matrices";

/// How a product is divided among workgroups and subgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tile {
    /// Positions and output channels of a workgroup.
    pub size: [u32; 2],
    /// Channels of a step through the depth: 32 or 64.
    pub step: u32,
    /// Subgroups along positions and output channels.
    pub subgroups: [u32; 2],
    /// Whether the next step is fetched while this one is multiplied.
    pub prefetch: bool,
    /// Parts of the depth that workgroups sum for themselves.
    pub splits: u32,
}

/// Whether cooperative matrices help: they read f16, eight channels at a time, and fill tiles.
pub(super) fn pay(g: &Gemm<'_>) -> bool {
    g.precision == Precision::F16
        && g.output.positions() >= 16
        && g.input.channels.is_multiple_of(8)
        && g.output.channels.is_multiple_of(8)
}

/// The tile for the shape of a row: large where a row alone has tiles enough to keep a device busy,
/// else small, with the depth divided until there are about [`BUSY`] workgroups. Measured on an H100,
/// 2 rows, TFLOP/s by splits 1, 2, 4, 8: 3×3 convolution of 1280 channels at 16×16 64, 94, 93, -; at
/// 8×8 25, 48, 66, 73; 640 channels at 32×32 72, 99, -, -; linear 512×1280×5120 48, 86, 76, -. The
/// partial sums of a row take at most `most` bytes.
pub fn choose(g: &Gemm<'_>, most: u64) -> Tile {
    let (positions, channels) = (g.output.positions(), g.output.channels);
    let tile =
        |side: u32, splits| Tile { size: [side; 2], step: 32, subgroups: [2, 2], prefetch: false, splits };
    if positions.div_ceil(128) * channels.div_ceil(128) >= 64 {
        return tile(128, 1);
    }
    let tiles = (positions.div_ceil(64) * channels.div_ceil(64)) as u32;
    let steps = taps(g) * (g.input.channels as u32).div_ceil(32);
    // A part of fewer than ten steps costs more to add than it saves.
    let bound = u32::try_from(most / (u64::from(tiles) * 64 * 64 * 4)).unwrap_or(u32::MAX);
    tile(64, (BUSY / tiles).min(steps / 10).min(bound).clamp(1, 16))
}

/// Workgroups of a row beyond which dividing the depth gains nothing.
const BUSY: u32 = 330;

/// The dispatches of `g` with `tile`; `room` gives memory for partial sums.
pub fn calls(g: &Gemm<'_>, tile: Tile, room: impl FnOnce(u64) -> Stretch) -> Vec<Call> {
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
    let none = Epilogue {
        bias: Operand::Unused,
        vector: Operand::Unused,
        activation: None,
        residual: Operand::Unused,
    };
    let (e, y) = match parts {
        Some(_) => (&none, Operand::Unused),
        None => (&g.epilogue, g.y),
    };
    let own = [
        Const::U32("PARTS_M", tile_m / tile.subgroups[0] / 16),
        Const::U32("PARTS_N", tile_n / tile.subgroups[1] / 16),
        Const::U32("STEP", tile.step),
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
            e.vector,
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
            operands: vec![e.bias, e.vector, e.residual, g.y, Operand::Read(parts)],
            groups: [x, y, 1],
            path: g.path.to_owned(),
            flops: u64::from(params.m * params.n4) * 4 * u64::from(splits),
        });
    }
    calls
}
