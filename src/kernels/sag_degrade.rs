//! Self-Attention Guidance between its two network calls, in one dispatch: `sag_degrade.wgsl`.
//!
//! The formulas are those of [`guidance::sag`](crate::guidance::sag).

use super::binding::{input, result};
use super::latents::{EntryPlace, Latents, MapPlace, OperandAt, SAMPLE, SAMPLE_PLACE, variant};
use super::{Call, Class, Const, Holds, KernelSpec, Operand, params, spread};
use crate::graph::Shape;
use crate::shader::file;

params! {
    /// Parameters as `shaders/kernels/sag_degrade.wgsl` reads them.
    pub struct Params {
        total: u32,
        width: u32,
        latent_height: u32,
        latent_width: u32,
        c4: u32,
        entries: u32,
        threshold: f32,
        tap0: f32,
        tap1: f32,
        tap2: f32,
        tap3: f32,
        tap4: f32,
        table_first: u32,
        base_first: u32,
        x_first: u32,
        degraded_first: u32,
        input_first: u32,
        mask_first: u32,
    }
}

/// The kernel.
pub static SPEC: KernelSpec = KernelSpec::new(
    file!("kernels/sag_degrade"),
    Class::Latent,
    Params::FIELDS,
    &[
        input("table"),
        input("weights"),
        input("columns"),
        input("base"),
        input("x"),
        result("degraded"),
        result("input"),
        result("mask").when("GIVEN", Holds::Input),
    ],
);

/// Everything about one degradation.
#[derive(Debug, Clone, Copy)]
pub struct SagDegrade<'a> {
    /// What profiles call it.
    pub path: &'a str,
    /// The latents; sides are five cells or more, or the blur cannot be reflected.
    pub latents: Latents,
    /// Weights of the blur by distance: [`sag::half_kernel`](crate::guidance::sag::half_kernel).
    pub taps: [f32; 5],
    /// Where the mask comes from.
    pub mask: MaskSource,
}

/// Where the mask comes from.
#[derive(Debug, Clone, Copy)]
pub enum MaskSource {
    /// It is there already.
    Given,
    /// 1 where the score, a mean of column sums over entries, is above the threshold.
    Scores {
        /// [`MapPlace::words`] for each entry.
        table: OperandAt,
        /// Number of entries.
        entries: usize,
        /// One entry that covers the latent with one weight, not 0: the mean is its own.
        single: bool,
        /// Weights of all entries, at the places that the table names; not read for a single one.
        weights: Operand,
        /// Column sums of all entries, at the places that the table names.
        columns: Operand,
        /// 1 is the mean.
        threshold: f32,
    },
}

/// Latents that a degradation reads and writes, and its mask `[image, cell]` of u32.
#[derive(Debug, Clone, Copy)]
pub struct Places {
    /// The prediction that is degraded.
    pub base: OperandAt,
    /// The noisy latents.
    pub x: OperandAt,
    /// The prediction with the masked parts blurred.
    pub degraded: OperandAt,
    /// The same under the noise of the step.
    pub input: OperandAt,
    /// 1 where it is blurred; written unless it is given.
    pub mask: OperandAt,
}

/// The dispatch of `s`.
pub fn call(s: &SagDegrade<'_>, places: &Places) -> Call {
    let Places { base, x, degraded, input, mask } = *places;
    let (table, entries, single, [weights, columns], threshold) = match s.mask {
        MaskSource::Given => (OperandAt::UNUSED, 0, false, [Operand::Unused; 2], 0.0),
        MaskSource::Scores { table, entries, single, weights, columns, threshold } => {
            let weights = if single { Operand::Unused } else { weights };
            (table, entries, single, [weights, columns], threshold)
        }
    };
    let total = s.latents.cells() as u32;
    let [groups_x, groups_y] = spread(total.div_ceil(64));
    let Shape { height, width, .. } = s.latents.shape;
    let [tap0, tap1, tap2, tap3, tap4] = s.taps;
    let params = Params {
        total,
        width: groups_x * 64,
        latent_height: height as u32,
        latent_width: width as u32,
        c4: s.latents.shape.quads() as u32,
        entries: entries as u32,
        threshold,
        tap0,
        tap1,
        tap2,
        tap3,
        tap4,
        table_first: table.first as u32,
        base_first: base.first as u32,
        x_first: x.first as u32,
        degraded_first: degraded.first as u32,
        input_first: input.first as u32,
        mask_first: mask.first as u32,
    };
    let given = matches!(s.mask, MaskSource::Given);
    let operands = [base, x, degraded, input, mask].map(|p| p.operand);
    Call {
        variant: variant(&SPEC, vec![Const::Bool("GIVEN", given), Const::Bool("SINGLE", single)]),
        params: bytemuck::bytes_of(&params).to_vec(),
        operands: [table.operand, weights, columns].into_iter().chain(operands).collect(),
        groups: [groups_x, groups_y, 1],
        path: s.path.to_owned(),
        flops: 2 * 90 * 4 * s.latents.quads() as u64,
    }
}

/// A call in every variant.
pub(super) fn samples() -> Vec<Call> {
    let (at, operand) = (SAMPLE_PLACE, SAMPLE_PLACE.operand);
    let places = Places { base: at, x: at, degraded: at, input: at, mask: at };
    let scores = |single| MaskSource::Scores {
        table: at,
        entries: 1,
        single,
        weights: operand,
        columns: operand,
        threshold: 1.0,
    };
    [MaskSource::Given, scores(false), scores(true)]
        .map(|mask| call(&SagDegrade { path: "sample", latents: SAMPLE, taps: [0.0; 5], mask }, &places))
        .to_vec()
}

/// The score of each cell of one image in f64, `[height, width]`: the weighted mean of column sums, each from the
/// nearest position; 0 where nothing counts.
pub fn scores(
    shape: Shape,
    image: usize,
    entries: &[(EntryPlace, MapPlace)],
    weights: &[f64],
    columns: &[f64],
) -> Vec<f64> {
    let nearest =
        |at: usize, size: u32, full: u32| crate::guidance::sag::nearest(at, size as usize, full as usize);
    let score = |cell: usize| {
        let (mut sum, mut total) = (0.0, 0.0);
        for (e, map) in entries {
            let Some((y, x)) = e.cell(cell / shape.width, cell % shape.width) else { continue };
            let (line, column) = (nearest(y, map.height, e.height), nearest(x, map.width, e.width));
            let first = map.columns as usize + image * map.stride as usize;
            let w = weights[e.weights as usize + y * e.width as usize + x];
            sum += w * columns[first + line * map.width as usize + column];
            total += w;
        }
        if total == 0.0 { 0.0 } else { sum / total }
    };
    (0..shape.positions()).map(score).collect()
}

/// `degraded` and `input` of one image in f64, all `[cell, channels in whole quads]`; `mask` is `[cell]`.
pub fn reference(
    shape: Shape,
    taps: [f32; 5],
    mask: &[u32],
    base: &[f64],
    x: &[f64],
) -> (Vec<f64>, Vec<f64>) {
    let stored = 4 * shape.quads();
    let reflect = |i: usize, k: isize, length: usize| {
        let (i, last) = ((i as isize + k).abs(), length as isize - 1);
        (if i > last { 2 * last - i } else { i }) as usize
    };
    let mut degraded = base.to_vec();
    for (i, v) in degraded.iter_mut().enumerate().filter(|(i, _)| mask[i / stored] != 0) {
        let (cell, c) = (i / stored, i % stored);
        *v = 0.0;
        for (dy, dx) in (-4..=4isize).flat_map(|dy| (-4..=4isize).map(move |dx| (dy, dx))) {
            let line = reflect(cell / shape.width, dy, shape.height);
            let column = reflect(cell % shape.width, dx, shape.width);
            let w = f64::from(taps[dy.unsigned_abs()]) * f64::from(taps[dx.unsigned_abs()]);
            *v += w * base[(line * shape.width + column) * stored + c];
        }
    }
    let input = degraded.iter().zip(x).zip(base).map(|((d, x), b)| d + x - b).collect();
    (degraded, input)
}
