// Attention with cooperative matrices for heads as large as a VAE's 512:
//   o_i = Σ_j softmax_j(q_i·k_j/√d) v_j
// A workgroup takes 16·BLOCKS_Q queries and 32 keys at a time; its subgroups share the head dimension, so that
// queries and sums of all of it stay in matrices. Each multiplies its channels of all queries and keys: keys
// and values are read once by one subgroup and go straight into matrices; the partial scores are added in
// workgroup memory, by eight lanes a query.
// Twice through the keys: first for each query's highest score, then for the weights, which are at most 1 and
// need no scaling on the way. That is half as many products again, of a kernel that waits for memory.
// Queries come in whole sixteens, keys in whole 32. What matrices load must start and step on 16 bytes.
// o [row, token, head·d]; lse [row, token, head] = log Σ_j exp(q_i·k_j/√d), if RECORD.
alias wide = vec4<f16>;
#import types/matrix
#import cores/attention

@group(0) @binding(3) var<storage, read_write> o: array<out4>;
@group(0) @binding(4) var<storage, read_write> lse: array<f32>;

const KEYS = 32u;
const QUERIES = 16u * BLOCKS_Q;
const SIZE = LANES * SUBGROUPS; // eight times as many
const OWN4 = 4u * BLOCKS_D;     // quads of a head for a subgroup
const S_ROW = 9u;               // vectors of a query's scores, the last unused; of its weights, the last two:
const W_ROW = 10u;              // lanes that read or write together meet in different banks

var<workgroup> scores: array<vec4<f32>, SUBGROUPS * QUERIES * S_ROW>;   // [subgroup][query][key], each a part
var<workgroup> weights: array<vec4<f16>, QUERIES * W_ROW>;
var<workgroup> totals: array<vec4<f32>, QUERIES / 4u>;                  // of weights

alias Queries = array<array<MatrixA, PARTS_D>, PARTS_Q>;

// The partial scores of 32 keys from a subgroup's channels; the first key is at `at`.
fn multiply(queries: ptr<function, Queries>, at: u32, own: u32) {
    for (var j = 0u; j < KEYS / SIDE; j++) {
        var s = array<MatrixC, PARTS_Q>();
        #repeat r PARTS_Q
            s[r] = MatrixC();
        #end
        #repeat d PARTS_D
            // Read by columns, which transposes keys × channels.
            let k = coopLoad<MatrixB>(&kv[at + SIDE * j * p.kv_stride + SIDE / 4u * d], p.kv_stride);
            #repeat r PARTS_Q
                s[r] = coopMultiplyAdd((*queries)[r][d], k, s[r]);
            #end
        #end
        #repeat r PARTS_Q
            coopStoreT(s[r], &scores[own + SIDE * r * S_ROW + SIDE / 4u * j], S_ROW);
        #end
    }
}

// Four scores of a query, of all channels.
fn added(query: u32, quad: u32) -> vec4<f32> {
    var s = scores[query * S_ROW + quad];
    for (var g = 1u; g < SUBGROUPS; g++) {
        s += scores[(g * QUERIES + query) * S_ROW + quad];
    }
    return s;
}

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let head = wid.y;
    let row = wid.z;
    let group = t / LANES;
    let lane = t % LANES;
    let i0 = wid.x * QUERIES;
    let own = group * QUERIES * S_ROW;
    let of_head = head * DIM4 + group * OWN4;
    let k_at = row * p.kv_row + p.k_offset + of_head;
    let v_at = row * p.kv_row + p.v_offset + of_head;
    // In the softmax: the query of this lane and the quad of its scores.
    let query = t / 8u;
    let quad = t % 8u;

    var queries = Queries();
    var sum = array<array<MatrixC, PARTS_D>, PARTS_Q>();
    #repeat r PARTS_Q
        // Past the last sixteen these again, which are not stored.
        let i = min(i0 + r / FOLD * 16u, p.queries - 16u) + r % FOLD * SIDE;
        let at = (row * p.queries + i) * p.q_stride + p.q_offset + of_head;
        #repeat d PARTS_D
            if MERGED {
                queries[r][d] = coopLoadT<MatrixA>(&kv[at + SIDE / 4u * d], p.q_stride);
            } else {
                queries[r][d] = coopLoadT<MatrixA>(&q[at + SIDE / 4u * d], p.q_stride);
            }
            sum[r][d] = MatrixC();
        #end
    #end

    var highest = vec4<f32>(-1e30);
    for (var j0 = 0u; j0 < p.keys; j0 += KEYS) {
        multiply(&queries, k_at + j0 * p.kv_stride, own);
        workgroupBarrier();
        highest = max(highest, added(query, quad));
        workgroupBarrier();
    }
    let scale = p.scale * 1.4426950408889634;
    var top = max(max(highest.x, highest.y), max(highest.z, highest.w)) * scale;
    top = max(top, subgroupShuffleXor(top, 1u));
    top = max(top, subgroupShuffleXor(top, 2u));
    top = max(top, subgroupShuffleXor(top, 4u));

    var total = vec4<f32>();
    for (var j0 = 0u; j0 < p.keys; j0 += KEYS) {
        multiply(&queries, k_at + j0 * p.kv_stride, own);
        workgroupBarrier();
        let e = exp2(fma(added(query, quad), vec4<f32>(scale), vec4<f32>(-top)));
        total += e;
        weights[query * W_ROW + quad] = vec4<f16>(e);
        workgroupBarrier();
        for (var j = 0u; j < KEYS / SIDE; j++) {
            var w = array<MatrixA, PARTS_Q>();
            #repeat r PARTS_Q
                w[r] = coopLoadT<MatrixA>(&weights[SIDE * r * W_ROW + SIDE / 4u * j], W_ROW);
            #end
            let at = v_at + (j0 + SIDE * j) * p.kv_stride;
            #repeat d PARTS_D
                let v = coopLoadT<MatrixB>(&kv[at + SIDE / 4u * d], p.kv_stride);
                #repeat r PARTS_Q
                    sum[r][d] = coopMultiplyAdd(w[r], v, sum[r][d]);
                #end
            #end
        }
    }
    var all = (total.x + total.y) + (total.z + total.w);
    all += subgroupShuffleXor(all, 1u);
    all += subgroupShuffleXor(all, 2u);
    all += subgroupShuffleXor(all, 4u);
    if quad == 0u {
        totals[query / 4u][query % 4u] = all;
        if RECORD && i0 + query < p.queries {
            lse[(row * p.queries + i0 + query) * p.heads + head] = (top + log2(all)) * 0.6931471805599453;
        }
    }
    workgroupBarrier();
    // Sums one block at a time, through this subgroup's part of the scores.
    let of_row = lane / EACH;
    #repeat r TURNS
        let of_query = ROWS * r + of_row;
        let i = i0 + of_query;
        let divisor = totals[of_query / 4u][of_query % 4u];
        #repeat d BLOCKS_D
            #repeat a ROW_FOLD
                #repeat b FOLD
                    coopStoreT(sum[ROW_FOLD * r + a][FOLD * d + b], &scores[own + SIDE * a * 4u + SIDE / 4u * b], 4u);
                #end
            #end
            subgroupBarrier();
            if i < p.queries {
                let to = ((row * p.queries + i) * p.heads) * DIM4 + of_head + 4u * d;
                for (var h = lane % EACH; h < 4u; h += EACH) {
                    o[to + h] = store_out(scores[own + of_row * 4u + h] / divisor);
                }
            }
            subgroupBarrier();
        #end
    #end
}
