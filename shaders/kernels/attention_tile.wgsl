// Attention for GPUs: o_i = Σ_j softmax_j(q_i·k_j/√d) v_j by tiles of 16 queries × 16 keys with a
// running maximum (no T×T buffer). 256 invocations: (query, lane) = (t / 16, t % 16).
// Scores: each invocation one score, the head dimension in steps of 32 channels through workgroup memory, so
// it may be as large as the VAE's 512 within 16 KiB. Sums: each invocation the quads lane,
// lane + 16, ... of its query, values read straight from storage (256 B in a row).
// o [row, token, head·d]; lse [row, token, head] = log Σ_j exp(q_i·k_j/√d), if RECORD.
#import cores/attention_quads

@group(0) @binding(3) var<storage, read_write> o: array<out4>;
@group(0) @binding(4) var<storage, read_write> lse: array<f32>;

const STEP4 = 8u;                        // quads of a head in a step
const OWN4 = (DIM4 + 15u) / 16u;         // quads of the sum an invocation holds

var<workgroup> tile_q: array<vec4<f32>, 144>;   // [16][STEP4 + 1]: the odd row length spreads banks
var<workgroup> tile_k: array<vec4<f32>, 144>;
var<workgroup> scores: array<f32, 272>;         // [16][16 + 1]

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let head = wid.y;
    let row = wid.z;
    let i0 = wid.x * 16u;
    let iq = t / 16u;
    let lane = t % 16u;
    let i = i0 + iq;

    var sum = array<vec4<f32>, OWN4>();
    var top = -1e30;
    var weight = 0.0;
    let end = select(p.keys, min(p.keys, i0 + 16u), CAUSAL);
    for (var j0 = 0u; j0 < end; j0 += 16u) {
        var dots = vec4<f32>(0.0);
        for (var d0 = 0u; d0 < DIM4; d0 += STEP4) {
            // Half of the invocations bring queries, half keys: 16 tokens × 8 quads each.
            let token = (t / STEP4) % 16u;
            let quad = t % STEP4;
            var v = vec4<f32>(0.0);
            if t < 128u {
                if i0 + token < p.queries && d0 + quad < DIM4 {
                    v = query(row, i0 + token, head, d0 + quad);
                }
                tile_q[token * (STEP4 + 1u) + quad] = v;
            } else {
                if j0 + token < p.keys && d0 + quad < DIM4 {
                    v = key(row, j0 + token, head, d0 + quad);
                }
                tile_k[token * (STEP4 + 1u) + quad] = v;
            }
            workgroupBarrier();
            for (var d = 0u; d < STEP4; d++) {
                dots += tile_q[iq * (STEP4 + 1u) + d] * tile_k[lane * (STEP4 + 1u) + d];
            }
            workgroupBarrier();
        }
        let j = j0 + lane;
        let seen = j < p.keys && (!CAUSAL || j <= i);
        let s = ((dots.x + dots.y) + (dots.z + dots.w)) * p.scale;
        scores[iq * 17u + lane] = select(-1e30, s, seen);
        workgroupBarrier();
        var higher = top;
        for (var l = 0u; l < 16u; l++) {
            higher = max(higher, scores[iq * 17u + l]);
        }
        let shrink = exp(top - higher);
        weight *= shrink;
        for (var r = 0u; r < OWN4; r++) {
            sum[r] *= shrink;
        }
        for (var l = 0u; l < min(16u, end - j0); l++) {
            let e = exp(scores[iq * 17u + l] - higher);
            weight += e;
            for (var r = 0u; r < OWN4; r++) {
                let quad = r * 16u + lane;
                if quad < DIM4 {
                    sum[r] += e * value(row, j0 + l, head, quad);
                }
            }
        }
        top = higher;
    }
    if i >= p.queries {
        return;
    }
    for (var r = 0u; r < OWN4; r++) {
        let quad = r * 16u + lane;
        if quad < DIM4 {
            o[((row * p.queries + i) * p.heads + head) * DIM4 + quad] = store_out(sum[r] / weight);
        }
    }
    if RECORD && lane == 0u {
        lse[(row * p.queries + i) * p.heads + head] = top + log(weight);
    }
}
