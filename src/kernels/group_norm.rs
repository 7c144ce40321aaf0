//! Group normalisation: `group_norm_stats.wgsl`, then `group_norm_apply.wgsl`.

use super::{
    Call, Const, Operand, Precision, Variant, activation_code, activation_reference, params, spread,
};
use crate::graph::{Activation, Shape};

params! {
    /// Parameters as `shaders/group_norm_stats.wgsl` reads them.
    pub struct StatsParams {
        positions: u32,
        c4: u32,
        group_size: u32,
        groups: u32,
        eps: f32,
    }
}

params! {
    /// Parameters as `shaders/group_norm_apply.wgsl` reads them.
    pub struct ApplyParams {
        total: u32,
        c4: u32,
        positions: u32,
        spans: u32,
        group_size: u32,
        groups: u32,
        width: u32,
    }
}

/// Everything about one normalisation.
#[derive(Debug, Clone, Copy)]
pub struct GroupNorm<'a> {
    /// The layer's path.
    pub path: &'a str,
    /// Number of rows.
    pub rows: usize,
    /// Shape of a row.
    pub shape: Shape,
    /// Number of groups.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f32,
    /// Applied to the result.
    pub activation: Option<Activation>,
    /// Scale and shift, `[channels]`, f32.
    pub gamma_beta: [Operand; 2],
    /// Storage precision.
    pub precision: Precision,
    /// Result in f32.
    pub out_f32: bool,
}

/// Bytes of the statistics: a mean and a factor for each row and group.
pub fn stats_bytes(rows: usize, groups: usize) -> u64 {
    (rows * groups * 8) as u64
}

/// The two dispatches: `x` is read, `stats` (see [`stats_bytes`]) written and read, `y` written.
/// Operands: `x` and `stats` for reading, then for writing.
pub fn calls(n: &GroupNorm<'_>, x: Operand, stats: [Operand; 2], y: Operand) -> [Call; 2] {
    let c4 = n.shape.quads() as u32;
    let positions = n.shape.positions() as u32;
    let group_size = (n.shape.channels / n.groups) as u32;
    let groups = n.groups as u32;
    let [read_stats, write_stats] = stats;
    let first = StatsParams { positions, c4, group_size, groups, eps: n.eps };
    // Small maps keep their parallelism; large ones share what is fetched for a quad.
    let span = if positions >= 256 { 8 } else { 2 };
    let spans = positions.div_ceil(span);
    let total = n.rows as u32 * spans * c4;
    let [x_groups, y_groups] = spread(total.div_ceil(64));
    let second = ApplyParams { total, c4, positions, spans, group_size, groups, width: x_groups * 64 };
    let variant =
        |shader, consts, out_f32| Variant { shader, consts, core: None, precision: n.precision, out_f32 };
    let work = n.rows as u64 * (n.shape.positions() * n.shape.channels) as u64;
    [
        Call {
            variant: variant("group_norm_stats", vec![], false),
            params: bytemuck::bytes_of(&first).to_vec(),
            operands: vec![x, write_stats],
            groups: [groups, n.rows as u32, 1],
            path: n.path.to_owned(),
            flops: 4 * work,
        },
        Call {
            variant: variant(
                "group_norm_apply",
                vec![Const::U32("ACTIVATION", activation_code(n.activation)), Const::U32("SPAN", span)],
                n.out_f32,
            ),
            params: bytemuck::bytes_of(&second).to_vec(),
            operands: vec![n.gamma_beta[0], n.gamma_beta[1], x, read_stats, y],
            groups: [x_groups, y_groups, 1],
            path: n.path.to_owned(),
            flops: 4 * work,
        },
    ]
}

/// The same in f64 for one row: `x` `[position, channel]`.
pub fn reference(
    shape: Shape,
    groups: usize,
    eps: f64,
    activation: Option<Activation>,
    x: &[f64],
    gamma: &[f64],
    beta: &[f64],
) -> Vec<f64> {
    let size = shape.channels / groups;
    let mut y = vec![0.0; x.len()];
    for g in 0..groups {
        let of_group = || {
            (0..shape.positions())
                .flat_map(move |p| (g * size..(g + 1) * size).map(move |c| (p * shape.channels + c, c)))
        };
        let count = (shape.positions() * size) as f64;
        let mean = of_group().map(|(i, _)| x[i]).sum::<f64>() / count;
        let variance = of_group().map(|(i, _)| (x[i] - mean).powi(2)).sum::<f64>() / count;
        for (i, c) in of_group() {
            let v = (x[i] - mean) / (variance + eps).sqrt() * gamma[c] + beta[c];
            y[i] = activation_reference(activation, v);
        }
    }
    y
}
