// The last line and column of a 3×3 convolution of a map upsampled x2 that lacks its last odd line or column.
// The weights of conv2d have two taps added of which one sees what is left out, which counts as zero:
//
//   y = Σ over the stored positions that the window sees, minus what that tap would have added.
//
// That tap alone is the second one of odd results, whose weights are packed beside: each axis at its end
// has a third tap, subtracted. Overwrites what conv2d has made there. One invocation a quad, one
// workgroup a position: such positions are few, and such sizes rare.
// LINE, COLUMN: which of the two there is.
#import helpers/activation
#import cores/epilogue
#import cores/epilogue_inputs

@group(0) @binding(5) var<storage, read> w: array<elem4>;
@group(0) @binding(6) var<storage, read_write> x: array<elem4>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    // m and cells count positions of the edge here.
    let at = wid.z * p.groups_y + wid.y;
    let n = wid.x * 64u + t;
    if at >= p.m || n >= p.n4 {
        return;
    }
    let row = at / p.cells;
    let of_row = at % p.cells;
    let last = vec2<u32>(p.first_out + p.positions / p.out_width, p.out_width) - 1u;
    var place = vec2<u32>(last.x, of_row);
    if !LINE || of_row >= p.out_width {
        place = vec2<u32>(p.first_out + of_row - select(0u, p.out_width, LINE), last.y);
    }
    let ends = vec2<bool>(LINE, COLUMN) & (place == last);
    let taps = select(vec2<u32>(2u), vec2<u32>(3u), ends);
    var sum = vec4<f32>(0.0);
    for (var i = 0u; i < taps.x; i++) {
        for (var j = 0u; j < taps.y; j++) {
            let third = vec2<bool>(i == 2u, j == 2u);
            let tap = min(vec2<u32>(i, j), vec2<u32>(1u));
            let odd = select(place % 2u, vec2<u32>(1u), third);
            // Before the first line it wraps, and fails the same test as behind the last.
            let seen = (place + 1u) / 2u + tap - 1u;
            if seen.x >= p.in_height || seen.y >= p.in_width {
                continue;
            }
            let sign = select(1.0, -1.0, third.x != third.y);
            let base = ((row * p.in_height + seen.x - p.first_in) * p.in_width + seen.y) * p.c4;
            let k = (8u * odd.x + 4u * odd.y + 2u * tap.x + tap.y) * p.c4 * 4u;
            for (var c = 0u; c < p.c4; c++) {
                let v = load4(x[base + c]) * sign;
                let first_w = (k + 4u * c) * p.n4 + n;
                sum += v.x * load4(w[first_w]) + v.y * load4(w[first_w + p.n4]);
                sum += v.z * load4(w[first_w + 2u * p.n4]) + v.w * load4(w[first_w + 3u * p.n4]);
            }
        }
    }
    finish_at(row * p.positions + (place.x - p.first_out) * p.out_width + place.y, n, sum);
}
