// Count, mean and squared deviations of each group of channels over a span of a row's positions, as
// group_norm_stats makes them, on CPU drivers: an invocation is a SIMD lane, and has a group to itself. No
// lane waits for another: there a barrier costs more than a small map's sums.
// x [row, position, c] -> parts [row][span][group], two pairs each (count, mean) (deviations, -);
// with WHOLE, where a row is one span, [row][group] (mean, 1/deviation).
// A group may begin and end inside a quad, which its neighbour then reads as well. BLOCK positions are summed
// less the mean of those before (at first, of the first position), which keeps the squares small, and merged
// with them.
#import helpers/moments

struct Params {
    positions: u32,     // of a row, in x
    c4: u32,            // quads of all channels
    group_size: u32,    // channels of a group
    groups: u32,
    span: u32,          // positions of a span
    first_span: u32,    // the number of x's first span in its row
    spans: u32,         // of a row
    eps: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<elem4>;
@group(0) @binding(2) var<storage, read_write> stats: array<vec2<f32>>;

const BLOCK = 32u;

// Which channels of a quad belong to the group.
fn inside(quad: u32, first: u32, behind: u32) -> vec4<bool> {
    let c = quad * 4u + vec4<u32>(0u, 1u, 2u, 3u);
    return (c >= vec4<u32>(first)) & (c < vec4<u32>(behind));
}

fn four(v: vec4<f32>) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}

@compute @workgroup_size(LANES)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let group = id.x;
    let row = id.z;
    if group >= p.groups {
        return;
    }
    let begin = id.y * p.span;
    let end = min(begin + p.span, p.positions);
    let first = group * p.group_size;
    let behind = first + p.group_size;
    let size = f32(p.group_size);
    var shift = 0.0;
    for (var quad = first / 4u; quad * 4u < behind; quad++) {
        let v = load4(x[(row * p.positions + begin) * p.c4 + quad]);
        shift += four(select(vec4<f32>(0.0), v, inside(quad, first, behind))) / size;
    }
    var own = vec3<f32>(0.0);
    for (var block = begin; block < end; block += BLOCK) {
        var sum = vec4<f32>(0.0);
        var square = vec4<f32>(0.0);
        let to = min(block + BLOCK, end);
        for (var at = block; at < to; at++) {
            for (var quad = first / 4u; quad * 4u < behind; quad++) {
                let v = load4(x[(row * p.positions + at) * p.c4 + quad]) - shift;
                let d = select(vec4<f32>(0.0), v, inside(quad, first, behind));
                sum += d;
                square = fma(d, d, square);
            }
        }
        let count = f32(to - block) * size;
        let total = four(sum);
        let deviations = max(four(square) - total * total / count, 0.0);
        own = merged(own, vec3<f32>(count, shift + total / count, deviations));
        shift = own.y;
    }
    if WHOLE {
        stats[row * p.groups + group] = normalizer(own, p.eps);
    } else {
        let i = 2u * ((row * p.spans + p.first_span + id.y) * p.groups + group);
        stats[i] = own.xy;
        stats[i + 1u] = vec2<f32>(own.z, 0.0);
    }
}
