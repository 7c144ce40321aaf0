// Attention with cooperative matrices of 16×16×16, f16 in and f32 out: o_i = Σ_j softmax_j(q_i·k_j/√d) v_j.
// A workgroup takes 16 queries a subgroup, a tile of 32 keys at a time. Queries stay in matrices, keys
// and values pass through workgroup memory for all subgroups. Scores go through workgroup memory to
// the softmax, two lanes a query, and come back as f16; sums stay in accumulators. These are scaled
// down only when a score outgrows the reference by more than 2^8, so weights stay below 256, safe in
// f16. What matrices load must start and step on 16 bytes; their strides count
// vectors, the elements of the arrays.
// o [row, token, head·d]; lse [row, token, head] = log Σ_j exp(q_i·k_j/√d), if RECORD.
#import shared/attention

@group(0) @binding(3) var<storage, read_write> o: array<out4>;
@group(0) @binding(4) var<storage, read_write> lse: array<f32>;

const PARTS = (DIM4 + 3u) / 4u;         // matrices along the depth of a head
const KV_ROW = PARTS * 4u + 2u;         // vectors of a key: the depth and 8 unused values
const S_ROW = 9u;                       // of a query's scores: 32 keys and 4 unused
const P_ROW = 10u;                      // of its weights: 32 keys and 8 unused
const SIZE = SUBGROUPS * 32u;
const NONE = -1e30;

var<workgroup> keys: array<vec4<f16>, 32u * KV_ROW>;
var<workgroup> values: array<vec4<f16>, 32u * KV_ROW>;
var<workgroup> scores: array<vec4<f32>, SUBGROUPS * 16u * S_ROW>;
var<workgroup> weights: array<vec4<f16>, SUBGROUPS * 16u * P_ROW>;
var<workgroup> factors: array<vec4<f32>, SUBGROUPS * 8u>;   // one value a lane
var<workgroup> outgrown: vec4<u32>;

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let head = wid.y;
    let row = wid.z;
    let group = t / 32u;
    let lane = t % 32u;
    let i0 = (wid.x * SUBGROUPS + group) * 16u;
    let own_s = group * 16u * S_ROW;
    let own_p = group * 16u * P_ROW;
    // In the softmax: this lane's query, and its half of the keys.
    let query_row = lane / 2u;
    let half = lane % 2u;

    // Queries, sixteen values of depth at a time.
    var q_part: array<coop_mat16x16<f16, A>, PARTS>;
    for (var d = 0u; d < PARTS; d++) {
        for (var h = 0u; h < 2u; h++) {
            let at = lane * 2u + h;
            let i = i0 + at / 4u;
            let quad = 4u * d + at % 4u;
            var v = vec4<f16>();
            if i < p.queries && quad < DIM4 {
                v = vec4<f16>(query(row, i, head, quad));
            }
            weights[own_p + at / 4u * P_ROW + at % 4u] = v;
        }
        workgroupBarrier();
        q_part[d] = coopLoadT<coop_mat16x16<f16, A>>(&weights[own_p], P_ROW);
        workgroupBarrier();
    }
    var sum: array<coop_mat16x16<f32, C>, PARTS>;
    for (var d = 0u; d < PARTS; d++) {
        sum[d] = coop_mat16x16<f32, C>();
    }
    // Scores in powers of two.
    let scale = p.scale * 1.4426950408889634;
    var top = NONE;      // the reference of this lane's query
    var total = 0.0;     // of its weights, this lane's half
    for (var j0 = 0u; j0 < p.keys; j0 += 32u) {
        for (var at = t; at < 32u * PARTS * 4u; at += SIZE) {
            let j = at / (PARTS * 4u);
            let quad = at % (PARTS * 4u);
            var k = vec4<f16>();
            var v = vec4<f16>();
            if j0 + j < p.keys && quad < DIM4 {
                let from_key = row * p.kv_row + (j0 + j) * p.kv_stride + head * DIM4 + quad;
                k = kv[from_key + p.k_offset];
                v = kv[from_key + p.v_offset];
            }
            keys[j * KV_ROW + quad] = k;
            values[j * KV_ROW + quad] = v;
        }
        if t == 0u {
            outgrown = vec4<u32>(0u);
        }
        workgroupBarrier();
        for (var j = 0u; j < 2u; j++) {
            var s = coop_mat16x16<f32, C>();
            for (var d = 0u; d < PARTS; d++) {
                // Read by columns, which turns keys × depth around.
                let k = coopLoad<coop_mat16x16<f16, B>>(&keys[16u * j * KV_ROW + 4u * d], KV_ROW);
                s = coopMultiplyAdd(q_part[d], k, s);
            }
            coopStoreT(s, &scores[own_s + 4u * j], S_ROW);
        }
        workgroupBarrier();
        var s: array<vec4<f32>, 8>;
        var highest = vec4<f32>(NONE);
        for (var c = 0u; c < 8u; c++) {
            let j = j0 + 4u * c + vec4<u32>(0u, 1u, 2u, 3u);
            let v = scores[own_s + query_row * S_ROW + c] * scale;
            s[c] = select(vec4<f32>(NONE), v, j < vec4<u32>(p.keys));
            highest = max(highest, s[c]);
        }
        let higher = max(max(highest.x, highest.y), max(highest.z, highest.w));
        if higher > top + 8.0 {
            outgrown.x = 1u;
        }
        workgroupBarrier();
        if workgroupUniformLoad(&outgrown).x != 0u {
            let reference = max(top, higher);
            let factor = exp2(top - reference);
            top = reference;
            total *= factor;
            factors[group * 8u + query_row / 2u][query_row % 2u] = factor;
            for (var d = 0u; d < PARTS; d++) {
                coopStoreT(sum[d], &scores[own_s], S_ROW);
                workgroupBarrier();
                for (var h = 0u; h < 2u; h++) {
                    let at = lane * 2u + h;
                    let r = at / 4u;
                    scores[own_s + r * S_ROW + at % 4u] *= factors[group * 8u + r / 2u][r % 2u];
                }
                workgroupBarrier();
                sum[d] = coopLoadT<coop_mat16x16<f32, C>>(&scores[own_s], S_ROW);
                workgroupBarrier();
            }
        }
        for (var c = 0u; c < 4u; c++) {
            let e = exp2(s[half * 4u + c] - top);
            total += (e.x + e.y) + (e.z + e.w);
            weights[own_p + query_row * P_ROW + half * 4u + c] = vec4<f16>(e);
        }
        workgroupBarrier();
        for (var j = 0u; j < 2u; j++) {
            let w = coopLoadT<coop_mat16x16<f16, A>>(&weights[own_p + 4u * j], P_ROW);
            for (var d = 0u; d < PARTS; d++) {
                let v = coopLoadT<coop_mat16x16<f16, B>>(&values[16u * j * KV_ROW + 4u * d], KV_ROW);
                sum[d] = coopMultiplyAdd(w, v, sum[d]);
            }
        }
        workgroupBarrier();
    }
    factors[t / 4u][t % 4u] = total;
    workgroupBarrier();
    let both = factors[(t ^ 1u) / 4u][(t ^ 1u) % 4u] + total;
    if RECORD && half == 0u && i0 + query_row < p.queries {
        lse[(row * p.queries + i0 + query_row) * p.heads + head] = (top + log2(both)) * 0.6931471805599453;
    }
    workgroupBarrier();
    factors[group * 8u + query_row / 2u][query_row % 2u] = 1.0 / both;
    for (var d = 0u; d < PARTS; d++) {
        coopStoreT(sum[d], &scores[own_s], S_ROW);
        workgroupBarrier();
        for (var h = 0u; h < 2u; h++) {
            let at = lane * 2u + h;
            let r = at / 4u;
            let quad = 4u * d + at % 4u;
            if i0 + r < p.queries && quad < DIM4 {
                let v = scores[own_s + r * S_ROW + at % 4u] * factors[group * 8u + r / 2u][r % 2u];
                o[((row * p.queries + i0 + r) * p.heads + head) * DIM4 + quad] = store_out(v);
            }
        }
        workgroupBarrier();
    }
}
