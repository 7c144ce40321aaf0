// Attention for CPU drivers: o_i = Σ_j softmax_j(q_i·k_j/√d) v_j, one query an invocation, its
// query and sum in registers, keys one after the other with a running maximum (no T×T buffer).
// Keys and values are the same for all lanes, so they are read once for eight queries.
// o [row, token, head·d]; lse [row, token, head] = log Σ_j exp(q_i·k_j/√d), if RECORD.
#import shared/attention

@group(0) @binding(3) var<storage, read_write> o: array<out4>;
@group(0) @binding(4) var<storage, read_write> lse: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let i = wid.x * 64u + t;
    let head = wid.y;
    let row = wid.z;
    if i >= p.queries {
        return;
    }
    var qi: array<vec4<f32>, DIM4>;
    var sum: array<vec4<f32>, DIM4>;
    for (var d = 0u; d < DIM4; d++) {
        qi[d] = query(row, i, head, d) * p.scale;
    }
    var top = -1e30;
    var weight = 0.0;
    let keys = select(p.keys, i + 1u, CAUSAL);
    for (var j = 0u; j < keys; j++) {
        var dots = vec4<f32>(0.0);
        for (var d = 0u; d < DIM4; d++) {
            dots += qi[d] * key(row, j, head, d);
        }
        let s = (dots.x + dots.y) + (dots.z + dots.w);
        let higher = max(top, s);
        let shrink = exp(top - higher);
        let e = exp(s - higher);
        weight = weight * shrink + e;
        for (var d = 0u; d < DIM4; d++) {
            sum[d] = sum[d] * shrink + e * value(row, j, head, d);
        }
        top = higher;
    }
    for (var d = 0u; d < DIM4; d++) {
        o[((row * p.queries + i) * p.heads + head) * DIM4 + d] = store_out(sum[d] / weight);
    }
    if RECORD {
        lse[(row * p.queries + i) * p.heads + head] = top + log(weight);
    }
}
