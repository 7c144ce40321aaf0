//! Linear layers and 3×3 convolutions: `matmul.wgsl` and `conv2d.wgsl` over one of four cores.

mod cooperative;
mod description;
mod edge;
pub mod simd;
mod split_k;

use super::{Call, Const, CoreSpec, Form, Precision, Stretch, Target, activation_reference};
use crate::graph::{Activation, Shape};
use crate::shader::file;
pub use description::{CONV2D, Epilogue, Gemm, MATMUL, Params, Window};
use description::{PARTS, dispatch, params, product_consts};
pub use split_k::MERGE;
use split_k::Tiles;

/// For results of a few channels.
pub static NARROW: CoreSpec = CoreSpec { file: file!("cores/gemm_narrow"), form: Form::Plain, bindings: &[] };

/// For all others on a GPU.
pub static TILE: CoreSpec = CoreSpec { file: file!("cores/gemm_tile"), form: Form::Plain, bindings: PARTS };

/// Whether a linear layer from `input` to values and gates can make `output` of them at once.
pub fn takes_gates(target: Target, precision: Precision, input: Shape, output: Shape) -> bool {
    matches!(target, Target::Cooperative { .. })
        && precision == Precision::F16
        && cooperative::gates_pay(input, output)
}

/// Whether products apply activations. On CPU drivers both ways of a branch are taken, and a variant for each
/// activation would be compiled for a second: they have a kernel of their own.
pub fn takes_activation(target: Target) -> bool {
    !target.is_cpu()
}

/// Whether products read weights in f16 beside values in f32.
pub fn takes_f16_weights(target: Target) -> bool {
    target.is_cpu()
}

/// Workgroups of a row beyond which `gemm_tile` does not split K. SD 1.5's UNet on an H100,
/// one row and two: 256 workgroups 58 and 84 ms, 1,024 49 and 80, 4,096 45 and 78, no split-K 146
/// and 184.
const BUSY: u32 = 4096;

/// The dispatches of `g` on `target`, in order; `room` gives memory for what they pass on, of
/// which a binding holds at most `most` bytes. The variants depend on the shape of a row, never on the number of rows,
/// so that a row's result does not depend on its company.
pub fn calls(g: &Gemm<'_>, target: Target, most: u64, room: impl FnOnce(u64) -> Stretch) -> Vec<Call> {
    let mut calls = product(g, target, most, room);
    calls.extend(edge::call(g));
    calls
}

fn product(g: &Gemm<'_>, target: Target, most: u64, room: impl FnOnce(u64) -> Stretch) -> Vec<Call> {
    match target {
        Target::Cooperative { matrices, memory } if cooperative::pay(g) => {
            cooperative::calls(g, matrices, memory, most, room)
        }
        Target::Gpu | Target::Cooperative { .. } if g.output.quads() == 1 => {
            vec![call(g, &NARROW, &[], [16, 1])]
        }
        Target::Gpu | Target::Cooperative { .. } => {
            let tiles = Tiles { size: [64, 64], step: 16 };
            tiles.calls(g, (&TILE, &[]), tiles.parts(g, BUSY, 12, most), room)
        }
        Target::Cpu => vec![simd::call(g)],
    }
}

/// One dispatch of a core whose constants say what the epilogue does, and whose workgroups compute `tile`
/// positions and quads.
fn call(g: &Gemm<'_>, core: &'static CoreSpec, own: &[Const], tile: [u32; 2]) -> Call {
    let consts = [&product_consts(g, &g.epilogue), own].concat();
    dispatch(g, core, consts, &params(g, tile[0]), tile)
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
    let win = window.unwrap_or(Window { stride: 1, pad: 0, upsampled: None });
    // What the window sees.
    let (zoom, (height, width)) = win.upsampled.map_or((1, (input.height, input.width)), |seen| (2, seen));
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
