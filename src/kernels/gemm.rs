//! Linear layers and 3×3 convolutions: `matmul.wgsl` and `conv2d.wgsl` over one of four cores.

mod cooperative;
mod description;
mod edge;
pub mod simd;
mod split_k;

use super::costs::{Candidate, WayName};
use super::{Call, Const, CoreSpec, DeviceProfile, Form, LANES, Precision, Stretch, activation_reference};
use crate::graph::{Activation, Shape};
use crate::shader::file;
use crate::{Error, Result};
pub use description::{CONV2D, Epilogue, Gemm, MATMUL, Params, Window};
use description::{PARTS, dispatch, params, product_consts};
pub use split_k::MERGE;
use split_k::Tiles;

/// For results of a few channels.
pub static NARROW: CoreSpec = CoreSpec { file: file!("cores/gemm_narrow"), form: Form::Plain, bindings: &[] };

/// For all others on a GPU.
pub static TILE: CoreSpec = CoreSpec { file: file!("cores/gemm_tile"), form: Form::Plain, bindings: PARTS };

/// Cores that a device may not have, or not compute right.
pub static ALTERNATIVES: [&CoreSpec; 2] = [&cooperative::CORE, &simd::CORE];

/// Whether a linear layer from `input` to values and gates can make `output` of them at once.
pub fn takes_gates(device: &DeviceProfile, precision: Precision, input: Shape, output: Shape) -> bool {
    if !cooperative::gates_pay(input, output) {
        return false;
    }
    let product = |gated, channels| Gemm {
        epilogue: Epilogue { gated, ..Epilogue::NONE },
        ..Gemm::of_linear(precision, input, Shape { channels, ..output })
    };
    // Where the product by itself is computed with matrices.
    matches!(choose(&product(false, 2 * output.channels), device), Some(Way::Cooperative(_)))
        && choose(&product(true, output.channels), device).is_some()
}

/// Whether products apply activations. On CPU drivers both ways of a branch are taken, and a variant for each
/// activation would be compiled for a second: they have a kernel of their own.
pub fn takes_activation(device: &DeviceProfile) -> bool {
    !device.has_simd()
}

/// Whether products read weights in f16 beside values in f32.
pub fn takes_f16_weights(device: &DeviceProfile) -> bool {
    device.takes(simd::CORE.name(), simd::CORE.form)
}

/// Workgroups of a row beyond which `gemm_tile` does not split K. SD 1.5's UNet on an H100,
/// one row and two: 256 workgroups 58 and 84 ms, 1,024 49 and 80, 4,096 45 and 78, no split-K 146
/// and 184.
const BUSY: u32 = 4096;

/// What a workgroup of `gemm_tile` computes.
const PLAIN: Tiles = Tiles { size: [64, 64], step: 16 };

/// How a product is computed.
#[derive(Debug, Clone, Copy)]
enum Way {
    Cooperative(cooperative::Way),
    Narrow,
    /// With the parts of split-K.
    Tile(u32),
    /// With positions of a tile, and quads of each lane.
    Simd([u32; 2]),
}

/// The ways to compute `g` on `device`.
fn candidates(g: &Gemm<'_>, device: &DeviceProfile) -> Vec<Candidate<Way>> {
    let mut all = Vec::new();
    let mut offer = |way, core: &'static CoreSpec, (tile, cost), parts, shape: Tiles| {
        let cost = device.costs.of(core.name(), cost);
        let time_of = |rows| shape.time(g, &device.costs, cost, parts, rows);
        let name = WayName { kernel: core.name(), tile, parts };
        all.push(Candidate { way, name, form: core.form, time: time_of(1) + time_of(2) });
    };
    if !g.epilogue.gated {
        // One cost for all: the usual tile is taken, unless another was measured to be quicker.
        let [rows, quads] = simd::tiles(g)[0].1;
        let shape = Tiles { size: [rows, LANES * 4 * quads], step: 4 };
        for (name, tile) in simd::tiles(g) {
            offer(Way::Simd(tile), &simd::CORE, (name, ""), 1, shape);
        }
        // Weights in f16 beside values in f32 are for SIMD lanes alone.
        if g.w_precision == g.precision {
            if g.output.quads() == 1 {
                offer(Way::Narrow, &NARROW, ("16x4", "16x4"), 1, Tiles { size: [16, 4], step: 4 });
            } else {
                let parts = PLAIN.parts(g, BUSY, 12, device.max_binding);
                offer(Way::Tile(parts), &TILE, ("64x64", "64x64"), parts, PLAIN);
            }
        }
    }
    let with_matrices = cooperative::candidates(g, device).into_iter();
    all.extend(with_matrices.map(|c| Candidate {
        way: Way::Cooperative(c.way),
        name: c.name,
        form: c.form,
        time: c.time,
    }));
    all
}

/// The cheapest way to compute `g` on `device`. It depends on the shape of a row, never on the number of rows, so that
/// a row's result does not depend on its company.
fn choose(g: &Gemm<'_>, device: &DeviceProfile) -> Option<Way> {
    device.cheapest(g.path, || operation(g), candidates(g, device))
}

/// The name of a product in tables of costs.
fn operation(g: &Gemm<'_>) -> String {
    let what = match g.window {
        None => format!("{} positions", g.output.positions()),
        Some(Window { stride, upsampled, .. }) => {
            let up = if upsampled.is_some() { " upsampled" } else { "" };
            format!("3x3 at {}x{}{up} by {stride}", g.output.height, g.output.width)
        }
    };
    let gated = if g.epilogue.gated { " gated" } else { "" };
    format!("{} {what}, {} to {}{gated}", g.precision.name(), g.input.channels, g.channels())
}

/// The dispatches of `g` on `device`, in order; `room` gives memory for what they pass on.
pub fn calls(g: &Gemm<'_>, device: &DeviceProfile, room: impl FnOnce(u64) -> Stretch) -> Result<Vec<Call>> {
    let Some(way) = choose(g, device) else {
        return Err(Error::internal(format!("no kernel of this device computes {}", g.path)));
    };
    let mut calls = match way {
        Way::Cooperative(way) => cooperative::calls(g, way, room),
        Way::Narrow => vec![call(g, &NARROW, &[], [16, 1])],
        Way::Tile(parts) => PLAIN.calls(g, (&TILE, &[]), parts, room),
        Way::Simd(tile) => vec![simd::call(g, tile)],
    };
    calls.extend(edge::call(g));
    Ok(calls)
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
