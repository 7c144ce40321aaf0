//! Split-K: the inner dimension K is divided among workgroups, each of which sums a part of it, since small maps of
//! many channels give too few tiles to keep a GPU busy. `gemm_merge.wgsl` adds the parts.

use super::description::{Epilogue, Gemm, Params, flops, grid, kernel, params, product_consts, taps};
use crate::kernels::binding::{input, result, weight};
use crate::kernels::costs::{CostTable, KernelCost};
use crate::kernels::{Call, Class, Const, CoreSpec, KernelSpec, Operand, Stretch, Variant, spread};
use crate::shader::file;

/// What adds the parts.
pub static MERGE: KernelSpec = KernelSpec::new(
    file!("kernels/gemm_merge"),
    Class::Linear,
    Params::FIELDS,
    &[weight("bias"), input("vector"), input("residual"), result("y"), input("parts")],
);

/// Rows whose sums must fit in a binding: how K is divided must not depend on how many are
/// computed together.
const ROWS: u64 = 16;

/// Tiles of a product that may be computed in parts.
#[derive(Debug, Clone, Copy)]
pub struct Tiles {
    /// Positions and output channels of a workgroup.
    pub size: [u32; 2],
    /// Channels of a step through K.
    pub step: u32,
}

impl Tiles {
    /// Tiles of `rows` rows together.
    pub fn count(&self, g: &Gemm<'_>, rows: u32) -> u32 {
        let [m, n] = self.size;
        g.positions(rows, m).div_ceil(m) * g.channels().div_ceil(n)
    }

    /// Parts of K so many that a row has about `busy` workgroups, each of `shortest` steps or
    /// more, while the sums of [`ROWS`] rows take at most `most` bytes.
    pub fn parts(&self, g: &Gemm<'_>, busy: u32, shortest: u32, most: u64) -> u32 {
        (busy / self.count(g, 1)).min(self.steps(g) / shortest).clamp(1, self.most_parts(g, most))
    }

    /// Most parts of K, of which each has a step and the sums of [`ROWS`] rows take at most `most`
    /// bytes.
    pub fn most_parts(&self, g: &Gemm<'_>, most: u64) -> u32 {
        let [m, n] = self.size;
        let of_row = u64::from(self.count(g, 1)) * u64::from(m * n) * 4;
        let bound = u32::try_from(most / ROWS / of_row).unwrap_or(u32::MAX);
        self.steps(g).min(bound).clamp(1, 16)
    }

    /// Microseconds of `rows` rows at `cost` with split-K in `parts`.
    pub fn time(&self, g: &Gemm<'_>, costs: &CostTable, cost: KernelCost, parts: u32, rows: u32) -> f32 {
        let groups = self.count(g, rows).saturating_mul(parts);
        let inner = self.steps(g).div_ceil(parts).saturating_mul(self.step);
        let [m, n] = self.size;
        let merging = if parts > 1 { costs.merging(groups as f32 * (m * n) as f32) } else { 0.0 };
        costs.waves(cost, groups, inner) + merging
    }

    /// Steps through K.
    pub fn steps(&self, g: &Gemm<'_>) -> u32 {
        taps(g) * (g.input.channels as u32).div_ceil(self.step)
    }

    /// The dispatches of `g` by `core`, whose constants are `own`, with K in about `parts`
    /// parts; `room` gives memory for their sums.
    pub fn calls(
        &self,
        g: &Gemm<'_>,
        (core, own): (&'static CoreSpec, &[Const]),
        parts: u32,
        room: impl FnOnce(u64) -> Stretch,
    ) -> Vec<Call> {
        let all = self.steps(g);
        let steps = all.div_ceil(parts);
        let splits = all.div_ceil(steps);
        let [tile_m, tile_n] = self.size;
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
        let partial = [Const::Bool("PARTIAL", parts.is_some())];
        let mut calls = vec![Call {
            variant: Variant {
                kernel: kernel(g),
                consts: [product_consts(g, e).as_slice(), own, &partial].concat(),
                core: Some(core),
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
                    kernel: &MERGE,
                    consts: [product_consts(g, e).as_slice(), &[Const::U32("SPLITS", splits)]].concat(),
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
}
