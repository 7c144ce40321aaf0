// y = channels of a, then of b: the UNet's skip connections.
// a [position, a4], b [position, b4] -> y [position, a4 + b4], all in quads.
#import helpers/grid

@group(0) @binding(1) var<storage, read_write> a: array<elem4>;
@group(0) @binding(2) var<storage, read_write> b: array<elem4>;
@group(0) @binding(3) var<storage, read_write> y: array<out4>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * p.width + id.x;
    if i >= p.total {
        return;
    }
    let at = i / (p.a4 + p.b4);
    let quad = i % (p.a4 + p.b4);
    if quad < p.a4 {
        y[i] = store_out(load4(a[at * p.a4 + quad]));
    } else {
        y[i] = store_out(load4(b[at * p.b4 + quad - p.a4]));
    }
}
