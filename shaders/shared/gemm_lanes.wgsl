// GEMM core for CPU drivers: each invocation is a SIMD lane with ROWS positions × QUADS quads in
// registers, no workgroup memory and no barrier. There a load costs as much as a dozen
// multiply-adds, whether lanes share its address or not, so the tile is large and nearly square
// in loads: per channel quad ROWS reads of x and 4·QUADS of w for 16·ROWS·QUADS multiply-adds.

const LANES = LANES_N * LANES_M;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let m0 = ((wid.z * p.groups_y + wid.y) * LANES_M + t / LANES_N) * ROWS;
    let n0 = wid.x * LANES_N * QUADS + t % LANES_N;

    // Quads past the last repeat it, and are not stored.
    var column: array<u32, QUADS>;
    for (var j = 0u; j < QUADS; j++) {
        column[j] = min(n0 + j * LANES_N, p.n4 - 1u);
    }
    var acc: array<array<vec4<f32>, QUADS>, ROWS>;
    for (var tap = 0u; tap < TAPS; tap++) {
        // Positions outside the picture read position 0 and count as zero.
        var base: array<u32, ROWS>;
        var keep: array<f32, ROWS>;
        for (var i = 0u; i < ROWS; i++) {
            let b = x_base(m0 + i, tap);
            base[i] = u32(max(b, 0));
            keep[i] = select(0.0, 1.0, b >= 0);
        }
        for (var c = 0u; c < p.c4; c++) {
            let k = ((w_tap(m0) + tap) * p.c4 + c) * 4u * p.n4;
            var a: array<vec4<f32>, ROWS>;
            for (var i = 0u; i < ROWS; i++) {
                a[i] = load4(x[base[i] + c]) * keep[i];
            }
            for (var j = 0u; j < QUADS; j++) {
                let w0 = load4(w[k + column[j]]);
                let w1 = load4(w[k + p.n4 + column[j]]);
                let w2 = load4(w[k + 2u * p.n4 + column[j]]);
                let w3 = load4(w[k + 3u * p.n4 + column[j]]);
                for (var i = 0u; i < ROWS; i++) {
                    let s0 = fma(vec4<f32>(a[i].x), w0, acc[i][j]);
                    let s1 = fma(vec4<f32>(a[i].y), w1, s0);
                    let s2 = fma(vec4<f32>(a[i].z), w2, s1);
                    acc[i][j] = fma(vec4<f32>(a[i].w), w3, s2);
                }
            }
        }
    }
    for (var i = 0u; i < ROWS; i++) {
        for (var j = 0u; j < QUADS; j++) {
            finish(m0 + i, n0 + j * LANES_N, acc[i][j]);
        }
    }
}
