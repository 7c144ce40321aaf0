// y = (x - mean) / √(variance + eps) · gamma + beta over the channels at each position.
// x, y [position, c]; gamma, beta [c], f32.
// SPLIT invocations share a position: 32 on a GPU (loads of neighbours), 1 on a CPU driver, where
// an invocation is a SIMD lane and a barrier costs more than the sum. SIZE invocations are a workgroup.

struct Params {
    positions: u32,   // of all rows
    c4: u32,
    channels: f32,
    eps: f32,
    groups_x: u32,    // workgroups in one y of the grid
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> gamma: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> beta: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> x: array<elem4>;
@group(0) @binding(4) var<storage, read_write> y: array<out4>;

var<workgroup> parts: array<f32, SIZE>;

// Sum over the SPLIT invocations of a position, in a fixed order; all receive it.
fn total(t: u32, v: f32) -> f32 {
    if SPLIT == 1u {
        return v;
    }
    workgroupBarrier();
    parts[t] = v;
    workgroupBarrier();
    for (var half = SPLIT / 2u; half > 0u; half /= 2u) {
        if t % SPLIT < half {
            parts[t] += parts[t + half];
        }
        workgroupBarrier();
    }
    return parts[t - t % SPLIT];
}

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let wanted = (wid.y * p.groups_x + wid.x) * (SIZE / SPLIT) + t / SPLIT;
    let lane = t % SPLIT;
    // Positions past the end repeat the last one: all invocations must meet the barriers.
    let at = min(wanted, p.positions - 1u);
    var sum = vec4<f32>(0.0);
    for (var c = lane; c < p.c4; c += SPLIT) {
        sum += load4(x[at * p.c4 + c]);
    }
    let mean = total(t, sum.x + sum.y + sum.z + sum.w) / p.channels;
    var squares = vec4<f32>(0.0);
    for (var c = lane; c < p.c4; c += SPLIT) {
        let d = load4(x[at * p.c4 + c]) - mean;
        squares += d * d;
    }
    let variance = total(t, squares.x + squares.y + squares.z + squares.w) / p.channels;
    let scale = inverseSqrt(variance + p.eps);
    if wanted >= p.positions {
        return;
    }
    for (var c = lane; c < p.c4; c += SPLIT) {
        let v = (load4(x[at * p.c4 + c]) - mean) * scale;
        y[at * p.c4 + c] = store_out(v * gamma[c] + beta[c]);
    }
}
