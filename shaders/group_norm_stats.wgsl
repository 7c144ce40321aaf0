// Mean and 1/√(variance + eps) of each group of channels over all positions of a row.
// x [row, position, c] -> stats [row][group] (mean, 1/deviation).
// One workgroup a row and group. Each invocation sums values less a common shift (the group's
// first value), which keeps the squares small; the parts are merged pairwise by Chan's formula, in
// a fixed order, so the result does not depend on how many rows are computed together.
// A group may begin and end inside a quad: whole quads are read and foreign channels masked.

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

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let group = wid.x;
    let row = wid.y;
    let first = group * p.group_size;
    let end = first + p.group_size;
    let shift = load4(x[row * p.positions * p.c4 + first / 4u])[first % 4u];
    var sum = vec4<f32>(0.0);
    var squares = vec4<f32>(0.0);
    for (var quad = first / 4u; quad * 4u < end; quad++) {
        let channel = quad * 4u + vec4<u32>(0u, 1u, 2u, 3u);
        let own = channel >= vec4<u32>(first) & channel < vec4<u32>(end);
        for (var at = t; at < p.positions; at += SIZE) {
            let v = load4(x[(row * p.positions + at) * p.c4 + quad]);
            let d = select(vec4<f32>(0.0), v - shift, own);
            sum += d;
            squares = fma(d, d, squares);
        }
    }
    let positions = (p.positions + SIZE - 1u - t) / SIZE;
    let count = f32(positions * p.group_size);
    let total = (sum.x + sum.y) + (sum.z + sum.w);
    let mean = total / max(count, 1.0);
    let deviations = (squares.x + squares.y) + (squares.z + squares.w) - total * mean;
    parts[t] = vec3<f32>(count, shift + mean, deviations);
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
