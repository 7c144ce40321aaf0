// What stands around the sum of a product, and the parameters of all products.
//
//   y[m, n] = act( sum[m, n] + bias[n] + vector[row(m), n] ) + residual[m, n]
//
// m counts output positions over all rows, n output channels; channels go in quads.
// DOUBLED: of a convolution of a doubled map, results on even and odd lines and columns are four products,
// the phases, that have weights of their own: m counts the stored positions of all rows, once for each
// phase, from multiples of phase_m on.

struct Params {
    m: u32,          // output positions, all rows, of all phases
    n4: u32,         // output quads
    c4: u32,         // input quads
    positions: u32,  // output positions of one row
    cells: u32,      // DOUBLED: stored positions of one row, and where phases begin
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
    splits: u32,     // parts of the depth, each summed for itself: gemm_merge's SPLITS
    steps: u32,      // of the depth in a part
    rows: u32,
    part_m: u32,     // positions of a part's sums, for gemm_lanes of its tile's, and their quads
    part_n4: u32,
    surrounds: u32,  // what gemm_lanes is told of at run time: bits for bias, vector, residual;
    activation: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> vector: array<elem4>;
@group(0) @binding(3) var<storage, read_write> residual: array<elem4>;
@group(0) @binding(4) var<storage, read_write> y: array<out4>;

// What row m of a product of a doubled map stands for.
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

fn finish(m: u32, n: u32, sum: vec4<f32>) {
    if m >= p.m || n >= p.n4 {
        return;
    }
    if DOUBLED {
        let c = cell(m);
        if c.inside {
            finish_at(c.row * p.positions + (c.line - p.first_out) * p.out_width + c.column, n, sum);
        }
    } else {
        finish_at(m, n, sum);
    }
}

// The same for a position of y.
fn finish_at(m: u32, n: u32, sum: vec4<f32>) {
    var v = sum;
    if has_bias() {
        v += bias[n];
    }
    if has_vector() {
        v += load4(vector[m / p.positions * p.vector_stride4 + p.vector_offset4 + n]);
    }
    v = activate(v, activation());
    if has_residual() {
        v += load4(residual[m * p.n4 + n]);
    }
    y[m * p.n4 + n] = store_out(v);
}
