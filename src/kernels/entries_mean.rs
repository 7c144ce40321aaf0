//! The mean prediction over conditioning entries: `entries_mean.wgsl`.
//!
//! The formula is that of ComfyUI's `calc_cond_batch`. A side of one entry that counts everywhere alike needs no
//! mean: its prediction is the result, bit for bit.

use super::binding::{input, result};
use super::latents::{EntryPlace, Latents, OperandAt, SAMPLE, SAMPLE_PLACE, variant};
use super::{Call, Class, KernelSpec, Operand, params, spread};
use crate::graph::Shape;
use crate::shader::file;

params! {
    /// Parameters as `shaders/kernels/entries_mean.wgsl` reads them.
    pub struct Params {
        total: u32,
        width: u32,
        cells: u32,
        latent_width: u32,
        c4: u32,
        entries: u32,
        table_first: u32,
        y_first: u32,
    }
}

/// The kernel.
pub static SPEC: KernelSpec = KernelSpec::new(
    file!("kernels/entries_mean"),
    Class::Latent,
    Params::FIELDS,
    &[input("table"), input("weights"), input("predictions"), result("y")],
);

/// Everything about one mean.
#[derive(Debug, Clone, Copy)]
pub struct EntriesMean<'a> {
    /// What profiles call it.
    pub path: &'a str,
    /// The result.
    pub latents: Latents,
    /// Number of entries.
    pub entries: usize,
}

/// The dispatch of `m`: Σ_e w_e·D_e / Σ_e w_e, 0 where nothing counts. `table` has [`EntryPlace::words`] for each
/// entry, which name places in `weights` (f32) and in `predictions` (f32 quads).
pub fn call(
    m: &EntriesMean<'_>,
    table: OperandAt,
    [weights, predictions]: [Operand; 2],
    y: OperandAt,
) -> Call {
    let total = m.latents.quads() as u32;
    let [groups_x, groups_y] = spread(total.div_ceil(64));
    let params = Params {
        total,
        width: groups_x * 64,
        cells: m.latents.shape.positions() as u32,
        latent_width: m.latents.shape.width as u32,
        c4: m.latents.shape.quads() as u32,
        entries: m.entries as u32,
        table_first: table.first as u32,
        y_first: y.first as u32,
    };
    Call {
        variant: variant(&SPEC, vec![]),
        params: bytemuck::bytes_of(&params).to_vec(),
        operands: vec![table.operand, weights, predictions, y.operand],
        groups: [groups_x, groups_y, 1],
        path: m.path.to_owned(),
        flops: 8 * m.entries as u64 * u64::from(total),
    }
}

/// Its one variant.
pub(super) fn samples() -> Vec<Call> {
    let (at, m) = (SAMPLE_PLACE, EntriesMean { path: "sample", latents: SAMPLE, entries: 1 });
    vec![call(&m, at, [at.operand; 2], at)]
}

/// The mean of one image in f64, `[cell, channels in whole quads]`.
pub fn reference(
    shape: Shape,
    image: usize,
    entries: &[EntryPlace],
    weights: &[f64],
    predictions: &[f64],
) -> Vec<f64> {
    let stored = 4 * shape.quads();
    let mean = |i: usize| {
        let (cell, c) = (i / stored, i % stored);
        let (mut sum, mut total) = (0.0, 0.0);
        for e in entries {
            let Some((y, x)) = e.cell(cell / shape.width, cell % shape.width) else { continue };
            let at = y * e.width as usize + x;
            let w = weights[e.weights as usize + at];
            let first = 4 * (e.prediction as usize + image * e.prediction_stride as usize);
            sum += w * predictions[first + at * stored + c];
            total += w;
        }
        if total == 0.0 { 0.0 } else { sum / total }
    };
    (0..shape.positions() * stored).map(mean).collect()
}
