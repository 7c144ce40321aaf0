// What stands around the sum of a product, and the parameters of all products.
//
//   y[m, n] = act( sum[m, n] + bias[n] + vector[row(m), n] ) + residual[m, n]
//
// m counts output positions over all rows, n output channels; channels go in quads.

struct Params {
    m: u32,          // output positions, all rows
    n4: u32,         // output quads
    c4: u32,         // input quads
    positions: u32,  // output positions of one row
    in_height: u32,  // as the kernel sees it: after the upsampling, if any
    in_width: u32,
    out_width: u32,
    stride: u32,
    pad: u32,
    groups_y: u32,   // row tiles are spread over y and z
    first_in: u32,   // where x and y are parts of a map: their first lines
    first_out: u32,
    vector_offset4: u32,  // the vector may be a slice of a longer one: its first quad
    vector_stride4: u32,  // from a row's to the next
    splits: u32,     // parts of the depth, each summed for itself: gemm_merge's SPLITS
    steps: u32,      // of the depth in a part
    part_m: u32,     // positions of a part's sums, and their quads
    part_n4: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> vector: array<elem4>;
@group(0) @binding(3) var<storage, read_write> residual: array<elem4>;
@group(0) @binding(4) var<storage, read_write> y: array<out4>;

fn finish(m: u32, n: u32, sum: vec4<f32>) {
    if m >= p.m || n >= p.n4 {
        return;
    }
    var v = sum;
    if HAS_BIAS {
        v += bias[n];
    }
    if HAS_VECTOR {
        v += load4(vector[m / p.positions * p.vector_stride4 + p.vector_offset4 + n]);
    }
    v = activate(v);
    if HAS_RESIDUAL {
        v += load4(residual[m * p.n4 + n]);
    }
    y[m * p.n4 + n] = store_out(v);
}
