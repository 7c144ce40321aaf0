//! Products with cooperative matrices: `gemm_matrices.wgsl`.

use super::split::Tiles;
use super::{Call, Const, Gemm, Precision, Stretch, taps};
use crate::graph::Shape;

/// The core that multiplies with cooperative matrices.
pub const CORE: &str = "gemm_matrices";

/// How a product is divided among workgroups and subgroups.
struct Tile {
    /// What a workgroup computes; steps are of 32 or 64 channels.
    tiles: Tiles,
    /// Subgroups along positions and output channels.
    subgroups: [u32; 2],
    /// Whether the next step is fetched while this one is multiplied.
    prefetch: bool,
    /// Parts of the depth that workgroups sum for themselves.
    parts: u32,
}

/// Whether cooperative matrices help: they read f16, eight channels at a time.
pub(super) fn pay(g: &Gemm<'_>) -> bool {
    g.precision == Precision::F16 && g.input.channels.is_multiple_of(8) && g.output.channels.is_multiple_of(8)
}

/// Whether values and gates may be columns of one tile, the widest: see `GATED` in the shader.
pub(super) fn gates_pay(input: Shape, output: Shape) -> bool {
    let [m, n] = WIDE.map(|n| n as usize);
    input.channels.is_multiple_of(8)
        && output.channels.is_multiple_of(n / 2)
        && output.positions().div_ceil(m) * (2 * output.channels / n) >= ENOUGH as usize
}

/// The widest tile.
const WIDE: [u32; 2] = [128, 320];

/// Workgroups of a row from which on the widest tile wins.
const ENOUGH: u32 = 64;

/// The tile for the shape of a row. Measured on an H100, some 60 tiles with every division of the depth
/// on 40 shapes; µs of one row and two together, additions of parts included, by tile and (parts of
/// the depth):
///
/// | product | 128×320 | 64×320 | 128×128 | deep 128×160 | 64×160 | 64×64 |
/// |---|---|---|---|---|---|---|
/// | 4096×320×320 | | 30 | | 30 | 30 | 35 |
/// | 4096×320×1280 | 109 (2) | 82 | | 85 | 88 | 109 |
/// | 4096×960×320 | 61 | 70 | 67 | 68 | 75 | |
/// | 4096×2560×320 | 120 | | 139 | | | |
/// | 1024×640×640 | | 46 | 44 | 48 | 37 | 36, with prefetch 39 |
/// | 1024×640×2560 | 101 (4) | 105 (2) | 103 (3) | 92 (2) | 97 (2) | 123 |
/// | 1024×1920×640 | 67 | 70 | 55 | 71 | | 74 |
/// | 256×1280×1280 | | 53 (4) | 57 (3) | 47 (4) | 47 (4) | 45 (3) |
/// | 256×1280×5120 | 104 (8) | 112 (8) | 105 (6) | 89 (4) | 97 (4) | 115 (3) |
/// | 256×3840×1280 | 98 (2) | 84 | 82 | 88 | 93 (2) | 83 |
/// | 256×10240×1280 | 117 | 131 | 154 | 135 | | |
/// | 64×1280×1280 | | | | | 30 (8) | 27 (8) |
/// | 64×1280×5120 | | 61 (16) | | | 48 (16) | 47 (12) |
/// | 3×3 of 320 at 64×64 | 195 (2) | 198 (2) | | 160, 175 (2) | 175 | |
/// | 3×3 of 640 at 32×32 | 199 (8) | 197 (4) | 172 (6) | 171 (4) | 183 (4) | |
/// | 3×3 of 1280 at 16×16 | 210 (8) | 217 (8) | 187 (12) | 175 (8) | 205 (8) | |
/// | 3×3 of 1280 at 8×8 | | 98 (16) | | | 87 (16) | 88 (12) |
/// | 3×3 of 640 at 64×64, two rows | 279 | | | 310 | | |
/// | 3×3 of 256 at 256×256, one row | | | 370 | | | |
///
/// Where rivals are near each other, whole UNets decided, one row and two together: 64×64 by two
/// subgroups with prefetch 28.1 ms, by four without 27.2; 3×3 of 320 at 64×64 by 128×160 whole 27.2,
/// in two parts 26.9.
///
/// A binding holds at most `most` bytes of partial sums.
fn choose(g: &Gemm<'_>, most: u64) -> Tile {
    let (positions, channels) = (g.output.positions() as u32, g.channels());
    let steps = taps(g) * (g.input.channels as u32).div_ceil(32);
    let tiles = |size| Tiles { size, step: 32 }.count(g);
    let split = |size, busy, shortest| Tiles { size, step: 32 }.parts(g, busy, shortest, most);
    let tile = |size, step, subgroups, prefetch, parts| Tile {
        tiles: Tiles { size, step },
        subgroups,
        prefetch,
        parts,
    };
    if g.epilogue.gated {
        return tile(WIDE, 32, [2, 4], true, 1);
    }
    if channels <= 32 {
        return tile([128, 32], 64, [4, 1], false, 1);
    }
    // Widths of the UNets are multiples of 320; others take what they waste least in.
    let wide = channels.is_multiple_of(320);
    if g.window.is_some() {
        return match (wide, positions) {
            (true, ..=64) => tile([64, 160], 32, [2, 2], false, split([64, 160], 128, 9)),
            (true, _) if tiles(WIDE) >= ENOUGH => tile(WIDE, 32, [2, 4], false, 1),
            (true, _) => tile([128, 160], 64, [4, 2], false, split([128, 160], 128, 32)),
            (false, ..=64) => tile([64, 64], 32, [2, 2], false, split([64, 64], 240, 9)),
            (false, _) if channels.is_multiple_of(128) => {
                tile([128, 128], 32, [2, 2], false, split([128, 128], 256, 32))
            }
            (false, _) => tile([128, 64], 32, [2, 2], false, split([128, 64], 256, 32)),
        };
    }
    if wide && tiles(WIDE) >= ENOUGH {
        return tile(WIDE, 32, [2, 4], true, 1);
    }
    if wide && tiles(WIDE) >= ENOUGH / 2 && steps >= 128 {
        return tile(WIDE, 32, [2, 4], true, split(WIDE, ENOUGH, 32));
    }
    if wide && (48..=64).contains(&tiles([64, 320])) {
        return tile([64, 320], 32, [2, 4], true, 1);
    }
    if channels.is_multiple_of(128) && tiles([128, 128]) >= 96 {
        return tile([128, 128], 32, [2, 2], true, 1);
    }
    if wide && positions > 64 && steps >= 60 {
        return tile([128, 160], 64, [4, 2], true, split([128, 160], 64, 16));
    }
    tile([64, 64], 32, [2, 2], false, split([64, 64], 240, 5))
}

/// The dispatches of `g`; `room` gives memory for partial sums, of which a binding holds at most `most` bytes.
pub(super) fn calls(g: &Gemm<'_>, most: u64, room: impl FnOnce(u64) -> Stretch) -> Vec<Call> {
    let tile = choose(g, most);
    let [tile_m, tile_n] = tile.tiles.size;
    let step = tile.tiles.step;
    let threads = 32 * tile.subgroups[0] * tile.subgroups[1];
    let own = [
        Const::U32("PARTS_M", tile_m / tile.subgroups[0] / 16),
        Const::U32("PARTS_N", tile_n / tile.subgroups[1] / 16),
        Const::U32("STEP", step),
        Const::U32("LOADS_X", tile_m * step / 8 / threads),
        Const::U32("LOADS_W", (step * tile_n / 8).div_ceil(threads)),
        Const::U32("SUB_M", tile.subgroups[0]),
        Const::U32("SUB_N", tile.subgroups[1]),
        Const::Bool("PREFETCH", tile.prefetch),
        Const::Bool("FULL_C", g.input.channels.is_multiple_of(step as usize)),
        Const::Bool("FULL_N", g.channels().is_multiple_of(tile_n)),
        Const::Bool("GATED", g.epilogue.gated),
    ];
    tile.tiles.calls(g, (CORE, &own), tile.parts, room)
}
