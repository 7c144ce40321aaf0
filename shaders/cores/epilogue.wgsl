// The epilogue of a product's sum, and the parameters of all products.
//
//   y[m, n] = act( sum[m, n] + bias[n] + vector[row(m), n] ) + residual[m, n]
//
// m counts output positions over all rows, n output channels; channels go in quads.
// UPSAMPLED: of a convolution of a map upsampled x2, results on even and odd lines and columns are four products,
// the phases, that have weights of their own: m counts the stored positions of all rows, once for each
// phase, from multiples of phase_m on.

struct Params {
    m: u32,          // output positions, all rows, of all phases
    n4: u32,         // output quads
    c4: u32,         // input quads
    positions: u32,  // output positions of one row
    cells: u32,      // UPSAMPLED: stored positions of one row, and where phases begin
    phase_m: u32,
    in_height: u32,  // as stored
    in_width: u32,
    out_width: u32,
    stride: u32,
    pad: u32,
    groups_y: u32,   // row tiles are spread over y and z
    first_in: u32,   // where x and y are parts of a map: their first lines
    first_out: u32,
    vector_offset4: u32,  // the vector may be a slice of a longer one: its first quad
    vector_stride4: u32,  // from a row's to the next
    splits: u32,     // parts of K, each summed for itself: gemm_merge's SPLITS
    steps: u32,      // through K in a part
    rows: u32,
    part_m: u32,     // positions of a part's sums, for gemm_simd of its tile's, and their quads
    part_n4: u32,
    epilogue_inputs: u32,  // what gemm_simd adds, chosen at run time: bits for bias, vector, residual
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> vector: array<elem4>;
@group(0) @binding(3) var<storage, read_write> residual: array<elem4>;
@group(0) @binding(4) var<storage, read_write> y: array<out4>;

// The position that row m of a product of an upsampled map computes.
struct Cell {
    row: u32,
    line: u32,      // of the result
    column: u32,
    inside: bool,
}

fn cell(m: u32) -> Cell {
    let phase = m / p.phase_m;
    let at = m % p.phase_m;
    let of_row = at % p.cells;
    let line = (p.first_out / 2u + of_row / p.in_width) * 2u + phase / 2u;
    let column = of_row % p.in_width * 2u + phase % 2u;
    // A first line may be the odd one of two; a last line or column may be left out.
    let lines = p.positions / p.out_width;
    let inside = line >= p.first_out && line < p.first_out + lines && column < p.out_width;
    let row = at / p.cells;
    return Cell(row, line, column, inside && row < p.rows);
}

// The position of y that row m computes, or -1 if there is none.
fn place_of(m: u32) -> i32 {
    if m >= p.m {
        return -1;
    }
    if UPSAMPLED {
        let c = cell(m);
        let place = c.row * p.positions + (c.line - p.first_out) * p.out_width + c.column;
        return select(-1, i32(place), c.inside);
    }
    return i32(m);
}

fn finished(sum: vec4<f32>, of_bias: vec4<f32>, of_vector: elem4, of_residual: elem4) -> vec4<f32> {
    var v = sum;
    if has_bias() {
        v += of_bias;
    }
    if has_vector() {
        v += load4(of_vector);
    }
    v = activate(v, activation());
    if has_residual() {
        v += load4(of_residual);
    }
    return v;
}

fn finish(m: u32, n: u32, sum: vec4<f32>) {
    let place = place_of(m);
    if place >= 0 && n < p.n4 {
        finish_at(u32(place), n, sum);
    }
}

// The same for a position of y.
fn finish_at(m: u32, n: u32, sum: vec4<f32>) {
    var of_bias = vec4<f32>();
    var of_vector = elem4();
    var of_residual = elem4();
    if has_bias() {
        of_bias = bias_at(n);
    }
    if has_vector() {
        of_vector = vector[vector_at(m) + n];
    }
    if has_residual() {
        of_residual = residual[m * p.n4 + n];
    }
    y[m * p.n4 + n] = store_out(finished(sum, of_bias, of_vector, of_residual));
}
