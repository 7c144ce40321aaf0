// Cooperative matrices of SIDE×SIDE×SIDE in plain WGSL, for devices without them or with others: the kernels that use
// them run anywhere, and are tested anywhere. Each of LANES lanes has VECTORS vectors of a row of an accumulator, and
// the row of A that it takes; of B it keeps the address, and reads its part of each row when it multiplies. Of small
// matrices the vectors are fewer than the lanes: then several lanes do the same.
// The functions that load and store are generated behind this text, one for each array and kind of matrix, and
// row_of for all arrays that hold a B: WGSL passes no pointers to parts of arrays.
// Mesa's CPU driver ends every loop of an invocation, without a word, after 65,535 iterations of all its loops
// together: with 20 matrices a subgroup the K of a workgroup may be 3,200.

const VECTORS = max(SIDE * SIDE / 4u / LANES, 1u);
const PER_ROW = SIDE / 4u / VECTORS;      // lanes of a row

struct MatrixA {
    row: array<vec4<f32>, SIDE / 4u>,
}

// Not read into registers, nor its rows written out: what compiles shaders on a CPU takes longer the longer
// they are, out of proportion, and those with many matrices took a minute.
struct MatrixB {
    array: u32,
    at: u32,
    stride: u32,
}

struct MatrixC {
    row: array<vec4<f32>, VECTORS>,
}

var<private> matrix_row: u32;    // this lane's row of A and C,
var<private> matrix_first: u32;  // and its first vector there, and of each row of B
var<private> matrix_depth: u32;  // SIDE, not known to a compiler, which would write the loop out

fn begin_matrices(t: u32, zero: u32) {
    let lane = t % LANES % (SIDE * PER_ROW);
    matrix_row = lane / PER_ROW;
    matrix_first = lane % PER_ROW * VECTORS;
    matrix_depth = SIDE + zero;
}

fn multiply_add(a: MatrixA, b: MatrixB, c: MatrixC) -> MatrixC {
    var x = a.row;
    var sum = c;
    for (var k = 0u; k < matrix_depth; k++) {
        let row = row_of(b, k);
        sum.row[0] += x[0].x * row[0];
        if VECTORS == 2u {
            sum.row[VECTORS - 1u] += x[0].x * row[VECTORS - 1u];
        }
        // The next factor to the front: what is read at a variable place is looked for, branch by branch.
        #repeat i QUADS
            if i + 1u < QUADS {
                x[i] = vec4<f32>(x[i].yzw, x[min(i + 1u, QUADS - 1u)].x);
            } else {
                x[i] = vec4<f32>(x[i].yzw, 0.0);
            }
        #end
    }
    return sum;
}

var<workgroup> is_any: atomic<u32>;

fn any_of_workgroup(mine: bool) -> bool {
    atomicStore(&is_any, 0u);
    workgroupBarrier();
    if mine {
        atomicStore(&is_any, 1u);
    }
    workgroupBarrier();
    let any = atomicLoad(&is_any) != 0u;
    workgroupBarrier();
    return any;
}
