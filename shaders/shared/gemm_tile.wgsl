// GEMM core for GPUs: a 64×64 tile of y by 64 invocations (8×8), each 8 positions × 2 quads in
// registers: 64 multiply-adds for four 16-byte reads of workgroup memory. The depth goes in steps
// of 16 channels through two tiles of 4 KiB, half of what every device offers. Both tiles hold
// quads; x is transposed on the way in, four positions at a time, so that neither side is ever
// read or written in single values.

const STEP4 = 4u;   // input quads a step

var<workgroup> tile_x: array<vec4<f32>, 256>;   // [channel 16][position / 4, 16]
var<workgroup> tile_w: array<vec4<f32>, 256>;   // [channel 16][output quad, 16]

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let m0 = (wid.z * p.groups_y + wid.y) * 64u;
    let n0 = wid.x * 16u;
    // What this invocation brings in: one quad of four positions of x, four quads of w.
    let load_m = t / 4u;
    let load_c = t % 4u;
    let load_n = t % 16u;
    // What it computes: positions 8·ty.., quads tx and tx + 8.
    let tx = t % 8u;
    let ty = t / 8u;

    var acc: array<vec4<f32>, 16>;
    for (var tap = 0u; tap < TAPS; tap++) {
        var base: array<i32, 4>;
        for (var i = 0u; i < 4u; i++) {
            base[i] = x_base(m0 + load_m * 4u + i, tap);
        }
        for (var c0 = 0u; c0 < p.c4; c0 += STEP4) {
            let c = c0 + load_c;
            var a: mat4x4<f32>;
            for (var i = 0u; i < 4u; i++) {
                a[i] = vec4<f32>(0.0);
                if base[i] >= 0 && c < p.c4 {
                    a[i] = load4(x[u32(base[i]) + c]);
                }
            }
            a = transpose(a);
            for (var i = 0u; i < 4u; i++) {
                tile_x[(load_c * 4u + i) * 16u + load_m] = a[i];
            }
            for (var i = 0u; i < 4u; i++) {
                let k = t / 16u + i * 4u;
                var b = vec4<f32>(0.0);
                if c0 * 4u + k < p.c4 * 4u && n0 + load_n < p.n4 {
                    b = load4(w[((tap * p.c4 + c0) * 4u + k) * p.n4 + n0 + load_n]);
                }
                tile_w[k * 16u + load_n] = b;
            }
            workgroupBarrier();
            for (var k = 0u; k < 16u; k++) {
                let a0 = tile_x[k * 16u + ty * 2u];
                let a1 = tile_x[k * 16u + ty * 2u + 1u];
                let b0 = tile_w[k * 16u + tx];
                let b1 = tile_w[k * 16u + tx + 8u];
                for (var i = 0u; i < 4u; i++) {
                    acc[i] += a0[i] * b0;
                    acc[i + 4u] += a1[i] * b0;
                    acc[i + 8u] += a0[i] * b1;
                    acc[i + 12u] += a1[i] * b1;
                }
            }
            workgroupBarrier();
        }
    }
    for (var i = 0u; i < 8u; i++) {
        finish(m0 + ty * 8u + i, n0 + tx, acc[i]);
        finish(m0 + ty * 8u + i, n0 + tx + 8u, acc[i + 8u]);
    }
}
