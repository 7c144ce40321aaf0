//! Attention with cooperative matrices: `attention_matrices.wgsl`.

use super::Attention;
use crate::kernels::{Const, Precision, Strided};

/// The shader.
pub const SHADER: &str = "attention_matrices";

/// How an attention is divided among workgroups and subgroups.
pub(super) struct Tile {
    /// Subgroups of a workgroup, which share keys and values.
    subgroups: u32,
    /// Queries of a subgroup, in sixteens.
    parts_q: u32,
    /// Keys at a time, a multiple of 16.
    keys: u32,
}

impl Tile {
    /// Bytes of workgroup memory for heads of `dim`: `keys`, `values`, `scores`, `weights`, `factors` and
    /// `outgrown` of the shader.
    fn bytes(&self, dim: usize) -> u32 {
        let kv_row = 32 * dim.div_ceil(16) as u32 + 16;
        let scores = self.queries() * (self.keys / 4 + 2);
        3 * self.keys * kv_row + 24 * scores + 4 * self.queries() + 16
    }

    /// Of fewer keys at a time and fewer queries where it takes more than `memory` bytes.
    fn within(mut self, dim: usize, memory: u32) -> Self {
        while self.bytes(dim) > memory && (self.keys > 16 || self.subgroups > 1) {
            *(if self.keys > 16 { &mut self.keys } else { &mut self.subgroups }) /= 2;
        }
        self
    }

    /// Queries of a workgroup.
    pub(super) fn queries(&self) -> u32 {
        16 * self.parts_q * self.subgroups
    }

    pub(super) fn consts(&self, a: &Attention<'_>) -> [Const; 7] {
        [
            Const::U32("SUBGROUPS", self.subgroups),
            Const::U32("PARTS_Q", self.parts_q),
            Const::U32("PARTS_K", self.keys / 16),
            Const::U32("PARTS_D", a.heads.dim.div_ceil(16) as u32),
            // Vectors of a query's scores that one of its two lanes takes.
            Const::U32("OWN", self.keys / 8),
            // Eights of a tile's keys that an invocation brings in.
            Const::U32("LOADS", (self.keys * a.heads.dim as u32 / 8).div_ceil(32 * self.subgroups)),
            Const::Bool("FULL", a.kv.positions().is_multiple_of(self.keys as usize)),
        ]
    }
}

/// Whether cooperative matrices help: they read f16, eight values at a time, and hold a head's depth
/// in registers.
pub(super) fn pay(a: &Attention<'_>, keys: Strided) -> bool {
    let Attention { heads, q, kv, .. } = a;
    a.precision == Precision::F16
        && heads.dim <= 160
        && q.positions() >= 16
        && keys.first.is_multiple_of(2)
        && keys.row.is_multiple_of(2)
        && [heads.dim, q.channels, kv.channels].iter().chain(&heads.offsets).all(|n| n.is_multiple_of(8))
}

/// The tile for a head's depth. Measured on an H100, 2 rows of 8 heads: 4,096 tokens of depth 40 in
/// 434 µs (8 subgroups with 32 keys 508, 4 with 16 keys 592); of one row, 1,024 of depth 80 in 51 (4
/// with 16 keys 48), 256 of depth 160 in 27 (8 with 16 keys 36). Heads of 64 want 32 queries a
/// subgroup: two rows of SDXL's UNet in 86.1 ms instead of 88.8. `memory` is what a workgroup may take.
pub(super) fn choose(a: &Attention<'_>, memory: u32) -> Tile {
    let tile = match a.heads.dim {
        49..=64 => Tile { subgroups: 8, parts_q: 2, keys: 16 },
        ..=96 => Tile { subgroups: 8, parts_q: 1, keys: 16 },
        _ => Tile { subgroups: 4, parts_q: 1, keys: 32 },
    };
    tile.within(a.heads.dim, memory)
}
