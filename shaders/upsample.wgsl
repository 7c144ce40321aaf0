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
    // b4 is the width of y in positions.
    let quad = i % p.a4;
    let row = i / p.a4 / p.positions;
    let at = i / p.a4 % p.positions;
    let half_width = (p.b4 + 1u) / 2u;
    let half_height = (p.positions / p.b4 + 1u) / 2u;
    let line = row * half_height + (at / p.b4 + p.first_out) / 2u - p.first_in;
    y[i] = store_out(load4(x[(line * half_width + at % p.b4 / 2u) * p.a4 + quad]));
}
