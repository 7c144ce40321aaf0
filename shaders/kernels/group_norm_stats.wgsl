// Count, mean and squared deviations of each group of channels over a span of a row's positions.
// x [row, position, c] -> parts [row][span][group], two pairs each (count, mean) (deviations, -);
// with WHOLE, where a row is one span, at once what group_norm_merge would make of them:
// [row][group] (mean, 1/deviation).
// One workgroup a row, span and slice: as few groups as make whole quads, 32 bytes at least, so that
// neighbours read what lies together. An invocation sums one quad of channels at every LANESth
// position, less its value at the first one, which keeps the squares small; invocations are added
// up in two steps, channels merged into groups. A fixed order throughout: nothing depends on how
// many rows are computed together. A group may begin and end inside a quad.
#import helpers/moments

struct Params {
    positions: u32,     // of a row, in x
    c4: u32,            // quads of all channels
    group_size: u32,    // channels of a group
    groups: u32,
    slice4: u32,        // quads of a slice
    slice_groups: u32,
    span: u32,          // positions of a span
    first_span: u32,    // the number of x's first span in its row
    spans: u32,         // of a row
    eps: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<elem4>;
@group(0) @binding(2) var<storage, read_write> stats: array<vec2<f32>>;

const FOLD = 8u;   // lanes that are left after the first step

var<workgroup> sums: array<vec4<f32>, SIZE>;      // then means of channels
var<workgroup> squares: array<vec4<f32>, SIZE>;   // then their squared deviations

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let row = wid.z;
    let begin = wid.y * p.span;
    let to = min(begin + p.span, p.positions);
    let count = f32(to - begin);
    let width = min(p.slice4, SIZE);
    let lanes = SIZE / width;
    let lane = t / width;
    let end = (wid.x + 1u) * p.slice4;
    let group = wid.x * p.slice_groups + t;
    var own = vec3<f32>(0.0);   // of this invocation's group
    // Once, unless a group is wider than the workgroup.
    for (var first = wid.x * p.slice4; first < end; first += width) {
        let quad = first + t % width;
        let inside = lane < lanes && quad < min(end, p.c4);
        var shift = vec4<f32>(0.0);
        var sum = vec4<f32>(0.0);
        var square = vec4<f32>(0.0);
        if inside {
            shift = load4(x[(row * p.positions + begin) * p.c4 + quad]);
            // AT_ONCE of them on their way together.
            for (var at = begin + lane; at < to; at += AT_ONCE * lanes) {
                var d = array<vec4<f32>, AT_ONCE>();
                #repeat i AT_ONCE
                    let own_at = min(at + i * lanes, to - 1u);
                    d[i] = load4(x[(row * p.positions + own_at) * p.c4 + quad]) - shift;
                #end
                #repeat i AT_ONCE
                    if at + i * lanes < to {
                        sum += d[i];
                        square = fma(d[i], d[i], square);
                    }
                #end
            }
        }
        sums[t] = sum;
        squares[t] = square;
        workgroupBarrier();
        if lane < FOLD {
            for (var other = lane + FOLD; other < lanes; other += FOLD) {
                sums[t] += sums[other * width + t % width];
                squares[t] += squares[other * width + t % width];
            }
        }
        workgroupBarrier();
        if lane == 0u {
            for (var other = 1u; other < min(FOLD, lanes); other++) {
                sums[t] += sums[other * width + t];
                squares[t] += squares[other * width + t];
            }
            let mean = sums[t] / count;
            squares[t] -= sums[t] * mean;
            sums[t] = shift + mean;
        }
        workgroupBarrier();
        if t < p.slice_groups && group < p.groups {
            let from_channel = max(group * p.group_size, first * 4u);
            let to_channel = min((group + 1u) * p.group_size, (first + width) * 4u);
            for (var c = from_channel; c < to_channel; c++) {
                let at = c / 4u - first;
                own = merged(own, vec3<f32>(count, sums[at][c % 4u], squares[at][c % 4u]));
            }
        }
        workgroupBarrier();
    }
    if t >= p.slice_groups || group >= p.groups {
        return;
    }
    if WHOLE {
        stats[row * p.groups + group] = normalizer(own, p.eps);
    } else {
        let i = 2u * ((row * p.spans + p.first_span + wid.y) * p.groups + group);
        stats[i] = own.xy;
        stats[i + 1u] = vec2<f32>(own.z, 0.0);
    }
}
