// GEMM core for CPU drivers: each invocation is a SIMD lane with ROWS positions × one quad, no
// workgroup memory and no barrier. Neighbouring lanes take neighbouring quads, so x is the same
// for all of them. Measured on software Vulkan: 60 times a naive kernel.

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let m0 = (wid.z * p.groups_y + wid.y) * ROWS;
    let n = wid.x * LANES + t;
    // Lanes past the last quad repeat it and store nothing.
    let col = min(n, p.n4 - 1u);

    var acc: array<vec4<f32>, ROWS>;
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
            let k = (tap * p.c4 + c) * 4u * p.n4 + col;
            let w0 = load4(w[k]);
            let w1 = load4(w[k + p.n4]);
            let w2 = load4(w[k + 2u * p.n4]);
            let w3 = load4(w[k + 3u * p.n4]);
            for (var i = 0u; i < ROWS; i++) {
                let a = load4(x[base[i] + c]) * keep[i];
                acc[i] += a.x * w0 + a.y * w1 + a.z * w2 + a.w * w3;
            }
        }
    }
    for (var i = 0u; i < ROWS; i++) {
        finish(m0 + i, n, acc[i]);
    }
}
