//! Products with cooperative matrices: `gemm_matrices.wgsl`.

use super::split::Tiles;
use super::{Call, Const, Gemm, Precision, Stretch};
use crate::graph::Shape;

/// The core that multiplies with cooperative matrices.
pub const CORE: &str = "gemm_matrices";

/// What a workgroup computes and how its subgroups share it.
#[derive(Debug, Clone, Copy)]
struct Tile {
    /// What it computes, by steps of how many channels.
    tiles: Tiles,
    /// Subgroups along positions, output channels and the depth of a step.
    subgroups: [u32; 3],
    /// Whether the next step is fetched while this one is multiplied.
    prefetch: bool,
    /// Workgroups that a core of the GPU runs beside each other.
    beside: u32,
    /// Microseconds that they take for 1280 channels; 0 where nothing else is weighed against it.
    cost: u32,
}

impl Tile {
    const fn new(size: [u32; 2], subgroups: [u32; 3], step: u32) -> Self {
        Self { tiles: Tiles { size, step }, subgroups, prefetch: false, beside: 1, cost: 0 }
    }

    /// Bytes of workgroup memory: `tile_x`, `tile_w` and `sums` of the shader.
    fn bytes(&self) -> u32 {
        let ([m, n], step) = (self.tiles.size, self.tiles.step);
        2 * (m * (step + 8) + step * (n + 8)) + 1024 * self.subgroups.iter().product::<u32>()
    }

    /// With a shorter step where it takes more than `memory` bytes.
    fn within(mut self, memory: u32) -> Self {
        while self.bytes() > memory && self.tiles.step > 16 * self.subgroups[2] {
            self.tiles.step /= 2;
        }
        self
    }

    const fn ahead(self) -> Self {
        Self { prefetch: true, ..self }
    }

    const fn taking(self, cost: u32) -> Self {
        Self { cost, ..self }
    }

    const fn two_taking(self, cost: u32) -> Self {
        Self { beside: 2, cost, ..self }
    }
}

/// The tile that does most of the work.
const DEEP: Tile = Tile::new([128, 160], [4, 2, 1], 64).ahead().taking(36);

/// The same for 3×3 convolutions, which look for the edges of a map.
const DEEP_WINDOW: Tile = DEEP.taking(44);

/// For results of a few channels.
const NARROW: Tile = Tile::new([128, 32], [4, 1, 1], 64);

/// A square that runs beside another, and half of one, for convolutions of other widths.
const SQUARE: Tile = Tile::new([128, 128], [2, 2, 1], 32).two_taking(57);
const HIGH: Tile = Tile::new([128, 64], [2, 2, 1], 32);

/// The smallest tile.
const SMALL: Tile = Tile::new([64, 64], [2, 2, 1], 64).two_taking(27);

/// Cores of a large GPU. A smaller one takes more turns, of which all tiles suffer alike.
const CORES: u32 = 128;

/// For products whose depth stays whole. Measured on an H200 with weights that come from memory, as in a
/// network; µs of one row and of two. 128×320 and 128×64 are never the quickest of both:
///
/// | product | 128×320 | 128×160 | 128×128 | 128×64 | 64×80 | 64×64 |
/// |---|---|---|---|---|---|---|
/// | 4096×320×320 | 28, 28 | 15, 15 | 19, 20 | 17, 24 | 12, 21 | 16, 24 |
/// | 4096×320×1280 | 111, 110 | 36, 37 | 52, 56 | 49, 70 | 32, 62 | 47, 72 |
/// | 4096×2560×320 | 50, 99 | 49, 94 | 56, 89 | 72, 140 | 73, 140 | 71, 135 |
/// | 1024×640×640 | 46, 46 | 22, 22 | 31, 31 | 16, 27 | 18, 18 | 15, 27 |
/// | 1024×1920×640 | 46, 46 | 22, 40 | 31, 33 | 28, 51 | 33, 48 | 28, 51 |
/// | 1024×5120×640 | 49, 91 | 41, 80 | 64, 95 | 63, 129 | 63, 123 | 62, 122 |
/// | 256×3840×1280 | 85, 81 | 37, 37 | 56, 56 | 29, 50 | 32, 58 | 27, 49 |
/// | 256×10240×1280 | 83, 89 | 39, 74 | 62, 119 | 77, 133 | 61, 117 | 73, 121 |
/// | 1024×1280×1280 | 82, 82 | 36, 37 | 55, 57 | 48, 69 | 31, 57 | 47, 68 |
/// | 1024×3840×1280 | 82, 156 | 71, 105 | 59, 116 | 93, 182 | 85, 166 | 90, 177 |
/// | 1024×10240×1280 | 167, 319 | 142, 273 | 177, 285 | 245, 505 | 254, 482 | 259, 484 |
const WHOLE: [Tile; 4] = [DEEP, SQUARE, Tile::new([64, 80], [2, 1, 2], 64).two_taking(31), SMALL];

/// For 3×3 convolutions whose depth stays whole: 640 at 64×64, one row and two, 179 and 326 by 128×160,
/// 328 and 326 by 128×320.
const WHOLE_WINDOW: [Tile; 2] = [Tile::new([128, 320], [2, 4, 1], 32).taking(76), DEEP_WINDOW];

/// For small maps, of which there are few tiles: subgroups take half of each step, so that each core has
/// more of the depth on its way. With (parts of the depth) as above, additions of parts included:
/// 256×1280×1280 (2) 18, 21, where [`WHOLE`] has 22, 23; 64×1280×1280 (6) 12, 14.
const HALVES: Tile = Tile::new([64, 80], [2, 1, 2], 64).ahead();

/// The same for 3×3 convolutions: 1280 at 8×8 (12) 38, 40 by 128×128, 31, 53 by 64×64, without halves
/// 40, 48.
const HALVES_WINDOW: [Tile; 2] = [
    Tile::new([128, 128], [2, 2, 2], 64).ahead().taking(43),
    Tile::new([64, 64], [2, 1, 2], 64).two_taking(31),
];

/// Whether cooperative matrices help: they read f16, eight channels at a time.
pub(super) fn pay(g: &Gemm<'_>) -> bool {
    g.precision == Precision::F16 && g.input.channels.is_multiple_of(8) && g.output.channels.is_multiple_of(8)
}

/// Whether values and gates may be columns of one tile: see `GATED` in the shader.
pub(super) fn gates_pay(input: Shape, output: Shape) -> bool {
    let [m, n] = DEEP.tiles.size.map(|n| n as usize);
    input.channels.is_multiple_of(8)
        && output.channels.is_multiple_of(n / 2)
        && output.positions().div_ceil(m) * (2 * output.channels / n) >= CORES as usize / 2
}

/// The quickest of `tiles` for one row of `g` and for two together, with the depth in `parts`: a GPU takes
/// as many turns as its cores need for all workgroups.
fn quickest(tiles: &[Tile], g: &Gemm<'_>, parts: u32) -> Tile {
    let time = |t: &Tile, rows| (t.tiles.count(g, rows) * parts).div_ceil(CORES * t.beside) * t.cost;
    tiles.iter().copied().min_by_key(|t| time(t, 1) + time(t, 2)).unwrap_or(DEEP)
}

/// The tile for the shape of a row, of at most `memory` bytes, and the parts of its depth, whose sums take
/// at most `most` bytes in a binding. The rules' bounds were decided by whole UNets, one row and two.
fn choose(g: &Gemm<'_>, memory: u32, most: u64) -> (Tile, u32) {
    let (positions, channels) = (g.cells(), g.channels());
    let parts = |t: Tile, busy, shortest| t.within(memory).tiles.parts(g, busy, shortest, most);
    let split = |t: Tile, busy, shortest| (t.within(memory), parts(t, busy, shortest));
    let quickest = |tiles: &[Tile], parts| (quickest(tiles, g, parts).within(memory), parts);
    if g.epilogue.gated {
        return (DEEP.within(memory), 1);
    }
    if channels <= 32 {
        return (NARROW, 1);
    }
    // Widths of the UNets are multiples of 320; others take what they waste least in.
    let wide = channels.is_multiple_of(320);
    if g.window.is_some() {
        return match positions {
            ..=64 => quickest(&HALVES_WINDOW, parts(HALVES_WINDOW[1], 2 * CORES, 6)),
            _ if wide && DEEP.tiles.count(g, 1) >= CORES => quickest(&WHOLE_WINDOW, 1),
            _ if wide => split(DEEP_WINDOW, CORES, 16),
            _ if channels.is_multiple_of(128) => split(SQUARE, 2 * CORES, 32),
            _ => split(HIGH, 2 * CORES, 32),
        };
    }
    let (few, depth) = (SMALL.tiles.count(g, 1) < CORES, g.input.channels);
    if positions <= 64 || few && (!wide || depth < 3840) {
        return split(HALVES, CORES, 3);
    }
    if wide && depth >= 1920 && DEEP.tiles.count(g, 1) <= CORES / 4 {
        return split(DEEP, CORES / 2, 8);
    }
    quickest(&WHOLE, 1)
}

/// The dispatches of `g` by workgroups of at most `memory` bytes; `room` gives memory for partial sums, of
/// which a binding holds at most `most` bytes.
pub(super) fn calls(g: &Gemm<'_>, memory: u32, most: u64, room: impl FnOnce(u64) -> Stretch) -> Vec<Call> {
    let (tile, parts) = choose(g, memory, most);
    let [tile_m, tile_n] = tile.tiles.size;
    let step = tile.tiles.step;
    let threads = 32 * tile.subgroups.iter().product::<u32>();
    let own = [
        Const::U32("PARTS_M", tile_m / tile.subgroups[0] / 16),
        Const::U32("PARTS_N", tile_n / tile.subgroups[1] / 16),
        Const::U32("STEP", step),
        Const::U32("LOADS_X", tile_m * step / 8 / threads),
        Const::U32("LOADS_W", (step * tile_n / 8).div_ceil(threads)),
        Const::U32("SUB_M", tile.subgroups[0]),
        Const::U32("SUB_N", tile.subgroups[1]),
        Const::U32("SUB_K", tile.subgroups[2]),
        Const::Bool("PREFETCH", tile.prefetch),
        Const::Bool("FULL_C", g.input.channels.is_multiple_of(step as usize)),
        Const::Bool("GATED", g.epilogue.gated),
    ];
    tile.tiles.calls(g, (CORE, &own), parts, room)
}
