//! Sums of latents with factors, everywhere the same or by a mask: `combine.wgsl`.

use super::binding::{result, scalars, updated};
use super::latents::{Latents, OperandAt, SAMPLE, SAMPLE_PLACE, variant};
use super::{Binding, Call, Class, Const, Holds, KernelSpec, Operand, params, spread};
use crate::shader::file;
use crate::{Error, Result};

params! {
    /// Parameters as `shaders/kernels/combine.wgsl` reads them.
    pub struct Params {
        total: u32,
        width: u32,
        c4: u32,
        cells: u32,
        first0: u32,
        first1: u32,
        first2: u32,
        first3: u32,
        first4: u32,
        first5: u32,
        y_first: u32,
        mask_first: u32,
        mask_stride: u32,
        scalars: u32,
    }
}

/// The kernel. A dispatch that goes on with a sum finds it in `y`.
pub static SPEC: KernelSpec = KernelSpec::new(
    file!("kernels/combine"),
    Class::Latent,
    Params::FIELDS,
    &[
        scalars(),
        Binding::counted("a$", Holds::Input, "OPERANDS"),
        result("y").when("FIRST", Holds::Updated),
        updated("flags"),
        Binding::counted("mask", Holds::Input, "MASKED"),
    ],
);

/// Most terms of a sum: as many as its scalars have room for.
pub const MOST_TERMS: usize = 8;

/// Operands of one dispatch without a mask: every device can bind eight buffers, the result and the flags are two.
const IN_A_DISPATCH: usize = 6;

/// Everything about one sum.
#[derive(Debug, Clone, Copy)]
pub struct Combine<'a> {
    /// What profiles call it.
    pub path: &'a str,
    /// The latents.
    pub latents: Latents,
    /// The first vec4 of the scalars: factors c (two vec4s), with a mask d (two), then (number of the step as
    /// bits, -, -, -).
    pub scalars: usize,
    /// The factor of term k is c_k, with a mask c_k + d_k·m(cell).
    pub mask: Option<Mask>,
}

/// A weight for each cell.
#[derive(Debug, Clone, Copy)]
pub struct Mask {
    /// `[1 or image, cell]`, f32.
    pub at: OperandAt,
    /// Whether each image has its own.
    pub by_image: bool,
}

/// The dispatches of `c`, in order: y = Σ_k factor_k · terms_k, added in the order of the terms. One dispatch up to
/// six terms, with a mask five; the bits are those of one even so. With two, no term may lie where `y` does.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for no terms or more than [`MOST_TERMS`].
pub fn calls(c: &Combine<'_>, terms: &[OperandAt], y: OperandAt, flags: Operand) -> Result<Vec<Call>> {
    if !(1..=MOST_TERMS).contains(&terms.len()) {
        return Err(Error::usage("no dispatches add so many latents")
            .expected(format!("1 to {MOST_TERMS}"))
            .found(terms.len().to_string()));
    }
    let most = IN_A_DISPATCH - usize::from(c.mask.is_some());
    Ok(terms.chunks(most).enumerate().map(|(i, part)| call(c, (i * most, part), y, flags)).collect())
}

/// The dispatch that adds `terms`, of which the first has the number `first`.
fn call(c: &Combine<'_>, (first, terms): (usize, &[OperandAt]), y: OperandAt, flags: Operand) -> Call {
    let total = c.latents.quads() as u32;
    let [groups_x, groups_y] = spread(total.div_ceil(64));
    let cells = c.latents.shape.positions() as u32;
    let at = |k: usize| terms.get(k).map_or(0, |t| t.first as u32);
    let params = Params {
        total,
        width: groups_x * 64,
        c4: c.latents.shape.quads() as u32,
        cells,
        first0: at(0),
        first1: at(1),
        first2: at(2),
        first3: at(3),
        first4: at(4),
        first5: at(5),
        y_first: y.first as u32,
        mask_first: c.mask.map_or(0, |m| m.at.first as u32),
        mask_stride: c.mask.map_or(0, |m| if m.by_image { cells } else { 0 }),
        scalars: c.scalars as u32,
    };
    let consts = vec![
        Const::U32("OPERANDS", terms.len() as u32),
        Const::U32("FIRST", first as u32),
        Const::Bool("MASKED", c.mask.is_some()),
    ];
    let results = [y.operand, flags].into_iter().chain(c.mask.map(|m| m.at.operand));
    Call {
        variant: variant(&SPEC, consts),
        params: bytemuck::bytes_of(&params).to_vec(),
        operands: [Operand::Scalars]
            .into_iter()
            .chain(terms.iter().map(|t| t.operand))
            .chain(results)
            .collect(),
        groups: [groups_x, groups_y, 1],
        path: c.path.to_owned(),
        flops: 8 * terms.len() as u64 * u64::from(total),
    }
}

/// A call in every variant.
pub(super) fn samples() -> Vec<Call> {
    let at = SAMPLE_PLACE;
    let of = |terms, mask| {
        let c = Combine { path: "sample", latents: SAMPLE, scalars: 0, mask };
        // They are as many as can be.
        calls(&c, &vec![at; terms], at, at.operand).unwrap_or_default()
    };
    let masks = [None, Some(Mask { at, by_image: false })];
    (1..=MOST_TERMS).flat_map(|terms| masks.map(|mask| of(terms, mask))).flatten().collect()
}

/// The same in f64: terms are (c, d, values), `mask` is a weight for each value.
pub fn reference(terms: &[(f64, f64, &[f64])], mask: Option<&[f64]>) -> Vec<f64> {
    let values = terms.first().map_or(0, |(_, _, v)| v.len());
    let m = |i: usize| mask.map_or(0.0, |m| m[i]);
    (0..values).map(|i| terms.iter().map(|(c, d, v)| (c + d * m(i)) * v[i]).sum()).collect()
}
