//! What a network call reads of latents, and the embedding of its timestep: `network_input.wgsl`.

use super::binding::{input, result, scalars};
use super::latents::{OperandAt, RowPlace, SAMPLE, SAMPLE_PLACE};
use super::{Call, Class, KernelSpec, Operand, Precision, Variant, params, spread};
use crate::graph::Shape;
use crate::shader::file;

params! {
    /// Parameters as `shaders/kernels/network_input.wgsl` reads them.
    pub struct Params {
        x_total: u32,
        total: u32,
        width: u32,
        cells: u32,
        area_width: u32,
        in4: u32,
        c4: u32,
        time4: u32,
        latent_cells: u32,
        latent_width: u32,
        latent_first: u32,
        table_first: u32,
        embedding_first: u32,
        scalars: u32,
    }
}

/// The kernel.
pub static SPEC: KernelSpec = KernelSpec::new(
    file!("kernels/network_input"),
    Class::Latent,
    Params::FIELDS,
    &[scalars(), input("table"), input("latent"), input("embedding"), result("x"), result("time")],
);

/// Everything about the inputs of one network call.
#[derive(Debug, Clone, Copy)]
pub struct NetworkInput<'a> {
    /// What profiles call it.
    pub path: &'a str,
    /// Rows of the call.
    pub rows: usize,
    /// A whole latent of one image.
    pub latent: Shape,
    /// Height and width of the area that each row sees, cells.
    pub area: (usize, usize),
    /// Quads of a position of the network's input, at least the latent's; the others are zeros.
    pub in4: usize,
    /// Quads of the embedding.
    pub time4: usize,
    /// The vec4 of the scalars that is (c_in, -, -, -).
    pub scalars: usize,
    /// The network's storage.
    pub precision: Precision,
}

/// The dispatch of `n`. `table` has a [`RowPlace`] for each row; `x` is `[row, cell, in4]` and `time`
/// `[row, time4]` in the network's storage, the others are f32.
pub fn call(
    n: &NetworkInput<'_>,
    table: OperandAt,
    latent: OperandAt,
    embedding: OperandAt,
    [x, time]: [Operand; 2],
) -> Call {
    let cells = n.area.0 * n.area.1;
    let x_total = n.rows * cells * n.in4;
    let total = (x_total + n.rows * n.time4) as u32;
    let [groups_x, groups_y] = spread(total.div_ceil(64));
    let params = Params {
        x_total: x_total as u32,
        total,
        width: groups_x * 64,
        cells: cells as u32,
        area_width: n.area.1 as u32,
        in4: n.in4 as u32,
        c4: n.latent.quads() as u32,
        time4: n.time4 as u32,
        latent_cells: n.latent.positions() as u32,
        latent_width: n.latent.width as u32,
        latent_first: latent.first as u32,
        table_first: table.first as u32,
        embedding_first: embedding.first as u32,
        scalars: n.scalars as u32,
    };
    Call {
        variant: Variant {
            kernel: &SPEC,
            consts: vec![],
            core: None,
            precision: n.precision,
            out_f32: false,
        },
        params: bytemuck::bytes_of(&params).to_vec(),
        operands: vec![Operand::Scalars, table.operand, latent.operand, embedding.operand, x, time],
        groups: [groups_x, groups_y, 1],
        path: n.path.to_owned(),
        flops: 4 * u64::from(total),
    }
}

/// A call in every variant.
pub(super) fn samples() -> Vec<Call> {
    let at = SAMPLE_PLACE;
    let of = |precision| NetworkInput {
        path: "sample",
        rows: 1,
        latent: SAMPLE.shape,
        area: (5, 7),
        in4: 1,
        time4: 1,
        scalars: 0,
        precision,
    };
    [Precision::F32, Precision::F16].map(|p| call(&of(p), at, at, at, [at.operand; 2])).to_vec()
}

/// `x` of one row in f64, `[cell, in4 · 4]`: `latent` is `[image, cell, channels in whole quads]`.
pub fn reference(n: &NetworkInput<'_>, row: &RowPlace, c_in: f64, latent: &[f64]) -> Vec<f64> {
    let (Shape { height, width, .. }, stored) = (n.latent, 4 * n.latent.quads());
    let mut x = vec![0.0; n.area.0 * n.area.1 * 4 * n.in4];
    for (cell, to) in x.chunks_mut(4 * n.in4).enumerate() {
        let (line, column) = (row.y as usize + cell / n.area.1, row.x as usize + cell % n.area.1);
        let from = ((row.image as usize * height + line) * width + column) * stored;
        to.iter_mut().zip(&latent[from..from + stored]).for_each(|(to, v)| *to = v * c_in);
    }
    x
}
