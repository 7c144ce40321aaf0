//! Attention with cooperative matrices: `attention_cooperative.wgsl`, for large heads
//! `attention_cooperative_large_heads.wgsl`.

use super::description::{Attention, spec};
use crate::kernels::{Const, DeviceProfile, Form, KernelSpec, Matrices, Precision, Strided};
use crate::shader::file;

/// The kernel, and that for large heads.
pub static SPEC: KernelSpec = spec(file!("kernels/attention_cooperative")).form(Form::Cooperative);
pub static LARGE_HEADS: KernelSpec =
    spec(file!("kernels/attention_cooperative_large_heads")).form(Form::Cooperative);

/// A way with matrices of a kind.
pub(super) struct Way {
    pub(super) kernel: &'static KernelSpec,
    /// Its name in tables of costs.
    pub(super) name: &'static str,
    /// Queries of a workgroup,
    pub(super) queries: u32,
    /// and with as much memory as it likes, for which costs are.
    pub(super) full_queries: u32,
    tile: Tile,
    matrices: Matrices,
}

enum Tile {
    Heads(HeadTile),
    LargeHeads(LargeHeadTile),
}

impl Way {
    /// The kernel's own constants.
    pub(super) fn consts(&self, a: &Attention<'_>) -> Vec<Const> {
        match &self.tile {
            Tile::Heads(tile) => tile.consts(a, self.matrices),
            Tile::LargeHeads(tile) => tile.consts(a, self.matrices),
        }
    }
}

/// How `a` can be computed with the matrices of `device`.
pub(super) fn ways(a: &Attention<'_>, keys: Strided, device: &DeviceProfile) -> Vec<Way> {
    if !readable(a, keys) {
        return Vec::new();
    }
    let (memory, mut all) = (device.workgroup_memory, Vec::new());
    for &matrices in device.matrices.iter() {
        // Larger heads' sums do not fit into a subgroup's registers.
        if a.heads.dim > 160 {
            let tiles = large_head_tiles(a, matrices, memory);
            all.extend(tiles.into_iter().map(|(name, tile)| Way {
                kernel: &LARGE_HEADS,
                name,
                queries: tile.queries(),
                full_queries: tile.queries(),
                tile: Tile::LargeHeads(tile),
                matrices,
            }));
        } else if a.q.positions() >= 16 {
            let tiles = TILES.map(|(name, full)| (name, full, full.within(a.heads.dim, memory)));
            let small = tiles.into_iter().filter(|(_, _, tile)| tile.bytes(a.heads.dim) <= memory);
            all.extend(small.map(|(name, full, tile)| Way {
                kernel: &SPEC,
                name,
                queries: tile.queries(),
                full_queries: full.queries(),
                tile: Tile::Heads(tile),
                matrices,
            }));
        }
    }
    all
}

/// How many matrices, and how many blocks of 16×16, lie along queries, keys and the head dimension.
fn parts_and_blocks(matrices: Matrices, [q, k, d]: [u32; 3]) -> [Const; 6] {
    let fold = 16 / matrices.side;
    [
        Const::U32("BLOCKS_Q", q),
        Const::U32("BLOCKS_K", k),
        Const::U32("BLOCKS_D", d),
        Const::U32("PARTS_Q", fold * q),
        Const::U32("PARTS_K", fold * k),
        Const::U32("PARTS_D", fold * d),
    ]
}

/// How an attention is divided among workgroups and subgroups.
#[derive(Clone, Copy)]
struct HeadTile {
    /// Subgroups of a workgroup, which share keys and values.
    subgroups: u32,
    /// Queries of a subgroup, in sixteens.
    parts_q: u32,
    /// Keys at a time, a multiple of 16.
    keys: u32,
}

impl HeadTile {
    const fn new(subgroups: u32, parts_q: u32, keys: u32) -> Self {
        Self { subgroups, parts_q, keys }
    }

    /// Bytes of workgroup memory for heads of `dim`: `keys`, `values`, `scores` and `weights` of the shader.
    fn bytes(&self, dim: usize) -> u32 {
        let kv_row = 32 * dim.div_ceil(16) as u32 + 16;
        let scores = self.queries() * (self.keys / 4 + 2);
        4 * self.keys * kv_row + 24 * scores
    }

    /// Of fewer keys at a time and fewer queries where it takes more than `memory` bytes.
    fn within(mut self, dim: usize, memory: u32) -> Self {
        while self.bytes(dim) > memory && (self.keys > 16 || self.subgroups > 1) {
            *(if self.keys > 16 { &mut self.keys } else { &mut self.subgroups }) /= 2;
        }
        self
    }

    /// Queries of a workgroup.
    fn queries(&self) -> u32 {
        16 * self.parts_q * self.subgroups
    }

    fn consts(&self, a: &Attention<'_>, matrices: Matrices) -> Vec<Const> {
        let blocks = [self.parts_q, self.keys / 16, a.heads.dim.div_ceil(16) as u32];
        let own = [
            Const::U32("SUBGROUPS", self.subgroups),
            // Vectors of a query's scores that one of its lanes takes.
            Const::U32("OWN", self.keys / 4 / matrices.lanes_of_row()),
            // Queries of a subgroup, by the rows that it works on at a time.
            Const::U32("TURNS", self.parts_q * 16 / matrices.rows_at_once()),
            // Eights of a tile's keys that an invocation brings in.
            Const::U32(
                "LOADS",
                (self.keys * a.heads.dim as u32 / 8).div_ceil(matrices.lanes * self.subgroups),
            ),
            Const::Bool("FULL", a.kv.positions().is_multiple_of(self.keys as usize)),
        ];
        [&matrices.consts()[..], &parts_and_blocks(matrices, blocks), &own].concat()
    }
}

/// Whether matrices can be read: they are f16, eight values at a time.
fn readable(a: &Attention<'_>, keys: Strided) -> bool {
    let Attention { heads, q, kv, .. } = a;
    a.precision == Precision::F16
        && keys.first.is_multiple_of(2)
        && keys.row.is_multiple_of(2)
        && [heads.dim, q.channels, kv.channels].iter().chain(&heads.offsets).all(|n| n.is_multiple_of(8))
}

/// What attention chooses from: subgroups, queries of each, keys. The compiled-in costs are measured on an H200, two
/// rows, µs:
///
/// | attention | 8x16x16 | 8x32x16 | 8x16x32 | 4x32x32 |
/// |---|---|---|---|---|
/// | 4,096 tokens of 8 heads of 40 | 510 | 357 | 420 | 427 |
/// | 4,096 tokens of 10 heads of 64 | 777 | 611 | 655 | 731 |
/// | 1,024 tokens of 20 heads of 64 | 108 | 109 | 99 | 107 |
/// | 1,024 tokens of 8 heads of 80 | 45 | 60 | 47 | 45 |
///
/// and 256 tokens of 8 heads of 160 in 19 by 4x16x16, 26 by 8x16x16. The last two columns of heads of 64 and 80 are of a
/// shader whose scores were multiplied before the barrier.
const TILES: [(&str, HeadTile); 5] = [
    ("8x32x16", HeadTile::new(8, 2, 16)),
    ("8x16x16", HeadTile::new(8, 1, 16)),
    ("8x16x32", HeadTile::new(8, 1, 32)),
    ("4x32x32", HeadTile::new(4, 2, 32)),
    ("4x16x16", HeadTile::new(4, 1, 16)),
];

/// How subgroups share a large head: each takes some of its channels, of `16 · parts_q` queries.
#[derive(Clone, Copy)]
struct LargeHeadTile {
    /// As many that a query's scores are eight lanes'.
    subgroups: u32,
    /// Queries in sixteens.
    parts_q: u32,
}

/// Queries of large heads in sixteens, from the most workgroup memory to the least. A VAE's 4,096 tokens of one head of
/// 512 take 0.99 ms on an H200 by the first, 1.62 by the second, 4.36 by `attention_tile`.
const LARGE_HEAD_QUERIES: [(&str, u32); 2] = [("32", 2), ("16", 1)];

impl LargeHeadTile {
    /// Of `parts_q` sixteens of queries, with `matrices`.
    fn new(parts_q: u32, matrices: Matrices) -> Self {
        Self { subgroups: 8 * 16 * parts_q / matrices.lanes, parts_q }
    }

    /// Bytes of workgroup memory: `scores`, `weights` and `totals` of the shader.
    fn bytes(&self) -> u32 {
        self.queries() * (self.subgroups * 9 * 16 + 10 * 8 + 4)
    }

    /// Queries of a workgroup.
    fn queries(&self) -> u32 {
        16 * self.parts_q
    }

    fn consts(&self, a: &Attention<'_>, matrices: Matrices) -> Vec<Const> {
        let blocks = [self.parts_q, 2, a.heads.dim as u32 / 16 / self.subgroups];
        let turns = self.queries() / matrices.rows_at_once();
        let own = [Const::U32("SUBGROUPS", self.subgroups), Const::U32("TURNS", turns)];
        [&matrices.consts()[..], &parts_and_blocks(matrices, blocks), &own].concat()
    }
}

/// How a large head can be shared by workgroups of at most `memory` bytes: matrices then read multiples of 16 queries
/// and of 32 keys, and a multiple of 16 channels for each subgroup.
fn large_head_tiles(
    a: &Attention<'_>,
    matrices: Matrices,
    memory: u32,
) -> Vec<(&'static str, LargeHeadTile)> {
    let whole = a.q.positions().is_multiple_of(16) && a.kv.positions().is_multiple_of(32);
    let held = |tile: &LargeHeadTile| {
        let parts = 16 * tile.subgroups as usize;
        a.heads.dim.is_multiple_of(parts) && a.heads.dim <= 8 * parts && tile.bytes() <= memory
    };
    let tiles = LARGE_HEAD_QUERIES.map(|(name, parts_q)| (name, LargeHeadTile::new(parts_q, matrices)));
    tiles.into_iter().filter(|(_, tile)| whole && !a.causal && held(tile)).collect()
}
