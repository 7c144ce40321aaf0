// y = x blurred along one axis of its map, channel by channel:
//   y[i] = sum_k w_k x[reflect(i + k)],  w_k = exp(-k^2 / 2 sigma^2) / sum of all,  k = -reach .. reach
// or, with MEAN, what that tends to for wide blurs on a whole line: y[i] = sum_j x[j] / length.
// x, y [row, line or column.., c4] in quads; neighbours along the axis are `stride` positions apart.
// Edges are reflected without repeating them; reach is at most half of the axis.
//
// One invocation a quad and no shared memory: maps are those of a UNet's middle block, a few hundred
// positions, and the two dispatches of a blur are far below a percent of a network call.

struct Params {
    total: u32,    // quads, all rows
    width: u32,    // invocations in one y of the grid
    c4: u32,       // quads of a position
    length: u32,   // positions along the axis
    stride: u32,   // from one to the next
    reach: u32,    // taps on each side of the centre
    sigma: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<elem4>;
@group(0) @binding(2) var<storage, read_write> y: array<out4>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * p.width + id.x;
    if i >= p.total {
        return;
    }
    let step = p.stride * p.c4;
    let at = i / p.c4 / p.stride % p.length;
    let line = i - at * step;
    var sum = vec4<f32>();
    if MEAN {
        for (var j = 0u; j < p.length; j += 1u) {
            sum += load4(x[line + j * step]);
        }
        y[i] = store_out(sum / f32(p.length));
        return;
    }
    let last = i32(p.length) - 1;
    let reach = i32(p.reach);
    var weights = 0.0;
    for (var k = -reach; k <= reach; k += 1) {
        let inside = abs(i32(at) + k);
        let nearest = select(inside, 2 * last - inside, inside > last);
        let distance = f32(k) / p.sigma;
        let w = exp(-0.5 * distance * distance);
        weights += w;
        sum += w * load4(x[line + u32(nearest) * step]);
    }
    y[i] = store_out(sum / weights);
}
