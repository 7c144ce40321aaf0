//! What describes one attention, and what all ways to compute it share: parameters, constants, the dispatch.

use crate::graph::{Heads, Shape};
use crate::kernels::binding::{input, result};
use crate::kernels::{Binding, Call, Class, Const, KernelSpec, Operand, Precision, Strided, Variant, params};
use crate::shader::File;

params! {
    /// Parameters as `shaders/cores/attention.wgsl` reads them.
    pub struct Params {
        queries: u32,
        pub(in crate::kernels) keys: u32,
        heads: u32,
        q_stride: u32,
        kv_stride: u32,
        kv_row: u32,
        q_offset: u32,
        k_offset: u32,
        v_offset: u32,
        scale: f32,
    }
}

const BINDINGS: &[Binding] = &[input("q"), input("kv"), result("o"), result("lse")];

/// A kernel of one attention.
pub(super) const fn spec(file: File) -> KernelSpec {
    KernelSpec::new(file, Class::Attention, Params::FIELDS, BINDINGS)
}

/// Everything about one attention.
#[derive(Debug, Clone, Copy)]
pub struct Attention<'a> {
    /// The layer's path.
    pub path: &'a str,
    /// Number of rows.
    pub rows: usize,
    /// Heads and where they are in the projections.
    pub heads: Heads,
    /// Shape of the queries' projection in a row.
    pub q: Shape,
    /// Shape of the keys' and values' projection in a row.
    pub kv: Shape,
    /// Queries, keys and values are in one tensor.
    pub merged: bool,
    /// Position i sees only positions ≤ i.
    pub causal: bool,
    /// Storage precision.
    pub precision: Precision,
    /// Result in f32.
    pub out_f32: bool,
}

impl Attention<'_> {
    /// The parameters, also of [`attention_columns`](crate::kernels::attention_columns).
    pub(in crate::kernels) fn params(&self) -> Params {
        let [q_offset, k_offset, v_offset] = self.heads.offsets.map(|o| (o / 4) as u32);
        Params {
            queries: self.q.positions() as u32,
            keys: self.kv.positions() as u32,
            heads: self.heads.heads as u32,
            q_stride: self.q.quads() as u32,
            kv_stride: self.kv.quads() as u32,
            kv_row: (self.kv.positions() * self.kv.quads()) as u32,
            q_offset,
            k_offset,
            v_offset,
            scale: 1.0 / (self.heads.dim as f32).sqrt(),
        }
    }

    /// The constants that say how projections are read.
    pub(in crate::kernels) fn layout(&self) -> Vec<Const> {
        vec![Const::U32("DIM4", (self.heads.dim / 4) as u32), Const::Bool("MERGED", self.merged)]
    }

    /// Multiply-adds of one product of queries and keys, counted twice.
    pub(in crate::kernels) fn score_flops(&self) -> u64 {
        let pairs = (self.q.positions() as u64).saturating_mul(self.kv.positions() as u64);
        let channels = (self.heads.heads as u64).saturating_mul(self.heads.dim as u64);
        [self.rows as u64, pairs, channels].into_iter().fold(2, u64::saturating_mul)
    }
}

/// One dispatch of a kernel whose workgroups take `queries` of a head.
pub(super) fn dispatch(
    a: &Attention<'_>,
    kernel: &'static KernelSpec,
    own: &[Const],
    queries: u32,
    ([q, y, lse], kv): ([Operand; 3], Strided),
) -> Call {
    let shared = [Const::Bool("CAUSAL", a.causal), Const::Bool("RECORD", lse != Operand::Unused)];
    let params = a.params();
    let params = Params {
        kv_row: kv.row as u32,
        k_offset: params.k_offset + kv.first as u32,
        v_offset: params.v_offset + kv.first as u32,
        ..params
    };
    Call {
        variant: Variant {
            kernel,
            consts: [a.layout().as_slice(), &shared, own].concat(),
            core: None,
            precision: a.precision,
            out_f32: a.out_f32,
        },
        params: bytemuck::bytes_of(&params).to_vec(),
        operands: vec![if a.merged { Operand::Unused } else { q }, kv.operand, y, lse],
        groups: [params.queries.div_ceil(queries), params.heads, a.rows as u32],
        path: a.path.to_owned(),
        flops: a.score_flops().saturating_mul(2),
    }
}
