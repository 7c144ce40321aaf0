//! Products with cooperative matrices: `gemm_cooperative.wgsl`.

use super::description::{Gemm, PARTS};
use super::split_k::Tiles;
use crate::graph::Shape;
use crate::kernels::costs::{Candidate, WayName};
use crate::kernels::{Call, Const, CoreSpec, DeviceProfile, Form, Matrices, Precision, Stretch};
use crate::shader::file;

/// The core that multiplies with cooperative matrices.
pub static CORE: CoreSpec =
    CoreSpec { file: file!("cores/gemm_cooperative"), form: Form::Cooperative, bindings: PARTS };

/// What a workgroup computes and how its subgroups share it.
#[derive(Debug, Clone, Copy)]
pub(super) struct CooperativeTile {
    /// Its name in tables of costs.
    name: &'static str,
    /// What it computes, by steps of how many channels.
    tiles: Tiles,
    /// Subgroups along positions, output channels and the channels of a step.
    subgroups: [u32; 3],
}

impl CooperativeTile {
    const fn new(name: &'static str, size: [u32; 2], subgroups: [u32; 3], step: u32) -> Self {
        Self { name, tiles: Tiles { size, step }, subgroups }
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
}

/// What products choose from. The compiled-in costs are fitted to all products and convolutions of SD 1.5's UNet at
/// 64×64 by each of these tiles, one row and two, on an H200 (`bench --profile`): the formula was within a tenth of most
/// of the times (that of 64×80 is a twentieth more than fitted, or it would be taken for 3×3 at 8×8). For instance, µs
/// of one row and of two, with (parts of split-K):
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
    CooperativeTile::new("128x160", [128, 160], [4, 2, 1], 64),
    CooperativeTile::new("128x320", [128, 320], [2, 4, 1], 32),
    CooperativeTile::new("128x128", [128, 128], [2, 2, 1], 32),
    CooperativeTile::new("64x80", [64, 80], [2, 1, 2], 64),
    CooperativeTile::new("64x64", [64, 64], [2, 2, 1], 64),
];

/// For results of a few channels.
const NARROW: [CooperativeTile; 1] = [CooperativeTile::new("128x32", [128, 32], [4, 1, 1], 64)];

/// For values and gates, of which a subgroup has as many matrices. µs of one row and of two, in the same way:
/// 4096×(2×1280)×320 47, 93 by 128×320, 52, 103 by 128×160; 1024×(2×2560)×640 56, 85 and 52, 89;
/// 256×(2×5120)×1280 81, 89 and 48, 82.
const GATES: [CooperativeTile; 2] = [
    CooperativeTile::new("128x320 gated", [128, 320], [4, 2, 1], 32),
    CooperativeTile::new("128x160 gated", [128, 160], [8, 1, 1], 64),
];

/// Workgroups of values and gates in a row from which on they pay: half as many as a large GPU has cores.
const ENOUGH: usize = 64;

/// Whether cooperative matrices can be read: they are f16, eight channels at a time.
fn readable(g: &Gemm<'_>) -> bool {
    g.precision == Precision::F16 && g.input.channels.is_multiple_of(8) && g.output.channels.is_multiple_of(8)
}

/// Whether values and gates may be columns of one tile: see `GATED` in the shader.
pub(super) fn gates_pay(input: Shape, output: Shape) -> bool {
    let [m, n] = GATES[0].tiles.size.map(|n| n as usize);
    input.channels.is_multiple_of(8)
        && output.channels.is_multiple_of(n / 2)
        && output.positions().div_ceil(m) * (2 * output.channels / n) >= ENOUGH
}

/// A tile of matrices of a kind, and the parts of split-K.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    tile: CooperativeTile,
    matrices: Matrices,
    parts: u32,
}

/// The ways to compute `g` on `device`: tiles for the shape of a row, with K in parts whose sums take at most `most`
/// bytes in a binding. Their times are of one row and of two together.
pub(super) fn candidates(g: &Gemm<'_>, device: &DeviceProfile) -> Vec<Candidate<Way>> {
    let tiles = if !readable(g) {
        &[]
    } else if g.epilogue.gated {
        &GATES[..]
    } else if g.channels() <= 32 {
        &NARROW[..]
    } else {
        &TILES[..]
    };
    let memory = device.workgroup_memory;
    let mut all = Vec::new();
    for &matrices in device.matrices.iter() {
        let tiles = tiles.iter().map(|t| t.within(memory));
        for tile in tiles.filter(|t| t.bytes() <= memory && t.suits(matrices.lanes)) {
            let cost = device.costs.of(CORE.name(), tile.name);
            let split = !g.epilogue.gated && g.channels() > 32;
            let most_parts = if split { tile.tiles.most_parts(g, device.max_binding) } else { 1 };
            all.extend((1..=most_parts).map(|parts| {
                let time_of = |rows| tile.tiles.time(g, &device.costs, cost, parts, rows);
                Candidate {
                    way: Way { tile, matrices, parts },
                    name: WayName { kernel: CORE.name(), tile: tile.name, parts },
                    form: Form::Cooperative,
                    time: time_of(1) + time_of(2),
                }
            }));
        }
    }
    all
}

/// The dispatches of `g` by `way`; `room` gives memory for partial sums.
pub(super) fn calls(g: &Gemm<'_>, way: Way, room: impl FnOnce(u64) -> Stretch) -> Vec<Call> {
    let Way { tile, matrices, parts } = way;
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
