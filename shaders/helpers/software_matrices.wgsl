// Cooperative matrices of 16×16×16 in plain WGSL, for devices without: the kernels that use them run
// anywhere, and are tested anywhere. Each of 32 lanes has half a row of an accumulator, of row lane / 2,
// and the row of A that it takes; of B it keeps the address, and reads half of each row when it multiplies.
// The functions that load and store are generated behind this text, one for each array and kind of matrix, and
// row_of for all arrays that hold a B: WGSL passes no pointers to parts of arrays.
// Mesa's CPU driver ends every loop of an invocation, without a word, after 65,535 iterations of all its loops
// together: with 20 matrices a subgroup the K of a workgroup may be 3,200.

struct MatrixA {
    row: array<vec4<f32>, 4>,
}

// Not read into registers, nor its rows written out: what compiles shaders on a CPU takes longer the longer
// they are, out of proportion, and those with many matrices took a minute.
struct MatrixB {
    array: u32,
    at: u32,
    stride: u32,
}

struct MatrixC {
    row: array<vec4<f32>, 2>,
}

var<private> matrix_row: u32;    // this lane's row of A and C,
var<private> matrix_half: u32;   // and which half of it, and of each row of B
var<private> matrix_depth: u32;  // 16, not known to a compiler, which would write the loop out

fn multiply_add(a: MatrixA, b: MatrixB, c: MatrixC) -> MatrixC {
    var x = a.row;
    var sum = c;
    for (var k = 0u; k < matrix_depth; k++) {
        let row = row_of(b, k);
        sum.row[0] += x[0].x * row[0];
        sum.row[1] += x[0].x * row[1];
        // The next factor to the front: what is read at a variable place is looked for, branch by branch.
        x[0] = vec4<f32>(x[0].yzw, x[1].x);
        x[1] = vec4<f32>(x[1].yzw, x[2].x);
        x[2] = vec4<f32>(x[2].yzw, x[3].x);
        x[3] = vec4<f32>(x[3].yzw, 0.0);
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
