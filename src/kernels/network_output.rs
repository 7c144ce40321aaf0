//! The prediction of the picture from a network's output: `network_output.wgsl`.

use super::binding::{input, result, scalars, updated};
use super::latents::{OperandAt, RowPlace, SAMPLE, SAMPLE_PLACE, variant};
use super::{Call, Class, Const, KernelSpec, Operand, params, spread};
use crate::graph::Shape;
use crate::shader::file;

params! {
    /// Parameters as `shaders/kernels/network_output.wgsl` reads them.
    pub struct Params {
        total: u32,
        all: u32,
        width: u32,
        cells: u32,
        area_width: u32,
        c4: u32,
        channels: u32,
        positions: u32,
        latent_cells: u32,
        latent_width: u32,
        latent_first: u32,
        table_first: u32,
        scalars: u32,
    }
}

/// The kernel.
pub static SPEC: KernelSpec = KernelSpec::new(
    file!("kernels/network_output"),
    Class::Latent,
    Params::FIELDS,
    &[
        scalars(),
        input("table"),
        input("out"),
        input("x"),
        result("to"),
        updated("flags"),
        input("columns"),
        result("columns_to"),
    ],
);

/// Everything about the results of one network call.
#[derive(Debug, Clone, Copy)]
pub struct NetworkOutput<'a> {
    /// What profiles call it.
    pub path: &'a str,
    /// Rows of the call.
    pub rows: usize,
    /// A whole latent of one image.
    pub latent: Shape,
    /// Height and width of the area that each row sees, cells.
    pub area: (usize, usize),
    /// The vec4 of the scalars that is (keep, take, number of the step as bits, -).
    pub scalars: usize,
}

/// Column sums of a call that records.
#[derive(Debug, Clone, Copy)]
pub struct Recorded {
    /// Of a row.
    pub positions: usize,
    /// `[row, position]`, f32.
    pub columns: Operand,
    /// Where rows' column sums go, at the values that the table names.
    pub to: Operand,
}

/// The dispatch of `n`: x·keep - out·take for each row. `table` has a [`RowPlace`] for each row, whose
/// `prediction` is a quad of `to`; `out` is `[row, cell, quad]` in f32 whatever the network's storage
/// ([`Store::F32`](crate::graph::Store::F32)), `x` the noisy latents.
pub fn call(
    n: &NetworkOutput<'_>,
    table: OperandAt,
    out: Operand,
    x: OperandAt,
    [to, flags]: [Operand; 2],
    recorded: Option<Recorded>,
) -> Call {
    let cells = n.area.0 * n.area.1;
    let total = (n.rows * cells * n.latent.quads()) as u32;
    let positions = recorded.map_or(0, |r| r.positions);
    let all = total + (n.rows * positions) as u32;
    let [groups_x, groups_y] = spread(all.div_ceil(64));
    let params = Params {
        total,
        all,
        width: groups_x * 64,
        cells: cells as u32,
        area_width: n.area.1 as u32,
        c4: n.latent.quads() as u32,
        channels: n.latent.channels as u32,
        positions: positions as u32,
        latent_cells: n.latent.positions() as u32,
        latent_width: n.latent.width as u32,
        latent_first: x.first as u32,
        table_first: table.first as u32,
        scalars: n.scalars as u32,
    };
    let [columns, columns_to] = recorded.map_or([Operand::Unused; 2], |r| [r.columns, r.to]);
    Call {
        variant: variant(&SPEC, vec![Const::Bool("COLUMNS", recorded.is_some())]),
        params: bytemuck::bytes_of(&params).to_vec(),
        operands: vec![Operand::Scalars, table.operand, out, x.operand, to, flags, columns, columns_to],
        groups: [groups_x, groups_y, 1],
        path: n.path.to_owned(),
        flops: 12 * u64::from(total),
    }
}

/// A call in every variant.
pub(super) fn samples() -> Vec<Call> {
    let (at, operand) = (SAMPLE_PLACE, SAMPLE_PLACE.operand);
    let n = NetworkOutput { path: "sample", rows: 1, latent: SAMPLE.shape, area: (5, 7), scalars: 0 };
    [None, Some(Recorded { positions: 6, columns: operand, to: operand })]
        .map(|recorded| call(&n, at, operand, at, [operand; 2], recorded))
        .to_vec()
}

/// The prediction of one row in f64, `[cell, channels in whole quads]`, from its part of the output; `x` is
/// `[image, cell, channels in whole quads]`.
pub fn reference(
    n: &NetworkOutput<'_>,
    row: &RowPlace,
    (keep, take): (f64, f64),
    out: &[f64],
    x: &[f64],
) -> Vec<f64> {
    let (Shape { height, width, channels }, stored) = (n.latent, 4 * n.latent.quads());
    let value = |(i, out): (usize, &f64)| {
        let (cell, c) = (i / stored, i % stored);
        let (line, column) = (row.y as usize + cell / n.area.1, row.x as usize + cell % n.area.1);
        let x = x[((row.image as usize * height + line) * width + column) * stored + c];
        if c < channels { x * keep - out * take } else { 0.0 }
    };
    out.iter().enumerate().map(value).collect()
}
