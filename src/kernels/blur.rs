//! Blur of each channel along one axis of its map: `blur.wgsl`.
//!
//! The kernel is that of Smoothed Energy Guidance's own code (Hong 2024, arXiv 2408.00760): about six
//! standard deviations wide, but no wider than the axis. There the map is taken for a square; here
//! each axis has its own length.

use super::binding::{input, result};
use super::{Call, Class, Const, KernelSpec, Operand, Precision, Variant, params, spread};
use crate::graph::Shape;
use crate::shader::file;

params! {
    /// Parameters as `shaders/kernels/blur.wgsl` reads them.
    pub struct Params {
        total: u32,
        width: u32,
        c4: u32,
        length: u32,
        stride: u32,
        reach: u32,
        sigma: f32,
    }
}

/// The kernel.
pub static SPEC: KernelSpec =
    KernelSpec::new(file!("kernels/blur"), Class::Elementwise, Params::FIELDS, &[input("x"), result("y")]);

/// Everything about one blur.
#[derive(Debug, Clone, Copy)]
pub struct Blur<'a> {
    /// The layer's path.
    pub path: &'a str,
    /// Number of rows.
    pub rows: usize,
    /// Shape of a row; channels in multiples of four.
    pub shape: Shape,
    /// Along columns rather than along lines.
    pub down: bool,
    /// Standard deviation in positions; infinity is the mean.
    pub sigma: f32,
    /// Storage precision.
    pub precision: Precision,
    /// Result in f32.
    pub out_f32: bool,
}

/// The dispatch of `b`.
pub fn call(b: &Blur<'_>, x: Operand, y: Operand) -> Call {
    let c4 = b.shape.quads();
    let total = (b.rows * b.shape.positions() * c4) as u32;
    let [groups_x, groups_y] = spread(total.div_ceil(64));
    let (length, stride) = if b.down { (b.shape.height, b.shape.width) } else { (b.shape.width, 1) };
    let (mean, reach) = (b.sigma.is_infinite(), reach(b.sigma, length));
    let params = Params {
        total,
        width: groups_x * 64,
        c4: c4 as u32,
        length: length as u32,
        stride: stride as u32,
        reach: reach as u32,
        sigma: b.sigma,
    };
    let taps = if mean { length } else { 2 * reach + 1 };
    Call {
        variant: Variant {
            kernel: &SPEC,
            consts: vec![Const::Bool("MEAN", mean)],
            core: None,
            precision: b.precision,
            out_f32: b.out_f32,
        },
        params: bytemuck::bytes_of(&params).to_vec(),
        operands: vec![x, y],
        groups: [groups_x, groups_y, 1],
        path: b.path.to_owned(),
        flops: 8 * taps as u64 * u64::from(total),
    }
}

/// Taps on each side of the centre, on an axis of `length`: the kernel has ⌈6σ⌉ taps, one more if
/// that is even, at most as many as the axis has positions, again one more if even.
fn reach(sigma: f32, length: usize) -> usize {
    let taps = (6.0 * sigma).ceil() as usize;
    (taps / 2).min(length / 2)
}

/// The same in f64 for one row: `x` `[height, width, channels]`.
pub fn reference(shape: Shape, down: bool, sigma: f64, x: &[f64]) -> Vec<f64> {
    let Shape { height, width, channels } = shape;
    let length = if down { height } else { width };
    let widest = length + 1 - length % 2;
    let wanted = (6.0 * sigma).ceil();
    let taps = (wanted + 1.0 - wanted.rem_euclid(2.0)).min(widest as f64) as isize;
    let value = |y: usize, across: usize, c: usize| {
        let at = if down { y } else { across };
        let of = |j: usize| {
            if down { x[(j * width + across) * channels + c] } else { x[(y * width + j) * channels + c] }
        };
        if sigma.is_infinite() {
            return (0..length).map(of).sum::<f64>() / length as f64;
        }
        let (mut sum, mut weights) = (0.0, 0.0);
        for k in -(taps / 2)..=taps / 2 {
            let w = (-0.5 * (k as f64 / sigma).powi(2)).exp();
            let mut j = at as isize + k;
            if j < 0 {
                j = -j;
            }
            if j >= length as isize {
                j = 2 * (length as isize - 1) - j;
            }
            sum += w * of(j as usize);
            weights += w;
        }
        sum / weights
    };
    let value = &value;
    (0..height)
        .flat_map(|y| (0..width).flat_map(move |across| (0..channels).map(move |c| value(y, across, c))))
        .collect()
}
