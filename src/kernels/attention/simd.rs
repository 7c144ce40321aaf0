//! Attention on CPU drivers, where an invocation is a SIMD lane: `attention_simd.wgsl`, and for large heads
//! `attention_simd_large_heads.wgsl`.

use super::description::spec;
use crate::graph::Heads;
use crate::kernels::{Const, Form, KernelSpec, LANES};
use crate::shader::file;

/// Lanes have keys in common.
const FORM: Form = Form::Simd { shares: "KEYS" };

/// The kernel, and that for large heads.
pub static SPEC: KernelSpec = spec(file!("kernels/attention_simd")).form(FORM);
pub static LARGE_HEADS: KernelSpec = spec(file!("kernels/attention_simd_large_heads")).form(FORM);

/// Workgroup memory that every device offers, bytes: a large head's sums are there.
const MEMORY: u32 = 16 << 10;

/// How the work is divided.
pub(super) struct SimdTile {
    /// Of the two.
    pub kernel: &'static KernelSpec,
    /// Queries of a lane.
    queries: u32,
    /// Quads of a head that are unrolled.
    block: u32,
    /// All of them.
    quads: u32,
}

impl SimdTile {
    /// On software Vulkan with 2 cores 1,024 tokens of 20 heads of 64 took 5.6 s when each lane read all keys
    /// for itself; 0.86 s with four queries a lane, 1.15 with two, 1.7 with one. But what compiles shaders
    /// there takes as long as the square of their loads and stores.
    pub fn new(heads: Heads) -> Self {
        let quads = (heads.dim / 4) as u32;
        let queries = match quads {
            0..=4 => 4,
            5..=10 => 2,
            _ => 1,
        };
        if quads <= 16 {
            return Self { kernel: &SPEC, queries, block: quads, quads };
        }
        let block = (1..=4).rev().find(|b| quads.is_multiple_of(*b)).unwrap_or(1);
        Self { kernel: &LARGE_HEADS, queries, block, quads }
    }

    /// Queries of a workgroup.
    pub fn queries(&self) -> u32 {
        self.queries * LANES
    }

    /// Constants of the shader; as many keys at a time as lanes.
    pub fn consts(&self) -> Vec<Const> {
        let keys = Const::U32("KEYS", LANES);
        if self.block == self.quads {
            return vec![Const::U32("QUERIES", self.queries), keys];
        }
        vec![Const::U32("BLOCK", self.block), keys]
    }

    /// Keys that an invocation of `most` iterations may see: for each few of them the blocks of a large head are gone
    /// through twice. None where sums do not fit.
    pub fn most_keys(&self, most: u64) -> u64 {
        let blocks = u64::from(self.quads / self.block);
        match blocks {
            1 => u64::from(LANES) * most,
            _ if 16 * self.quads * LANES > MEMORY => 0,
            _ => u64::from(LANES) * (most / (1 + 2 * blocks)),
        }
    }
}
