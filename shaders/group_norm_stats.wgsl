// Mean and 1/√(variance + eps) of each group of channels over all positions of a row.
// x [row, position, c] -> stats [row][group] (mean, 1/deviation).
// One workgroup a row and group. Each invocation sums values less a common shift (the group's
// first value), which keeps the squares small; the parts are merged pairwise by Chan's formula, in
// a fixed order, so the result does not depend on how many rows are computed together.

struct Params {
    positions: u32,
    c4: u32,          // quads of all channels
    group_size: u32,  // channels of a group
    groups: u32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<elem4>;
@group(0) @binding(2) var<storage, read_write> stats: array<vec2<f32>>;

const SIZE = 64u;

// Count, mean and sum of squared deviations of a part.
var<workgroup> parts: array<vec3<f32>, SIZE>;

fn value(row: u32, position: u32, channel: u32) -> f32 {
    return load4(x[(row * p.positions + position) * p.c4 + channel / 4u])[channel % 4u];
}

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let group = wid.x;
    let row = wid.y;
    let first = group * p.group_size;
    let shift = value(row, 0u, first);
    var sum = 0.0;
    var squares = 0.0;
    var count = 0.0;
    for (var at = t; at < p.positions; at += SIZE) {
        for (var c = 0u; c < p.group_size; c++) {
            let d = value(row, at, first + c) - shift;
            sum += d;
            squares += d * d;
            count += 1.0;
        }
    }
    let mean = sum / max(count, 1.0);
    parts[t] = vec3<f32>(count, shift + mean, squares - sum * mean);
    workgroupBarrier();
    for (var half = SIZE / 2u; half > 0u; half /= 2u) {
        if t < half {
            let a = parts[t];
            let b = parts[t + half];
            let n = max(a.x + b.x, 1.0);
            let d = b.y - a.y;
            parts[t] = vec3<f32>(a.x + b.x, a.y + d * (b.x / n), a.z + b.z + d * d * (a.x * b.x / n));
        }
        workgroupBarrier();
    }
    if t == 0u {
        let whole = parts[0];
        stats[row * p.groups + group] = vec2<f32>(whole.y, inverseSqrt(max(whole.z, 0.0) / whole.x + p.eps));
    }
}
