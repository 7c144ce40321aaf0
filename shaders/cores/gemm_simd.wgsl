// GEMM core for CPU drivers: each invocation is a SIMD lane with ROWS positions × QUADS quads in
// registers, no barrier. There a vector multiply-add takes a cycle, and a load several hundred, lane by
// lane and word by word, even where all lanes read one address. So lanes share what they load of x: each
// reads its part of ROWS positions, SHARED of them, and broadcasts it (helpers/of_lane); w, which
// lies apart for each, comes two words at a time. Per channel quad that is ROWS / SHARED loads of x and
// 4·QUADS of w for 16·ROWS·QUADS multiply-adds. Most weights that a file has in f16 stay so beside x in f32: a
// quad of them is one word instead of two (types/weight; the embedded model's picture took 8.2 s of two
// cores' time instead of 9.6).
// All of the sum is unrolled, and what compiles shaders there takes as long as the text is: the
// epilogue's inputs are chosen at run time (p.epilogue_inputs), once for all of the tile, which passes through
// workgroup memory, each lane its own.
#import types/weight
#import helpers/of_lane

@group(0) @binding(5) var<storage, read> w: array<weight>;

var<workgroup> sums: array<vec4<f32>, ROWS * QUADS * LANES>;

fn has_bias() -> bool {
    return (p.epilogue_inputs & 1u) != 0u;
}

fn has_vector() -> bool {
    return (p.epilogue_inputs & 2u) != 0u;
}

fn has_residual() -> bool {
    return (p.epilogue_inputs & 4u) != 0u;
}

// A branch does not save an activation: lanes that do not need it compute it too. It has a kernel of its
// own here.
fn activation() -> u32 {
    return 0u;
}

// The bias of the column that is being finished, and where the vector of the row begins.
var<private> column_bias: vec4<f32>;
var<private> row_vector: u32;

fn bias_at(n: u32) -> vec4<f32> {
    return column_bias;
}

fn vector_at(m: u32) -> u32 {
    return row_vector;
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let m0 = (wid.z * p.groups_y + wid.y) * ROWS;
    let n0 = wid.x * LANES * QUADS + t;

    // Quads past the last repeat it, and are not stored.
    var column = array<u32, QUADS>();
    #repeat j QUADS
        column[j] = min(n0 + j * LANES, p.n4 - 1u);
    #end
    var acc = array<array<vec4<f32>, QUADS>, ROWS>();
    for (var tap = 0u; tap < TAPS; tap++) {
        // Positions outside the picture read position 0 and count as zero.
        var base = array<u32, HELD>();
        var keep = array<f32, HELD>();
        #repeat h HELD
            let b = x_base(m0 + h * SHARED + t % SHARED, tap);
            base[h] = u32(max(b, 0));
            keep[h] = select(0.0, 1.0, b >= 0);
        #end
        for (var c = 0u; c < p.c4; c++) {
            let k = ((w_tap(m0) + tap) * p.c4 + c) * 4u * p.n4;
            var a = array<vec4<f32>, HELD>();
            #repeat h HELD
                a[h] = load_wide(x[base[h] + c]) * keep[h];
            #end
            var b = array<array<vec4<f32>, 4>, QUADS>();
            #repeat j QUADS
                b[j][0] = load_weight(w[k + column[j]]);
                b[j][1] = load_weight(w[k + p.n4 + column[j]]);
                b[j][2] = load_weight(w[k + 2u * p.n4 + column[j]]);
                b[j][3] = load_weight(w[k + 3u * p.n4 + column[j]]);
            #end
            #repeat i ROWS
                let r = of_lane(a[i / SHARED], i % SHARED);
                #repeat j QUADS
                    let s0 = fma(vec4<f32>(r.x), b[j][0], acc[i][j]);
                    let s1 = fma(vec4<f32>(r.y), b[j][1], s0);
                    let s2 = fma(vec4<f32>(r.z), b[j][2], s1);
                    acc[i][j] = fma(vec4<f32>(r.w), b[j][3], s2);
                #end
            #end
        }
    }
    #repeat i ROWS
        #repeat j QUADS
            sums[(i * QUADS + j) * LANES + t] = acc[i][j];
        #end
    #end
    // Rows follow each other: one division finds where they begin, which takes as long as a dozen products.
    let cell = m0 % p.phase_m;
    let first_row = cell / p.cells * p.vector_stride4 + p.vector_offset4;
    // QUADS and ROWS, as parameters: a loop of known length would be written out, and compile for minutes.
    for (var j = 0u; j < p.part_n4; j++) {
        let n = n0 + j * LANES;
        if has_bias() && n < p.n4 {
            column_bias = bias[n];
        }
        row_vector = first_row;
        var left = p.cells - cell % p.cells;
        for (var i = 0u; i < p.part_m; i++) {
            finish(m0 + i, n, sums[(i * QUADS + j) * LANES + t]);
            left -= 1u;
            if left == 0u {
                left = p.cells;
                row_vector += p.vector_stride4;
            }
        }
    }
}
