// y = some of the channels of x: the values of a merged projection, or its queries.
// x [position, a4] -> y [position, b4], all in quads, from quad first4 of x on.
#import helpers/grid

@group(0) @binding(1) var<storage, read_write> x: array<elem4>;
@group(0) @binding(2) var<storage, read_write> y: array<out4>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * p.width + id.x;
    if i >= p.total {
        return;
    }
    y[i] = store_out(load4(x[i / p.b4 * p.a4 + p.first4 + i % p.b4]));
}
