// y = value · gelu(gate): x [position, 2c] holds the values, then the gates; y [position, c].
#import helpers/activation
#import helpers/grid

@group(0) @binding(1) var<storage, read_write> x: array<elem4>;
@group(0) @binding(2) var<storage, read_write> y: array<out4>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * p.width + id.x;
    if i < p.total {
        let at = i / p.b4 * p.a4 + i % p.b4;
        y[i] = store_out(load4(x[at]) * gelu(load4(x[at + p.b4])));
    }
}
