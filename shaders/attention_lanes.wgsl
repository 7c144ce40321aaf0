// Attention for CPU drivers: o_i = Σ_j softmax_j(q_i·k_j/√d) v_j. Each invocation is a SIMD lane
// with QUERIES queries and their sums in registers; keys come four at a time with a running
// maximum (no T×T buffer), so that one exponential rescales for four keys and each key and value
// is read once for all of the lane's queries. Loops over the depth run in blocks of BLOCK, which a
// compiler unrolls: Mesa's CPU driver ends every loop of an invocation, without a word, after
// 65,535 iterations of all its loops together.
// o [row, token, head·d]; lse [row, token, head] = log Σ_j exp(q_i·k_j/√d), if RECORD.
#import shared/attention_quads

@group(0) @binding(3) var<storage, read_write> o: array<out4>;
@group(0) @binding(4) var<storage, read_write> lse: array<f32>;

const KEYS = 4u;
const NONE = -1e30;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let i0 = (wid.x * LANES + t) * QUERIES;
    let head = wid.y;
    let row = wid.z;
    if i0 >= p.queries {
        return;
    }
    var qi: array<array<vec4<f32>, DIM4>, QUERIES>;
    var sum: array<array<vec4<f32>, DIM4>, QUERIES>;
    var top: array<f32, QUERIES>;
    var weight: array<f32, QUERIES>;
    for (var a = 0u; a < QUERIES; a++) {
        top[a] = NONE;
        for (var d = 0u; d < DIM4; d++) {
            // Queries past the end repeat the last and are not stored.
            qi[a][d] = query(row, min(i0 + a, p.queries - 1u), head, d) * p.scale;
        }
    }
    let end = select(p.keys, min(p.keys, i0 + QUERIES), CAUSAL);
    for (var j0 = 0u; j0 < end; j0 += KEYS) {
        var s: array<array<f32, KEYS>, QUERIES>;
        for (var b = 0u; b < KEYS; b++) {
            let j = min(j0 + b, p.keys - 1u);
            var dots: array<vec4<f32>, QUERIES>;
            for (var d0 = 0u; d0 < DIM4; d0 += BLOCK) {
                for (var e = 0u; e < BLOCK; e++) {
                    let d = d0 + e;
                    let k = key(row, j, head, d);
                    for (var a = 0u; a < QUERIES; a++) {
                        dots[a] = fma(qi[a][d], k, dots[a]);
                    }
                }
            }
            for (var a = 0u; a < QUERIES; a++) {
                let seen = j0 + b < p.keys && (!CAUSAL || j0 + b <= i0 + a);
                let v = (dots[a].x + dots[a].y) + (dots[a].z + dots[a].w);
                s[a][b] = select(NONE, v, seen);
            }
        }
        for (var a = 0u; a < QUERIES; a++) {
            let higher = max(max(top[a], max(s[a][0], s[a][1])), max(s[a][2], s[a][3]));
            let shrink = exp(top[a] - higher);
            top[a] = higher;
            weight[a] *= shrink;
            for (var d0 = 0u; d0 < DIM4; d0 += BLOCK) {
                for (var e = 0u; e < BLOCK; e++) {
                    let d = d0 + e;
                    sum[a][d] *= shrink;
                }
            }
            for (var b = 0u; b < KEYS; b++) {
                s[a][b] = exp(s[a][b] - higher);
                weight[a] += s[a][b];
            }
        }
        for (var b = 0u; b < KEYS; b++) {
            let j = min(j0 + b, p.keys - 1u);
            for (var d0 = 0u; d0 < DIM4; d0 += BLOCK) {
                for (var e = 0u; e < BLOCK; e++) {
                    let d = d0 + e;
                    let v = value(row, j, head, d);
                    for (var a = 0u; a < QUERIES; a++) {
                        sum[a][d] = fma(vec4<f32>(s[a][b]), v, sum[a][d]);
                    }
                }
            }
        }
    }
    for (var a = 0u; a < QUERIES; a++) {
        let i = i0 + a;
        if i < p.queries {
            for (var d = 0u; d < DIM4; d++) {
                o[((row * p.queries + i) * p.heads + head) * DIM4 + d] = store_out(sum[a][d] / weight[a]);
            }
            if RECORD {
                lse[(row * p.queries + i) * p.heads + head] = top[a] + log(weight[a]);
            }
        }
    }
}
