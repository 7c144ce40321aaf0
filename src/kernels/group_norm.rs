//! Group normalisation: `group_norm_stats.wgsl`, on CPU drivers `group_norm_simd.wgsl`, for large maps
//! `group_norm_merge.wgsl`, then `group_norm_apply.wgsl`.

use super::binding::{input, result, weight};
use super::costs::{Candidate, WayName};
use super::{
    Call, Class, Const, DeviceProfile, KernelSpec, LANES, Operand, Precision, Variant, activation_code,
    activation_reference, params, spread,
};
use crate::graph::{Activation, Shape};
use crate::shader::file;

params! {
    /// Parameters as `shaders/kernels/group_norm_stats.wgsl` reads them.
    pub struct StatsParams {
        positions: u32,
        c4: u32,
        group_size: u32,
        groups: u32,
        slice4: u32,
        slice_groups: u32,
        span: u32,
        first_span: u32,
        spans: u32,
        eps: f32,
    }
}

params! {
    /// Parameters as `shaders/kernels/group_norm_simd.wgsl` reads them.
    pub struct SimdParams {
        positions: u32,
        c4: u32,
        group_size: u32,
        groups: u32,
        span: u32,
        first_span: u32,
        spans: u32,
        eps: f32,
    }
}

params! {
    /// Parameters as `shaders/kernels/group_norm_merge.wgsl` reads them.
    pub struct MergeParams {
        groups: u32,
        spans: u32,
        eps: f32,
    }
}

params! {
    /// Parameters as `shaders/kernels/group_norm_apply.wgsl` reads them.
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

/// Statistics by workgroups that share a slice of the channels.
pub static STATS: KernelSpec = KernelSpec::new(
    file!("kernels/group_norm_stats"),
    Class::Norm,
    StatsParams::FIELDS,
    &[input("x"), result("stats")],
);

/// The same by lanes of a CPU driver.
pub static SIMD_STATS: KernelSpec = KernelSpec::new(
    file!("kernels/group_norm_simd"),
    Class::Norm,
    SimdParams::FIELDS,
    &[input("x"), result("stats")],
);

/// Statistics of whole rows from those of their spans.
pub static MERGE: KernelSpec = KernelSpec::new(
    file!("kernels/group_norm_merge"),
    Class::Norm,
    MergeParams::FIELDS,
    &[input("spans"), result("stats")],
);

/// The normalisation itself.
pub static APPLY: KernelSpec = KernelSpec::new(
    file!("kernels/group_norm_apply"),
    Class::Norm,
    ApplyParams::FIELDS,
    &[weight("gamma"), weight("beta"), input("x"), input("stats"), result("y")],
);

/// Everything about one normalisation but its map, which may come in parts: statistics of each
/// part, their merger unless a row is a single span, then each part is normalised.
#[derive(Debug, Clone, Copy)]
pub struct GroupNorm<'a> {
    /// The layer's path.
    pub path: &'a str,
    /// Number of rows.
    pub rows: usize,
    /// Channels of all groups.
    pub channels: usize,
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

/// Invocations that share a slice on a GPU.
const SIZE: u32 = 256;

/// A kernel, its constants and parameters, and the groups of a workgroup.
type StatsKernel = (&'static KernelSpec, Vec<Const>, Vec<u8>, usize);

impl GroupNorm<'_> {
    /// Bytes of the statistics of `spans` spans of a row.
    pub fn span_bytes(&self, spans: usize) -> u64 {
        (self.rows * spans * self.groups * 16) as u64
    }

    /// Bytes of the merged statistics: a mean and a factor for each row and group.
    pub fn stats_bytes(&self) -> u64 {
        (self.rows * self.groups * 8) as u64
    }

    /// Whether each lane of a CPU has a group, or else workgroups share a slice of the channels.
    fn by_lanes(&self, device: &DeviceProfile) -> bool {
        let candidates = [(false, &STATS), (true, &SIMD_STATS)].map(|(way, spec)| {
            let name = WayName { kernel: spec.name(), tile: "", parts: 1 };
            Candidate { way, name, form: spec.form, time: device.costs.of(name.kernel, "").micros }
        });
        let operation = || format!("group norm of {} by {}", self.channels, self.group_size());
        device.cheapest("", operation, candidates).unwrap_or(false)
    }

    /// Positions of a span: of slices few, so that many workgroups share a map; of a CPU's lanes, where two
    /// dozen keep all cores busy, more, but so few that no invocation's loops are ended.
    fn span(&self, device: &DeviceProfile) -> usize {
        let quads = self.group_size().div_ceil(4) + 1;
        let most = device.most_iterations() as usize / (2 * quads);
        if self.by_lanes(device) { most.clamp(1, 4096) } else { 1024 }
    }

    /// Spans of a part of a row with `positions`.
    pub fn spans(&self, positions: usize, device: &DeviceProfile) -> usize {
        positions.div_ceil(self.span(device))
    }

    /// Statistics of the part `x` of `positions` positions a row, whose first span is number
    /// `first` of `spans`. `stats` holds [`span_bytes`](Self::span_bytes), with one span
    /// [`stats_bytes`](Self::stats_bytes).
    pub fn stats(
        &self,
        device: &DeviceProfile,
        part: (usize, usize, usize),
        x: Operand,
        stats: Operand,
    ) -> Call {
        let (positions, _, spans) = part;
        let (kernel, own, params, per) =
            if self.by_lanes(device) { self.of_simd(device, part) } else { self.of_slices(device, part) };
        let whole = Const::Bool("WHOLE", spans == 1);
        Call {
            variant: self.variant(kernel, [own.as_slice(), &[whole]].concat(), false),
            params,
            operands: vec![x, stats],
            groups: [
                self.groups.div_ceil(per) as u32,
                self.spans(positions, device) as u32,
                self.rows as u32,
            ],
            path: self.path.to_owned(),
            flops: self.work(positions),
        }
    }

    /// Kernel, constants and parameters by which a lane has a group, and groups of a workgroup.
    fn of_simd(
        &self,
        device: &DeviceProfile,
        (positions, first, spans): (usize, usize, usize),
    ) -> StatsKernel {
        let params = SimdParams {
            positions: positions as u32,
            c4: self.channels.div_ceil(4) as u32,
            group_size: self.group_size() as u32,
            groups: self.groups as u32,
            span: self.span(device) as u32,
            first_span: first as u32,
            spans: spans as u32,
            eps: self.eps,
        };
        let params = bytemuck::bytes_of(&params).to_vec();
        (&SIMD_STATS, vec![Const::U32("LANES", LANES)], params, LANES as usize)
    }

    /// The same for workgroups that share a slice of the channels.
    fn of_slices(
        &self,
        device: &DeviceProfile,
        (positions, first, spans): (usize, usize, usize),
    ) -> StatsKernel {
        let slice = self.slice_groups();
        let params = StatsParams {
            positions: positions as u32,
            c4: self.channels.div_ceil(4) as u32,
            group_size: self.group_size() as u32,
            groups: self.groups as u32,
            slice4: (slice * self.group_size()).div_ceil(4) as u32,
            slice_groups: slice as u32,
            span: self.span(device) as u32,
            first_span: first as u32,
            spans: spans as u32,
            eps: self.eps,
        };
        let params = bytemuck::bytes_of(&params).to_vec();
        (&STATS, vec![Const::U32("SIZE", SIZE), Const::U32("AT_ONCE", 4)], params, slice)
    }

    fn group_size(&self) -> usize {
        self.channels / self.groups
    }

    /// Groups that a workgroup takes together: as few as fill whole quads and 32 bytes.
    fn slice_groups(&self) -> usize {
        let size = self.channels / self.groups;
        let fits = |n: &usize| (n * size).is_multiple_of(4) && n * size >= 16;
        (1..=16).find(fits).unwrap_or(16).min(self.groups)
    }

    /// The statistics of rows from those of their `spans`.
    pub fn merge(&self, spans: usize, parts: Operand, stats: Operand) -> Call {
        let params = MergeParams { groups: self.groups as u32, spans: spans as u32, eps: self.eps };
        Call {
            variant: self.variant(&MERGE, vec![], false),
            params: bytemuck::bytes_of(&params).to_vec(),
            operands: vec![parts, stats],
            groups: [self.groups as u32, self.rows as u32, 1],
            path: self.path.to_owned(),
            flops: self.work(spans),
        }
    }

    /// Normalises the part `x` of shape `part` into `y`.
    pub fn apply(&self, device: &DeviceProfile, part: Shape, x: Operand, stats: Operand, y: Operand) -> Call {
        let (c4, positions) = (part.quads() as u32, part.positions() as u32);
        // Small maps keep their parallelism; large ones share what is fetched for a quad.
        let span = if positions >= 256 { 8 } else { 2 };
        let spans = positions.div_ceil(span);
        let total = self.rows as u32 * spans * c4;
        // On a CPU driver small maps are to keep all cores busy.
        let size = if device.has_simd() { LANES } else { 64 };
        let [x_groups, y_groups] = spread(total.div_ceil(size));
        let params = ApplyParams {
            total,
            c4,
            positions,
            spans,
            group_size: (self.channels / self.groups) as u32,
            groups: self.groups as u32,
            width: x_groups * size,
        };
        let consts = vec![
            Const::U32("SIZE", size),
            Const::U32("ACTIVATION", activation_code(self.activation)),
            Const::U32("SPAN", span),
        ];
        Call {
            variant: self.variant(&APPLY, consts, self.out_f32),
            params: bytemuck::bytes_of(&params).to_vec(),
            operands: vec![self.gamma_beta[0], self.gamma_beta[1], x, stats, y],
            groups: [x_groups, y_groups, 1],
            path: self.path.to_owned(),
            flops: self.work(part.positions()),
        }
    }

    fn variant(&self, kernel: &'static KernelSpec, consts: Vec<Const>, out_f32: bool) -> Variant {
        Variant { kernel, consts, core: None, precision: self.precision, out_f32 }
    }

    fn work(&self, positions: usize) -> u64 {
        4 * (self.rows * positions * self.channels) as u64
    }
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
