// Cooperative matrices of 16×16×16 in plain WGSL, for devices without: the kernels that use them run
// anywhere, and are tested anywhere. Of 32 lanes each has half a row of an accumulator, of row lane / 2,
// with what that takes of the factors: the row of A, and half of all rows of B. Values are f32 in
// registers: one conversion a load. What loads and stores an array stands behind, one function for each
// array and kind of matrix: WGSL passes no pointers to parts of arrays.

struct MatrixA {
    row: array<vec4<f32>, 4>,
}

struct MatrixB {
    rows: array<array<vec4<f32>, 2>, 16>,
}

struct MatrixC {
    row: array<vec4<f32>, 2>,
}

var<private> matrix_row: u32;    // this lane's row of A and C,
var<private> matrix_half: u32;   // and which half of it, and of each row of B

fn multiply_add(a: MatrixA, b: MatrixB, c: MatrixC) -> MatrixC {
    var factors = a;
    var rows = b;
    var sum = c;
    for (var k = 0u; k < 16u; k++) {
        let x = factors.row[k / 4u][k % 4u];
        sum.row[0] += x * rows.rows[k][0];
        sum.row[1] += x * rows.rows[k][1];
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
