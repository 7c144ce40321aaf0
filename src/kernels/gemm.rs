//! Linear layers and 3×3 convolutions: `matmul.wgsl` and `conv2d.wgsl` over one of four cores.

pub(super) mod edge;
pub mod lanes;
pub(super) mod matrices;
pub(super) mod split;

use std::ops::Range;

use split::Tiles;

use super::{
    Binding, Call, Class, Const, Core, CoreSpec, Form, Kernel, KernelSpec, Operand, Precision, Stretch,
    Strided, Target, Variant, activation_code, activation_reference, input, params, result, spread, weight,
};
use crate::graph::{Activation, Shape};
use crate::shader::file;

params! {
    /// Parameters as `shaders/cores/epilogue.wgsl` reads them.
    pub struct Params {
        m: u32,
        n4: u32,
        c4: u32,
        positions: u32,
        cells: u32,
        phase_m: u32,
        in_height: u32,
        in_width: u32,
        out_width: u32,
        stride: u32,
        pad: u32,
        groups_y: u32,
        first_in: u32,
        first_out: u32,
        vector_offset4: u32,
        vector_stride4: u32,
        splits: u32,
        steps: u32,
        rows: u32,
        part_m: u32,
        part_n4: u32,
        surrounds: u32,
    }
}

/// Of all kernels that multiply.
const BINDINGS: &[Binding] =
    &[weight("bias"), input("vector"), input("residual"), result("y"), weight("w"), input("x")];

/// Linear layers and 1×1 convolutions.
pub const MATMUL: KernelSpec =
    KernelSpec::new(file!("kernels/matmul"), Class::Linear, Params::FIELDS, BINDINGS);

/// 3×3 convolutions.
pub const CONV2D: KernelSpec =
    KernelSpec::new(file!("kernels/conv2d"), Class::Convolution, Params::FIELDS, BINDINGS);

/// Of cores that may sum parts of a depth.
const PARTS: &[Binding] = &[result("parts")];

/// For results of a few channels.
pub const FEW: CoreSpec = CoreSpec { file: file!("cores/gemm_few"), form: Form::Plain, bindings: &[] };

/// For all others on a GPU.
pub const TILE: CoreSpec = CoreSpec { file: file!("cores/gemm_tile"), form: Form::Plain, bindings: PARTS };

/// What surrounds the sum.
#[derive(Debug, Clone, Copy)]
pub struct Epilogue {
    /// f32, `[out]`.
    pub bias: Operand,
    /// One position a row, added at all of its positions.
    pub vector: Strided,
    /// Applied after the additions above, on a target that [`takes_activation`].
    pub activation: Option<Activation>,
    /// Added last, of the result's shape.
    pub residual: Operand,
    /// The product gives values, then as many gates, and the result is value · gelu(gate): see
    /// [`takes_gates`]. Nothing of the above but the bias goes with it.
    pub gated: bool,
}

impl Epilogue {
    /// The sum as it is.
    const NONE: Self = Self {
        bias: Operand::Unused,
        vector: Strided::UNUSED,
        activation: None,
        residual: Operand::Unused,
        gated: false,
    };

    /// Whether there is a bias, a vector, a residual.
    fn surrounds(&self) -> [bool; 3] {
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
    /// Read the input as if doubled in both directions, up to this height and width; `stride` and `pad`
    /// are then 1.
    pub doubled: Option<(usize, usize)>,
}

impl Window {
    /// The lines of a stored input of `height` lines that the `output` lines are made of.
    pub fn lines(&self, output: &Range<usize>, height: usize) -> Range<usize> {
        let zoom = if self.doubled.is_some() { 2 } else { 1 };
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
    /// Storage of the weight: that of the values, unless the target [`takes_halves`].
    pub w_precision: Precision,
    /// The result.
    pub y: Operand,
    /// What surrounds the sum.
    pub epilogue: Epilogue,
    /// Storage of the values.
    pub precision: Precision,
    /// Result in f32.
    pub out_f32: bool,
}

impl Gemm<'_> {
    /// Channels of the product: those of the weight.
    fn channels(&self) -> u32 {
        self.output.channels as u32 * if self.epilogue.gated { 2 } else { 1 }
    }

    fn doubled(&self) -> bool {
        self.window.is_some_and(|w| w.doubled.is_some())
    }

    /// Products that have weights of their own: of a doubled map, results on even and odd lines and
    /// columns.
    fn phases(&self) -> u32 {
        if self.doubled() { 4 } else { 1 }
    }

    /// Positions of a row in a phase. Of a doubled map, the stored positions under its lines: an odd
    /// first or last line is one of two.
    fn cells(&self) -> u32 {
        if !self.doubled() {
            return self.output.positions() as u32;
        }
        let (first, end) = (self.first_lines[1], self.first_lines[1] + self.output.height);
        ((end.div_ceil(2) - first / 2) * self.input.width) as u32
    }

    /// Positions of `rows` rows for tiles of `tile`: a tile is of one phase.
    fn positions(&self, rows: u32, tile: u32) -> u32 {
        match self.phases() {
            1 => rows * self.cells(),
            phases => phases * (rows * self.cells()).next_multiple_of(tile),
        }
    }
}

/// Whether a linear layer from `input` to values and gates can make `output` of them at once.
pub fn takes_gates(target: Target, precision: Precision, input: Shape, output: Shape) -> bool {
    matches!(target, Target::Matrices { .. })
        && precision == Precision::F16
        && matrices::gates_pay(input, output)
}

/// Whether products apply activations. On CPU drivers both ways of a branch are taken, and a variant for each
/// activation would be compiled for a second: they have a kernel of their own.
pub fn takes_activation(target: Target) -> bool {
    !target.is_cpu()
}

/// Whether products read weights in f16 beside values in f32.
pub fn takes_halves(target: Target) -> bool {
    target.is_cpu()
}

/// Workgroups of a row beyond which `gemm_tile` does not divide the depth. SD 1.5's UNet on an H100,
/// one row and two: 256 workgroups 58 and 84 ms, 1,024 49 and 80, 4,096 45 and 78, no division 146
/// and 184.
const BUSY: u32 = 4096;

/// The dispatches of `g` on `target`, in order; `room` gives memory for what stands between them, of
/// which a binding holds at most `most` bytes. The variants depend on the shape of a row, never on the number of rows,
/// so that a row's result does not depend on its company.
pub fn calls(g: &Gemm<'_>, target: Target, most: u64, room: impl FnOnce(u64) -> Stretch) -> Vec<Call> {
    let mut calls = product(g, target, most, room);
    calls.extend(edge::call(g));
    calls
}

fn product(g: &Gemm<'_>, target: Target, most: u64, room: impl FnOnce(u64) -> Stretch) -> Vec<Call> {
    match target {
        Target::Matrices { memory } if matrices::pay(g) => matrices::calls(g, memory, most, room),
        Target::Gpu | Target::Matrices { .. } if g.output.quads() == 1 => {
            vec![call(g, Core::Few, &[], [16, 1])]
        }
        Target::Gpu | Target::Matrices { .. } => {
            let tiles = Tiles { size: [64, 64], step: 16 };
            tiles.calls(g, (Core::Tile, &[]), tiles.parts(g, BUSY, 12, most), room)
        }
        Target::Cpu => vec![lanes::call(g)],
    }
}

/// One dispatch of a core that the variant tells what surrounds the sum, and whose workgroups compute `tile`
/// positions and quads.
fn call(g: &Gemm<'_>, core: Core, own: &[Const], tile: [u32; 2]) -> Call {
    let consts = [&product_consts(g, &g.epilogue), own].concat();
    dispatch(g, core, consts, &params(g, tile[0]), tile)
}

/// One dispatch of a core with all of its constants and parameters.
fn dispatch(g: &Gemm<'_>, core: Core, consts: Vec<Const>, params: &Params, tile: [u32; 2]) -> Call {
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

fn kernel(g: &Gemm<'_>) -> Kernel {
    if g.window.is_some() { Kernel::Conv2d } else { Kernel::Matmul }
}

/// Of all shaders that finish a product with `e`.
fn product_consts(g: &Gemm<'_>, e: &Epilogue) -> [Const; 5] {
    let [bias, vector, residual] = e.surrounds();
    [
        Const::Bool("DOUBLED", g.doubled()),
        Const::Bool("HAS_BIAS", bias),
        Const::Bool("HAS_VECTOR", vector),
        Const::Bool("HAS_RESIDUAL", residual),
        Const::U32("ACTIVATION", activation_code(e.activation)),
    ]
}

/// Parameters for tiles of `tile_m` positions and an undivided depth.
fn params(g: &Gemm<'_>, tile_m: u32) -> Params {
    let m = g.positions(g.rows as u32, tile_m);
    let window = g.window.unwrap_or(Window { stride: 1, pad: 0, doubled: None });
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
        surrounds: g.epilogue.surrounds().iter().rev().fold(0, |bits, used| 2 * bits + u32::from(*used)),
    }
}

fn grid(p: &Params, tile: [u32; 2]) -> [u32; 3] {
    let [y, z] = spread(p.m.div_ceil(tile[0]));
    [p.n4.div_ceil(tile[1]), y, z * p.splits]
}

/// Products of a result.
fn taps(g: &Gemm<'_>) -> u32 {
    match g.window {
        None => 1,
        Some(Window { doubled: Some(_), .. }) => 4,
        Some(_) => 9,
    }
}

fn flops(g: &Gemm<'_>) -> u64 {
    let m = (g.rows * g.output.positions()) as u64;
    2 * m * u64::from(taps(g)) * g.input.channels as u64 * u64::from(g.channels())
}

/// The same in f64 for one row: `x` `[position, in]` of shape `input`, `w` `[tap][in][out]` with all nine
/// taps of a window, `vector` `[out]`, `residual` `[position, out]`; result `[position, out]`.
#[allow(clippy::too_many_arguments)]
pub fn reference(
    input: Shape,
    output: Shape,
    window: Option<Window>,
    x: &[f64],
    w: &[f64],
    bias: Option<&[f64]>,
    vector: Option<&[f64]>,
    activation: Option<Activation>,
    residual: Option<&[f64]>,
) -> Vec<f64> {
    let (ci, co) = (input.channels, output.channels);
    let taps: &[(isize, isize)] = match window {
        None => &[(0, 0)],
        Some(_) => &[(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)],
    };
    let win = window.unwrap_or(Window { stride: 1, pad: 0, doubled: None });
    // What the window sees.
    let (zoom, (height, width)) = win.doubled.map_or((1, (input.height, input.width)), |seen| (2, seen));
    let mut y = Vec::with_capacity(output.positions() * co);
    for at in 0..output.positions() {
        let (oy, ox) = (at / output.width, at % output.width);
        for n in 0..co {
            let mut sum = 0.0;
            for (tap, &(ky, kx)) in taps.iter().enumerate() {
                let iy = (oy * win.stride) as isize + ky - win.pad as isize;
                let ix = (ox * win.stride) as isize + kx - win.pad as isize;
                if iy < 0 || ix < 0 || iy >= height as isize || ix >= width as isize {
                    continue;
                }
                let from = (iy as usize / zoom) * input.width + ix as usize / zoom;
                for c in 0..ci {
                    sum += x[from * ci + c] * w[(tap * ci + c) * co + n];
                }
            }
            sum += bias.map_or(0.0, |b| b[n]) + vector.map_or(0.0, |v| v[n]);
            y.push(activation_reference(activation, sum) + residual.map_or(0.0, |r| r[at * co + n]));
        }
    }
    y
}
