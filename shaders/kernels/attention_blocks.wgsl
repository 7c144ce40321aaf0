// Attention for GPUs, heads of up to 160: o_i = Σ_j softmax_j(q_i·k_j/√d) v_j by blocks of 32·Q4
// queries × 32 keys with a running maximum (no T×T buffer). 64 invocations, 8×8: (tx, ty) = (t % 8,
// t / 8). Scores: each invocation 4·Q4 queries × 4 keys, twelve quads fetched for 128 multiply-adds;
// neighbours ask for the same quads, so caches do what staging would. Softmax: an invocation a
// query. Sums: each invocation its queries' quads tx, tx + 8, ..., of four keys at a time, so that their
// loads are on their way together: 19.4 ms instead of 24.7 in SD 1.5's UNet, two rows on an H200.
// o [row, token, head·d]; lse [row, token, head] = log Σ_j exp(q_i·k_j/√d), if RECORD.
#import cores/attention_quads

@group(0) @binding(3) var<storage, read_write> o: array<out4>;
@group(0) @binding(4) var<storage, read_write> lse: array<f32>;

const QUERIES = 32u * Q4;
const KEYS = 32u;
const OWN4 = (DIM4 + 7u) / 8u;   // quads of a sum that an invocation holds
const ROW = 8u * Q4 + 1u;        // vectors of a key's scores; the odd one spreads banks

var<workgroup> scores: array<vec4<f32>, KEYS * ROW>;      // [key][query], then weights
var<workgroup> factors: array<vec4<f32>, QUERIES / 4u>;   // what sums are multiplied by, at last what they are divided by

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let head = wid.y;
    let row = wid.z;
    let i0 = wid.x * QUERIES;
    let tx = t % 8u;
    let ty = t / 8u;
    let own = i0 + ty * 4u * Q4;   // first of this invocation's queries

    var sum = array<array<vec4<f32>, 4u * Q4>, OWN4>();
    // Of query i0 + t, in the first QUERIES invocations.
    var top = -1e30;
    var total = 0.0;
    let end = select(p.keys, min(p.keys, i0 + QUERIES), CAUSAL);
    for (var j0 = 0u; j0 < end; j0 += KEYS) {
        var dots = array<array<vec4<f32>, Q4>, 4>();
        for (var d = 0u; d < DIM4; d++) {
            var k = array<vec4<f32>, 4>();
            for (var j = 0u; j < 4u; j++) {
                // Past the end the last key is read again; its score is thrown away below.
                k[j] = key(row, min(j0 + tx + 8u * j, p.keys - 1u), head, d);
            }
            for (var g = 0u; g < Q4; g++) {
                let i = own + 4u * g;
                let last = p.queries - 1u;
                let a = query(row, min(i, last), head, d);
                let b = query(row, min(i + 1u, last), head, d);
                let c = query(row, min(i + 2u, last), head, d);
                let e = query(row, min(i + 3u, last), head, d);
                for (var j = 0u; j < 4u; j++) {
                    // Of four queries at once, to which `dot` would add a sum for each.
                    for (var x = 0u; x < 4u; x++) {
                        dots[j][g] = fma(vec4<f32>(a[x], b[x], c[x], e[x]), vec4<f32>(k[j][x]), dots[j][g]);
                    }
                }
            }
        }
        for (var j = 0u; j < 4u; j++) {
            for (var g = 0u; g < Q4; g++) {
                scores[(tx + 8u * j) * ROW + ty * Q4 + g] = dots[j][g] * p.scale;
            }
        }
        workgroupBarrier();
        if t < QUERIES {
            let past = select(p.keys, min(p.keys, i0 + t + 1u), CAUSAL);
            let visible = min(max(past, j0) - j0, KEYS);
            var higher = top;
            for (var j = 0u; j < visible; j++) {
                higher = max(higher, scores[j * ROW + t / 4u][t % 4u]);
            }
            let factor = exp(top - higher);
            total *= factor;
            for (var j = 0u; j < KEYS; j++) {
                var e = 0.0;
                if j < visible {
                    e = exp(scores[j * ROW + t / 4u][t % 4u] - higher);
                }
                total += e;
                scores[j * ROW + t / 4u][t % 4u] = e;
            }
            factors[t / 4u][t % 4u] = factor;
            top = higher;
        }
        workgroupBarrier();
        for (var g = 0u; g < Q4; g++) {
            let factor = factors[ty * Q4 + g];
            for (var r = 0u; r < OWN4; r++) {
                for (var i = 0u; i < 4u; i++) {
                    sum[r][4u * g + i] *= factor[i];
                }
            }
        }
        // Past the end the last key is read again, with a weight of zero.
        for (var j = 0u; j < KEYS; j += 4u) {
            var v = array<array<vec4<f32>, OWN4>, 4>();
            for (var h = 0u; h < 4u; h++) {
                for (var r = 0u; r < OWN4; r++) {
                    v[h][r] = value(row, min(j0 + j + h, p.keys - 1u), head, min(tx + 8u * r, DIM4 - 1u));
                }
            }
            for (var h = 0u; h < 4u; h++) {
                for (var g = 0u; g < Q4; g++) {
                    let e = scores[(j + h) * ROW + ty * Q4 + g];
                    for (var r = 0u; r < OWN4; r++) {
                        for (var i = 0u; i < 4u; i++) {
                            sum[r][4u * g + i] += e[i] * v[h][r];
                        }
                    }
                }
            }
        }
        workgroupBarrier();
    }
    if t < QUERIES {
        factors[t / 4u][t % 4u] = total;
        if RECORD && i0 + t < p.queries {
            lse[(row * p.queries + i0 + t) * p.heads + head] = top + log(total);
        }
    }
    workgroupBarrier();
    for (var g = 0u; g < Q4; g++) {
        for (var i = 0u; i < 4u; i++) {
            for (var r = 0u; r < OWN4; r++) {
                let at = own + 4u * g + i;
                let quad = tx + 8u * r;
                if at < p.queries && quad < DIM4 {
                    let whole = sum[r][4u * g + i] / factors[ty * Q4 + g][i];
                    o[((row * p.queries + at) * p.heads + head) * DIM4 + quad] = store_out(whole);
                }
            }
        }
    }
}
