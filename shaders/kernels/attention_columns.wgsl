// SAG's record of self-attention: c[j] = (1/heads) Σ_h Σ_i exp(q_i·k_j/√d - lse[i, h]), the
// attention that position j receives; its mean over j is 1. P[i, j] is never stored.
// One workgroup a row and key; its invocations take (query, head) pairs in turn and their parts
// are added pairwise, in a fixed order, so c does not depend on how rows are batched.
// columns [row, token], f32.
#import cores/attention_quads

@group(0) @binding(3) var<storage, read_write> lse: array<f32>;
@group(0) @binding(4) var<storage, read_write> columns: array<f32>;

alias Sum = f32;
const SIZE = 64u;
#import helpers/sum_all

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let j = wid.x;
    let row = wid.y;
    var sum = 0.0;
    for (var pair = t; pair < p.queries * p.heads; pair += SIZE) {
        let i = pair / p.heads;
        let head = pair % p.heads;
        var dots = vec4<f32>(0.0);
        for (var d = 0u; d < DIM4; d++) {
            dots += query(row, i, head, d) * p.scale * key(row, j, head, d);
        }
        let s = (dots.x + dots.y) + (dots.z + dots.w);
        sum += exp(s - lse[(row * p.queries + i) * p.heads + head]);
    }
    let whole = sum_all(t, sum);
    if t == 0u {
        columns[row * p.queries + j] = whole / f32(p.heads);
    }
}
