// y = a + b; with BROADCAST, b is one position a row and is added at all of its positions.
#import helpers/grid

@group(0) @binding(1) var<storage, read_write> a: array<elem4>;
@group(0) @binding(2) var<storage, read_write> b: array<elem4>;
@group(0) @binding(3) var<storage, read_write> y: array<out4>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * p.width + id.x;
    if i < p.total {
        let row = i / p.a4 / p.positions;
        let j = select(i, row * p.a4 + i % p.a4, BROADCAST);
        y[i] = store_out(load4(a[i]) + load4(b[j]));
    }
}
