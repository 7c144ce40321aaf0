// Doubles height and width, nearest: y[2i + di, 2j + dj] = x[i, j]. Only for the rare result that
// is not read by a convolution, which upsamples while it loads.
#import shared/grid

@group(0) @binding(1) var<storage, read_write> x: array<elem4>;
@group(0) @binding(2) var<storage, read_write> y: array<out4>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * p.width + id.x;
    if i >= p.total {
        return;
    }
    // b4 is the width of y in positions; halving the row number of all pictures together is
    // right because each has an even number of rows.
    let quad = i % p.a4;
    let column = i / p.a4 % p.b4;
    let line = i / p.a4 / p.b4;
    y[i] = store_out(load4(x[(line / 2u * (p.b4 / 2u) + column / 2u) * p.a4 + quad]));
}
