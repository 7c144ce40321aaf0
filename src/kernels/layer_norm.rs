//! Layer normalisation: `layer_norm.wgsl`.

use super::binding::{input, result, weight};
use super::costs::{Candidate, WayName};
use super::{
    Call, Class, Const, DeviceProfile, Form, KernelSpec, LANES, Operand, Precision, Variant, params, spread,
};
use crate::graph::Shape;
use crate::shader::file;

params! {
    /// Parameters as `shaders/kernels/layer_norm.wgsl` reads them.
    pub struct Params {
        positions: u32,
        c4: u32,
        channels: f32,
        eps: f32,
        groups_x: u32,
    }
}

/// The kernel.
pub static SPEC: KernelSpec = KernelSpec::new(
    file!("kernels/layer_norm"),
    Class::Norm,
    Params::FIELDS,
    &[weight("gamma"), weight("beta"), input("x"), result("y")],
);

/// Everything about one normalisation.
#[derive(Debug, Clone, Copy)]
pub struct LayerNorm<'a> {
    /// The layer's path.
    pub path: &'a str,
    /// Number of rows.
    pub rows: usize,
    /// Shape of a row; channels in multiples of four.
    pub shape: Shape,
    /// Added to the variance.
    pub eps: f32,
    /// Scale and shift, `[channels]`, f32.
    pub gamma_beta: [Operand; 2],
    /// Storage precision.
    pub precision: Precision,
    /// Result in f32.
    pub out_f32: bool,
}

/// Invocations of a workgroup, and how many share a position: on a CPU driver small maps are to keep all cores busy.
const WAYS: [(&str, [u32; 2]); 2] = [("64 by 32", [64, 32]), ("8", [LANES, 1])];

/// The invocations of a workgroup and of a position on `device`.
fn way(n: &LayerNorm<'_>, device: &DeviceProfile) -> [u32; 2] {
    let operation = || format!("layer norm of {}", n.shape.channels);
    let candidates = WAYS.map(|(tile, way)| {
        let name = WayName { kernel: SPEC.name(), tile, parts: 1 };
        Candidate { way, name, form: Form::Plain, time: device.costs.of(name.kernel, tile).micros }
    });
    device.cheapest(n.path, operation, candidates).unwrap_or(WAYS[0].1)
}

/// The dispatch of `n` on `device`.
pub fn call(n: &LayerNorm<'_>, device: &DeviceProfile, x: Operand, y: Operand) -> Call {
    let [size, split] = way(n, device);
    let positions = (n.rows * n.shape.positions()) as u32;
    let [groups_x, groups_y] = spread(positions.div_ceil(size / split));
    let params = Params {
        positions,
        c4: n.shape.quads() as u32,
        channels: n.shape.channels as f32,
        eps: n.eps,
        groups_x,
    };
    Call {
        variant: Variant {
            kernel: &SPEC,
            consts: vec![Const::U32("SIZE", size), Const::U32("SPLIT", split)],
            core: None,
            precision: n.precision,
            out_f32: n.out_f32,
        },
        params: bytemuck::bytes_of(&params).to_vec(),
        operands: vec![n.gamma_beta[0], n.gamma_beta[1], x, y],
        groups: [groups_x, groups_y, 1],
        path: n.path.to_owned(),
        flops: 8 * positions as u64 * n.shape.channels as u64,
    }
}

/// The same in f64 for any number of positions: `x` `[position, channel]`.
pub fn reference(channels: usize, eps: f64, x: &[f64], gamma: &[f64], beta: &[f64]) -> Vec<f64> {
    x.chunks(channels)
        .flat_map(|x| {
            let mean = x.iter().sum::<f64>() / channels as f64;
            let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / channels as f64;
            let scale = 1.0 / (variance + eps).sqrt();
            x.iter().zip(gamma.iter().zip(beta)).map(move |(v, (g, b))| (v - mean) * scale * g + b)
        })
        .collect()
}
