// Count, mean and squared deviations of each group of channels over a span of a row's positions.
// x [row, position, c] -> parts [row][span][group], two pairs each (count, mean) (deviations, -);
// with WHOLE, where a row is one span, at once what group_norm_merge would make of them:
// [row][group] (mean, 1/deviation).
// One workgroup a row, span and group: spans keep a large map's groups from being 32 workgroups of
// which each runs for long. Each invocation sums values less a common shift (the span's first
// value), which keeps the squares small; nothing depends on how many rows are computed together.
// A group may begin and end inside a quad: whole quads are read and foreign channels masked.
#import shared/moments

struct Params {
    positions: u32,   // of a row, in x
    c4: u32,          // quads of all channels
    group_size: u32,  // channels of a group
    groups: u32,
    span: u32,        // positions of a span
    first_span: u32,  // the number of x's first span in the whole row
    spans: u32,       // of the whole row
    eps: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<elem4>;
@group(0) @binding(2) var<storage, read_write> stats: array<vec2<f32>>;

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let group = wid.x;
    let row = wid.z;
    let begin = wid.y * p.span;
    let to = min(begin + p.span, p.positions);
    let first = group * p.group_size;
    let end = first + p.group_size;
    let shift = load4(x[(row * p.positions + begin) * p.c4 + first / 4u])[first % 4u];
    var sum = vec4<f32>(0.0);
    var squares = vec4<f32>(0.0);
    for (var quad = first / 4u; quad * 4u < end; quad++) {
        let channel = quad * 4u + vec4<u32>(0u, 1u, 2u, 3u);
        let own = channel >= vec4<u32>(first) & channel < vec4<u32>(end);
        for (var at = begin + t; at < to; at += SIZE) {
            let v = load4(x[(row * p.positions + at) * p.c4 + quad]);
            let d = select(vec4<f32>(0.0), v - shift, own);
            sum += d;
            squares = fma(d, d, squares);
        }
    }
    let count = f32((to - begin + SIZE - 1u - t) / SIZE * p.group_size);
    let total = (sum.x + sum.y) + (sum.z + sum.w);
    let mean = total / max(count, 1.0);
    let deviations = (squares.x + squares.y) + (squares.z + squares.w) - total * mean;
    let whole = merge_all(t, vec3<f32>(count, shift + mean, deviations));
    if t != 0u {
        return;
    }
    if WHOLE {
        stats[row * p.groups + group] = normalizer(whole, p.eps);
    } else {
        let i = 2u * ((row * p.spans + p.first_span + wid.y) * p.groups + group);
        stats[i] = whole.xy;
        stats[i + 1u] = vec2<f32>(whole.z, 0.0);
    }
}
