//! Products with cooperative matrices: `gemm_cooperative.wgsl`.

use super::description::{Gemm, PARTS};
use super::split_k::Tiles;
use crate::graph::Shape;
use crate::kernels::{Call, Const, CoreSpec, Form, Matrices, Precision, Stretch};
use crate::shader::file;

/// The core that multiplies with cooperative matrices.
pub static CORE: CoreSpec =
    CoreSpec { file: file!("cores/gemm_cooperative"), form: Form::Cooperative, bindings: PARTS };

/// What a workgroup computes and how its subgroups share it.
#[derive(Debug, Clone, Copy)]
struct CooperativeTile {
    /// What it computes, by steps of how many channels.
    tiles: Tiles,
    /// Subgroups along positions, output channels and the channels of a step.
    subgroups: [u32; 3],
    /// Workgroups that a core of the GPU runs beside each other,
    beside: u32,
    /// and the microseconds they take for 1280 channels.
    cost: f32,
}

impl CooperativeTile {
    const fn new(size: [u32; 2], subgroups: [u32; 3], step: u32, beside: u32, cost: f32) -> Self {
        Self { tiles: Tiles { size, step }, subgroups, beside, cost }
    }

    /// Bytes of workgroup memory: `tile_x`, `tile_w` and `sums` of the shader.
    fn bytes(&self) -> u32 {
        let ([m, n], step) = (self.tiles.size, self.tiles.step);
        2 * (m * (step + 8) + step * (n + 8)) + 1024 * self.subgroups.iter().product::<u32>()
    }

    /// Whether subgroups of `lanes` can share it: all bring in as much of a step, and each lane finishes as much of a
    /// block.
    fn suits(&self, lanes: u32) -> bool {
        let threads = lanes * self.subgroups.iter().product::<u32>();
        let eights = self.tiles.size[0] * self.tiles.step / 8;
        eights.is_multiple_of(threads) && (64 / lanes).is_multiple_of(self.subgroups[2])
    }

    /// With a shorter step where it takes more than `memory` bytes.
    fn within(mut self, memory: u32) -> Self {
        while self.bytes() > memory && self.tiles.step > 16 * self.subgroups[2] {
            self.tiles.step /= 2;
        }
        self
    }

    /// Microseconds for `rows` rows with split-K in `parts`: a GPU takes as many waves as its cores need for
    /// all workgroups.
    fn time(&self, g: &Gemm<'_>, parts: u32, rows: u32) -> f32 {
        let Tiles { size: [m, n], step } = self.tiles;
        let groups = self.tiles.count(g, rows) * parts;
        let waves = groups.div_ceil(CORES * self.beside) as f32;
        let k = (self.tiles.steps(g).div_ceil(parts) * step) as f32;
        let merge = if parts > 1 { MERGE + groups as f32 * (m * n) as f32 * MERGED } else { 0.0 };
        waves * (WAVE + self.cost * k / 1280.0) + merge
    }
}

/// What products choose from. Costs are fitted to all products and convolutions of SD 1.5's UNet at 64×64 by
/// each of these tiles, one row and two, on an H200 (`bench --profile`): what [`CooperativeTile::time`] says was
/// within a tenth of most of the times (that of 64×80 is a twentieth more than fitted, or it would be taken for
/// 3×3 at 8×8). For instance, µs of one row and of two, with (parts of split-K):
///
/// | product | 128×160 | 128×320 | 128×128 | 64×80 | 64×64 |
/// |---|---|---|---|---|---|
/// | 4096×320×320 | 17, 19 | (3) 24, 36 | 19, 23 | 14, 23 | 17, 24 |
/// | 4096×320×1280 | 37, 41 | (8) 43, 85 | 44, 49 | 27, 49 | 38, 57 |
/// | 4096×960×320 | 25, 36 | 23, 39 | 19, 34 | 27, 47 | 27, 47 |
/// | 1024×640×2560 | (4) 31, 51 | (16) 42, 83 | (6) 32, 55 | 42, 46 | 39, 68 |
/// | 256×1280×1280 | (5) 21, 31 | (10) 24, 35 | (10) 21, 34 | 25, 26 | 23, 24 |
/// | 3×3, 320 at 64×64 | 68, 71 | (8) 61, 110 | 91, 96 | 53, 97 | 81, 116 |
/// | 3×3, 640 at 32×32 | (4) 50, 84 | (15) 60, 111 | (6) 51, 89 | 90, 98 | 81, 151 |
/// | 3×3, 1280 at 16×16 | (8) 53, 89 | (16) 52, 90 | (12) 55, 93 | 173, 173 | 153, 155 |
/// | 3×3, 1280 at 8×8 | (15) 37, 38 | (16) 48, 49 | (16) 45, 46 | (15) 32, 48 | (12) 31, 48 |
const TILES: [CooperativeTile; 5] = [
    CooperativeTile::new([128, 160], [4, 2, 1], 64, 1, 28.4),
    CooperativeTile::new([128, 320], [2, 4, 1], 32, 1, 52.0),
    CooperativeTile::new([128, 128], [2, 2, 1], 32, 2, 41.6),
    CooperativeTile::new([64, 80], [2, 1, 2], 64, 2, 19.5),
    CooperativeTile::new([64, 64], [2, 2, 1], 64, 2, 16.2),
];

/// For results of a few channels.
const NARROW: CooperativeTile = CooperativeTile::new([128, 32], [4, 1, 1], 64, 1, 0.0);

/// For values and gates, of which a subgroup has as many matrices. µs of one row and of two, in the same way:
/// 4096×(2×1280)×320 47, 93 by 128×320, 52, 103 by 128×160; 1024×(2×2560)×640 56, 85 and 52, 89;
/// 256×(2×5120)×1280 81, 89 and 48, 82.
const GATES: [CooperativeTile; 2] = [
    CooperativeTile::new([128, 320], [4, 2, 1], 32, 1, 75.0),
    CooperativeTile::new([128, 160], [8, 1, 1], 64, 1, 38.0),
];

/// Cores of a large GPU. A smaller one takes more waves, which is as bad for all tiles.
const CORES: u32 = 128;

/// Microseconds of a wave beside what depends on K; of adding parts; and that for each of their sums,
/// which are written and read.
const WAVE: f32 = 2.0;
const MERGE: f32 = 5.3;
const MERGED: f32 = 1.5e-6;

/// Whether cooperative matrices help: they read f16, eight channels at a time.
pub(super) fn pay(g: &Gemm<'_>) -> bool {
    g.precision == Precision::F16 && g.input.channels.is_multiple_of(8) && g.output.channels.is_multiple_of(8)
}

/// Whether values and gates may be columns of one tile: see `GATED` in the shader.
pub(super) fn gates_pay(input: Shape, output: Shape) -> bool {
    let [m, n] = GATES[0].tiles.size.map(|n| n as usize);
    input.channels.is_multiple_of(8)
        && output.channels.is_multiple_of(n / 2)
        && output.positions().div_ceil(m) * (2 * output.channels / n) >= CORES as usize / 2
}

/// The tile of `matrices` for the shape of a row, of at most `memory` bytes, and the parts of split-K, whose sums take
/// at most `most` bytes in a binding: the quickest for one row and for two together.
fn choose(g: &Gemm<'_>, matrices: Matrices, memory: u32, most: u64) -> (CooperativeTile, u32) {
    if g.channels() <= 32 {
        return (NARROW.within(memory), 1);
    }
    let tiles = if g.epilogue.gated { &GATES[..] } else { &TILES[..] };
    let mut best = (NARROW.within(memory), 1, f32::INFINITY);
    for tile in
        tiles.iter().map(|t| t.within(memory)).filter(|t| t.bytes() <= memory && t.suits(matrices.lanes))
    {
        let most_parts = if g.epilogue.gated { 1 } else { tile.tiles.most_parts(g, most) };
        for parts in 1..=most_parts {
            let time = tile.time(g, parts, 1) + tile.time(g, parts, 2);
            if time < best.2 {
                best = (tile, parts, time);
            }
        }
    }
    (best.0, best.1)
}

/// The dispatches of `g` by workgroups of at most `memory` bytes; `room` gives memory for partial sums, of
/// which a binding holds at most `most` bytes.
pub(super) fn calls(
    g: &Gemm<'_>,
    matrices: Matrices,
    memory: u32,
    most: u64,
    room: impl FnOnce(u64) -> Stretch,
) -> Vec<Call> {
    let (tile, parts) = choose(g, matrices, memory, most);
    let [tile_m, tile_n] = tile.tiles.size;
    let step = tile.tiles.step;
    let threads = matrices.lanes * tile.subgroups.iter().product::<u32>();
    let [own_m, own_n] = [tile_m / tile.subgroups[0], tile_n / tile.subgroups[1]];
    let own = [
        Const::U32("PARTS_M", own_m / matrices.side),
        Const::U32("PARTS_N", own_n / matrices.side),
        Const::U32("BLOCKS_M", own_m / 16),
        Const::U32("BLOCKS_N", own_n / 16),
        Const::U32("HALF_N", own_n / 32),
        Const::U32("STEP", step),
        Const::U32("LOADS_X", tile_m * step / 8 / threads),
        Const::U32("LOADS_W", (step * tile_n / 8).div_ceil(threads)),
        Const::U32("LINES", 64 / matrices.lanes / tile.subgroups[2]),
        Const::U32("SUB_M", tile.subgroups[0]),
        Const::U32("SUB_N", tile.subgroups[1]),
        Const::U32("SUB_K", tile.subgroups[2]),
        Const::Bool("FULL_C", g.input.channels.is_multiple_of(step as usize)),
        Const::Bool("GATED", g.epilogue.gated),
    ];
    let own = [&matrices.consts()[..], &own].concat();
    tile.tiles.calls(g, (&CORE, &own), parts, room)
}
