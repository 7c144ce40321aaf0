// GEMM core for results of one quad of channels, as a network's last convolution has: LANES
// invocations share POSITIONS positions, each with every LANESth quad of the input, so that
// neighbours read neighbouring quads and weights are fetched once for all positions; a larger tile
// of y would be mostly padding. Their sums meet in workgroup memory, in a fixed order.
// 64×64 positions, 320 channels, on an H100: 64×64 tiles of gemm_tile take 340 µs.
#import cores/epilogue_inputs

@group(0) @binding(5) var<storage, read> w: array<wide>;

const LANES = 32u;
const POSITIONS = 4u;
const SIZE = 128u;

var<workgroup> sums: array<array<vec4<f32>, POSITIONS>, SIZE>;

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let lane = t % LANES;
    let m0 = ((wid.z * p.groups_y + wid.y) * (SIZE / LANES) + t / LANES) * POSITIONS;
    var acc = array<vec4<f32>, POSITIONS>();
    for (var tap = 0u; tap < TAPS; tap++) {
        var base = array<i32, POSITIONS>();
        for (var i = 0u; i < POSITIONS; i++) {
            base[i] = x_base(m0 + i, tap);
        }
        for (var c = lane; c < p.c4; c += LANES) {
            let k = ((w_tap(m0) + tap) * p.c4 + c) * 4u;
            let weight = mat4x4<f32>(load4(w[k]), load4(w[k + 1u]), load4(w[k + 2u]), load4(w[k + 3u]));
            for (var i = 0u; i < POSITIONS; i++) {
                if base[i] >= 0 {
                    acc[i] += weight * load4(x[u32(base[i]) + c]);
                }
            }
        }
    }
    sums[t] = acc;
    workgroupBarrier();
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        if lane < half {
            for (var i = 0u; i < POSITIONS; i++) {
                sums[t][i] += sums[t + half][i];
            }
        }
        workgroupBarrier();
    }
    if lane < POSITIONS {
        finish(m0 + lane, 0u, sums[t - lane][lane]);
    }
}
