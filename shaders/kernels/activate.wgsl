// y = act(x), value by value.
#import helpers/activation
#import helpers/grid

@group(0) @binding(1) var<storage, read_write> x: array<elem4>;
@group(0) @binding(2) var<storage, read_write> y: array<out4>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * p.width + id.x;
    if i < p.total {
        y[i] = store_out(activate(load4(x[i]), ACTIVATION));
    }
}
