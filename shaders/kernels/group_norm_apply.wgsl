// y = act((x - mean) / deviation · gamma + beta), with the statistics of group_norm_stats.
// x, y [row, position, c]; stats [row][group]; gamma, beta [c], f32.
// One invocation takes a quad of channels at SPAN positions, so that what belongs to the channels
// is fetched once for all of them; neighbours take neighbouring quads.
#import helpers/activation

struct Params {
    total: u32,       // invocations
    c4: u32,
    positions: u32,
    spans: u32,       // stretches of SPAN positions in a row
    group_size: u32,
    groups: u32,
    width: u32,       // invocations in one y of the grid
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> gamma: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> beta: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> x: array<elem4>;
@group(0) @binding(4) var<storage, read_write> stats: array<vec2<f32>>;
@group(0) @binding(5) var<storage, read_write> y: array<out4>;

@compute @workgroup_size(SIZE)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * p.width + id.x;
    if i >= p.total {
        return;
    }
    let quad = i % p.c4;
    let row = i / p.c4 / p.spans;
    // A group may be narrower than a quad: each channel finds its own.
    let g = (vec4<u32>(0u, 1u, 2u, 3u) + quad * 4u) / p.group_size + row * p.groups;
    let s0 = stats[g.x];
    let s1 = stats[g.y];
    let s2 = stats[g.z];
    let s3 = stats[g.w];
    let mean = vec4<f32>(s0.x, s1.x, s2.x, s3.x);
    let scale = vec4<f32>(s0.y, s1.y, s2.y, s3.y) * gamma[quad];
    let shift = beta[quad];
    let first = i / p.c4 % p.spans * SPAN;
    for (var at = first; at < min(first + SPAN, p.positions); at++) {
        let k = (row * p.positions + at) * p.c4 + quad;
        y[k] = store_out(activate((load4(x[k]) - mean) * scale + shift, ACTIVATION));
    }
}
