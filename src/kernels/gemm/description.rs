//! What describes one product, and what all ways to compute it share: parameters, constants, the grid.

use std::ops::Range;

use crate::graph::{Activation, Shape};
use crate::kernels::binding::{input, result, weight};
use crate::kernels::{
    Binding, Call, Class, Const, CoreSpec, KernelSpec, Operand, Precision, Strided, Variant, activation_code,
    params, spread,
};
use crate::shader::file;

params! {
    /// Parameters as `shaders/cores/epilogue.wgsl` reads them.
    pub struct Params {
        pub(super) m: u32,
        pub(super) n4: u32,
        c4: u32,
        positions: u32,
        pub(super) cells: u32,
        phase_m: u32,
        in_height: u32,
        in_width: u32,
        out_width: u32,
        stride: u32,
        pad: u32,
        pub(super) groups_y: u32,
        first_in: u32,
        first_out: u32,
        vector_offset4: u32,
        vector_stride4: u32,
        pub(super) splits: u32,
        pub(super) steps: u32,
        rows: u32,
        pub(super) part_m: u32,
        pub(super) part_n4: u32,
        epilogue_inputs: u32,
    }
}

/// Of all kernels that multiply.
pub(super) const BINDINGS: &[Binding] =
    &[weight("bias"), input("vector"), input("residual"), result("y"), weight("w"), input("x")];

/// Linear layers and 1×1 convolutions.
pub static MATMUL: KernelSpec =
    KernelSpec::new(file!("kernels/matmul"), Class::Linear, Params::FIELDS, BINDINGS);

/// 3×3 convolutions.
pub static CONV2D: KernelSpec =
    KernelSpec::new(file!("kernels/conv2d"), Class::Convolution, Params::FIELDS, BINDINGS);

/// Of cores that may sum a part of K.
pub(super) const PARTS: &[Binding] = &[result("parts")];

/// What is done with the sum: the epilogue and its inputs.
#[derive(Debug, Clone, Copy)]
pub struct Epilogue {
    /// f32, `[out]`.
    pub bias: Operand,
    /// One position a row, added at all of its positions.
    pub vector: Strided,
    /// Applied after the additions above, on a target that [`takes_activation`](super::takes_activation).
    pub activation: Option<Activation>,
    /// Added last, of the result's shape.
    pub residual: Operand,
    /// The product gives values, then as many gates, and the result is value · gelu(gate): see
    /// [`takes_gates`](super::takes_gates). Nothing of the above but the bias goes with it.
    pub gated: bool,
}

impl Epilogue {
    /// The sum as it is.
    pub(super) const NONE: Self = Self {
        bias: Operand::Unused,
        vector: Strided::UNUSED,
        activation: None,
        residual: Operand::Unused,
        gated: false,
    };

    /// Whether there is a bias, a vector, a residual.
    pub(super) fn epilogue_inputs(&self) -> [bool; 3] {
        [self.bias, self.vector.operand, self.residual].map(|o| o != Operand::Unused)
    }
}

/// The window of a convolution; a linear layer has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// 1 or 2.
    pub stride: usize,
    /// Zeros before the first row and column.
    pub pad: usize,
    /// Read the input as if upsampled x2, up to this height and width; `stride` and `pad`
    /// are then 1.
    pub upsampled: Option<(usize, usize)>,
}

impl Window {
    /// The lines of a stored input of `height` lines that the `output` lines are made of.
    pub fn lines(&self, output: &Range<usize>, height: usize) -> Range<usize> {
        let zoom = if self.upsampled.is_some() { 2 } else { 1 };
        let first = (output.start * self.stride).saturating_sub(self.pad);
        let last = ((output.end - 1) * self.stride + 2).saturating_sub(self.pad);
        first / zoom..(last / zoom + 1).min(height)
    }
}

/// Everything about one product.
#[derive(Debug, Clone, Copy)]
pub struct Gemm<'a> {
    /// The layer's path.
    pub path: &'a str,
    /// Number of rows.
    pub rows: usize,
    /// Shape of the input in one row, as stored.
    pub input: Shape,
    /// Shape of the result in one row.
    pub output: Shape,
    /// None for linear layers.
    pub window: Option<Window>,
    /// Where `x` and `y` are parts of larger maps: the first line of each. `input` is then still
    /// the whole map, `output` the part.
    pub first_lines: [usize; 2],
    /// The input.
    pub x: Operand,
    /// The weight.
    pub w: Operand,
    /// Storage of the weight: that of the values, unless the target [`takes_f16_weights`](super::takes_f16_weights).
    pub w_precision: Precision,
    /// The result.
    pub y: Operand,
    /// What is done with the sum.
    pub epilogue: Epilogue,
    /// Storage of the values.
    pub precision: Precision,
    /// Result in f32.
    pub out_f32: bool,
}

impl Gemm<'_> {
    /// A linear layer of no tensors, to ask how it would be computed.
    pub(super) fn of_linear(precision: Precision, input: Shape, output: Shape) -> Self {
        Self {
            path: "",
            rows: 1,
            input,
            output,
            window: None,
            first_lines: [0; 2],
            x: Operand::Unused,
            w: Operand::Unused,
            w_precision: precision,
            y: Operand::Unused,
            epilogue: Epilogue::NONE,
            precision,
            out_f32: false,
        }
    }

    /// Channels of the product: those of the weight.
    pub(super) fn channels(&self) -> u32 {
        self.output.channels as u32 * if self.epilogue.gated { 2 } else { 1 }
    }

    pub(super) fn upsampled(&self) -> bool {
        self.window.is_some_and(|w| w.upsampled.is_some())
    }

    /// Products that have weights of their own: of an upsampled map, results on even and odd lines and
    /// columns.
    pub(super) fn phases(&self) -> u32 {
        if self.upsampled() { 4 } else { 1 }
    }

    /// Positions of a row in a phase. Of an upsampled map, the stored positions under its lines: an odd
    /// first or last line is one of two.
    pub(super) fn cells(&self) -> u32 {
        if !self.upsampled() {
            return self.output.positions() as u32;
        }
        let (first, end) = (self.first_lines[1], self.first_lines[1] + self.output.height);
        ((end.div_ceil(2) - first / 2) * self.input.width) as u32
    }

    /// Positions of `rows` rows for tiles of `tile`: a tile is of one phase.
    pub(super) fn positions(&self, rows: u32, tile: u32) -> u32 {
        match self.phases() {
            1 => rows * self.cells(),
            phases => phases * (rows * self.cells()).next_multiple_of(tile),
        }
    }
}

/// One dispatch of a core with all of its constants and parameters.
pub(super) fn dispatch(
    g: &Gemm<'_>,
    core: &'static CoreSpec,
    consts: Vec<Const>,
    params: &Params,
    tile: [u32; 2],
) -> Call {
    let e = &g.epilogue;
    Call {
        variant: Variant {
            kernel: kernel(g),
            consts,
            core: Some(core),
            precision: g.precision,
            out_f32: g.out_f32,
        },
        params: bytemuck::bytes_of(params).to_vec(),
        operands: vec![e.bias, e.vector.operand, e.residual, g.y, g.w, g.x],
        groups: grid(params, tile),
        path: g.path.to_owned(),
        flops: flops(g),
    }
}

pub(super) fn kernel(g: &Gemm<'_>) -> &'static KernelSpec {
    if g.window.is_some() { &CONV2D } else { &MATMUL }
}

/// Of all shaders that finish a product with `e`.
pub(super) fn product_consts(g: &Gemm<'_>, e: &Epilogue) -> [Const; 5] {
    let [bias, vector, residual] = e.epilogue_inputs();
    [
        Const::Bool("UPSAMPLED", g.upsampled()),
        Const::Bool("HAS_BIAS", bias),
        Const::Bool("HAS_VECTOR", vector),
        Const::Bool("HAS_RESIDUAL", residual),
        Const::U32("ACTIVATION", activation_code(e.activation)),
    ]
}

/// Parameters for tiles of `tile_m` positions without split-K.
pub(super) fn params(g: &Gemm<'_>, tile_m: u32) -> Params {
    let m = g.positions(g.rows as u32, tile_m);
    let window = g.window.unwrap_or(Window { stride: 1, pad: 0, upsampled: None });
    Params {
        m,
        n4: g.channels().div_ceil(4),
        c4: g.input.quads() as u32,
        positions: g.output.positions() as u32,
        cells: g.cells(),
        phase_m: m / g.phases(),
        in_height: g.input.height as u32,
        in_width: g.input.width as u32,
        out_width: g.output.width as u32,
        stride: window.stride as u32,
        pad: window.pad as u32,
        groups_y: spread(m.div_ceil(tile_m))[0],
        first_in: g.first_lines[0] as u32,
        first_out: g.first_lines[1] as u32,
        vector_offset4: g.epilogue.vector.first as u32,
        vector_stride4: g.epilogue.vector.row as u32,
        splits: 1,
        steps: u32::MAX,
        rows: g.rows as u32,
        part_m: 0,
        part_n4: 0,
        epilogue_inputs: g
            .epilogue
            .epilogue_inputs()
            .iter()
            .rev()
            .fold(0, |bits, used| 2 * bits + u32::from(*used)),
    }
}

pub(super) fn grid(p: &Params, tile: [u32; 2]) -> [u32; 3] {
    let [y, z] = spread(p.m.div_ceil(tile[0]));
    [p.n4.div_ceil(tile[1]), y, z * p.splits]
}

/// Products of a result.
pub(super) fn taps(g: &Gemm<'_>) -> u32 {
    match g.window {
        None => 1,
        Some(Window { upsampled: Some(_), .. }) => 4,
        Some(_) => 9,
    }
}

pub(super) fn flops(g: &Gemm<'_>) -> u64 {
    let m = (g.rows * g.output.positions()) as u64;
    2 * m * u64::from(taps(g)) * g.input.channels as u64 * u64::from(g.channels())
}
