// Attention with cooperative matrices, f16 in and f32 out: o_i = Σ_j softmax_j(q_i·k_j/√d) v_j.
// A workgroup takes 16·BLOCKS_Q queries a subgroup and KEYS keys at a time. Queries and sums stay in
// matrices; keys and values pass through workgroup memory for all subgroups, fetched into registers
// one tile ahead. Scores go through workgroup memory to the softmax, ROWS queries at a time by EACH lanes each, and come
// back as f16 weights. Sums are scaled down only when a score outgrows the reference by more than
// 2^8, so weights stay below 256, safe in f16.
// Subgroups share nothing but keys and values, which have two places each: one barrier a tile is enough, and
// between two of them each subgroup goes at its own pace, so that one makes weights while another multiplies.
// The scores of the next tile are multiplied beside the sums of this one; behind the last tile they are
// not used, for a branch around them would cost more.
// What matrices load must start and step on 16 bytes; their strides count vectors, the elements of
// the arrays; they are chosen so that lanes which read or write together meet in different banks.
// o [row, token, head·d]; lse [row, token, head] = log Σ_j exp(q_i·k_j/√d), if RECORD.
#import types/wide
#import types/matrix
#import cores/attention

@group(0) @binding(3) var<storage, read_write> o: array<out4>;
@group(0) @binding(4) var<storage, read_write> lse: array<f32>;

const DIM8 = DIM4 / 2u;
const KEYS = 16u * BLOCKS_K;            // of a tile
const KV_ROW = BLOCKS_D * 4u + 2u;      // vectors of a key: the head dimension and 8 unused values
const S_ROW = KEYS / 4u + 2u;           // of a query's scores, and of its weights
const SIZE = SUBGROUPS * LANES;
const EIGHTS = KEYS * DIM8;             // of a tile's keys
const QUERIES = 16u * BLOCKS_Q;         // of a subgroup
const NONE = -1e30;

var<workgroup> keys: array<vec4<f16>, 2u * KEYS * KV_ROW>;
var<workgroup> values: array<vec4<f16>, 2u * KEYS * KV_ROW>;
var<workgroup> scores: array<vec4<f32>, SUBGROUPS * QUERIES * S_ROW>;
var<workgroup> weights: array<vec4<f16>, SUBGROUPS * QUERIES * S_ROW>;

// Eight channels of a tile's keys or values, for each place that an invocation fills. Past the last
// key that one again, whose weight is zero there: no load is behind a branch.
fn fetch(to: ptr<function, array<wide, LOADS>>, row: u32, first_at: u32, j0: u32, t: u32) {
    #repeat i LOADS
        let at = min(t + i * SIZE, EIGHTS - 1u);
        let j = min(j0 + at / DIM8, p.keys - 1u);
        (*to)[i] = kv[(row * p.kv_row + j * p.kv_stride + first_at) / 2u + at % DIM8];
    #end
}

// Place i of an invocation in a tile: the first of two vectors.
fn spot(i: u32, t: u32) -> u32 {
    let at = t + i * SIZE;
    return at / DIM8 * KV_ROW + at % DIM8 * 2u;
}

// The highest of the values that the lanes of a query have, and their sum.
fn most_of_query(own: f32) -> f32 {
    var most = own;
    if EACH > 1u {
        most = max(most, subgroupShuffleXor(most, 1u));
    }
    if EACH > 2u {
        most = max(most, subgroupShuffleXor(most, 2u));
    }
    return most;
}

fn sum_of_query(own: f32) -> f32 {
    var sum = own;
    if EACH > 1u {
        sum += subgroupShuffleXor(sum, 1u);
    }
    if EACH > 2u {
        sum += subgroupShuffleXor(sum, 2u);
    }
    return sum;
}

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let head = wid.y;
    let row = wid.z;
    let group = t / LANES;
    let lane = t % LANES;
    let i0 = (wid.x * SUBGROUPS + group) * QUERIES;
    let own = group * QUERIES * S_ROW;
    // In the softmax: this lane's query of every ROWS, and which of its vectors, every EACH-th.
    let query_row = lane / EACH;
    let own_vector = lane % EACH;
    let k_from = p.k_offset + head * DIM4;
    let v_from = p.v_offset + head * DIM4;

    // What lies beyond the head dimension stays zero.
    if DIM4 % 4u != 0u {
        for (var at = t; at < 2u * KEYS; at += SIZE) {
            keys[at * KV_ROW + DIM4] = vec4<f16>();
            keys[at * KV_ROW + DIM4 + 1u] = vec4<f16>();
            values[at * KV_ROW + DIM4] = vec4<f16>();
            values[at * KV_ROW + DIM4 + 1u] = vec4<f16>();
        }
    }
    // Queries, sixteen channels at a time.
    var q_part = array<array<MatrixA, PARTS_D>, PARTS_Q>();
    #repeat r TURNS
        #repeat d BLOCKS_D
            let i = i0 + ROWS * r + query_row;
            for (var half = own_vector; half < 2u; half += EACH) {
                let eight = 2u * d + half;
                var v = wide();
                if i < p.queries && eight < DIM8 {
                    let at = ((row * p.queries + i) * p.q_stride + p.q_offset + head * DIM4) / 2u + eight;
                    if MERGED {
                        v = kv[at];
                    } else {
                        v = q[at];
                    }
                }
                weights[own + query_row * S_ROW + 2u * half] = lower(v);
                weights[own + query_row * S_ROW + 2u * half + 1u] = upper(v);
            }
            subgroupBarrier();
            #repeat a ROW_FOLD
                #repeat b FOLD
                    q_part[ROW_FOLD * r + a][FOLD * d + b] =
                        coopLoadT<MatrixA>(&weights[own + SIDE * a * S_ROW + SIDE / 4u * b], S_ROW);
                #end
            #end
            subgroupBarrier();
        #end
    #end
    var sum = array<array<MatrixC, PARTS_D>, PARTS_Q>();
    var top = array<f32, TURNS>();        // the reference of this lane's queries, in powers of two
    var total = array<f32, TURNS>();      // of their weights, this lane's part
    #repeat r PARTS_Q
        #repeat d PARTS_D
            sum[r][d] = MatrixC();
        #end
    #end
    #repeat r TURNS
        top[r] = NONE;
    #end
    let scale = p.scale * 1.4426950408889634;
    var next_k = array<wide, LOADS>();
    var next_v = array<wide, LOADS>();
    fetch(&next_k, row, k_from, 0u, t);
    #repeat i LOADS
        if EIGHTS % SIZE == 0u || t + i * SIZE < EIGHTS {
            keys[spot(i, t)] = lower(next_k[i]);
            keys[spot(i, t) + 1u] = upper(next_k[i]);
        }
    #end
    fetch(&next_k, row, k_from, KEYS, t);
    fetch(&next_v, row, v_from, 0u, t);
    workgroupBarrier();
    #repeat r PARTS_Q
        #repeat j PARTS_K
            var s = MatrixC();
            #repeat d PARTS_D
                // Read by columns, which transposes keys × channels.
                s = coopMultiplyAdd(
                    q_part[r][d],
                    coopLoad<MatrixB>(&keys[SIDE * j * KV_ROW + SIDE / 4u * d], KV_ROW),
                    s,
                );
            #end
            coopStoreT(s, &scores[own + SIDE * r * S_ROW + SIDE / 4u * j], S_ROW);
        #end
    #end
    for (var j0 = 0u; j0 < p.keys; j0 += KEYS) {
        let place = j0 / KEYS % 2u * KEYS * KV_ROW;
        let next_place = KEYS * KV_ROW - place;
        subgroupBarrier();
        // The scores of this tile out, the next keys and this tile's values in.
        var outgrown = false;
        var s = array<array<vec4<f32>, OWN>, TURNS>();
        var reference = array<f32, TURNS>();
        #repeat r TURNS
            var highest = vec4<f32>(NONE);
            #repeat c OWN
                s[r][c] = scores[own + (ROWS * r + query_row) * S_ROW + EACH * c + own_vector];
                if !FULL || CAUSAL {
                    let j = j0 + 4u * (EACH * c + own_vector) + vec4<u32>(0u, 1u, 2u, 3u);
                    var seen = j < vec4<u32>(p.keys);
                    if CAUSAL {
                        seen = seen & (j <= vec4<u32>(i0 + ROWS * r + query_row));
                    }
                    s[r][c] = select(vec4<f32>(NONE), s[r][c], seen);
                }
                highest = max(highest, s[r][c]);
            #end
            let higher = most_of_query(max(max(highest.x, highest.y), max(highest.z, highest.w)) * scale);
            reference[r] = max(top[r], higher);
            outgrown = outgrown || higher > top[r] + 8.0;
        #end
        #repeat i LOADS
            if EIGHTS % SIZE == 0u || t + i * SIZE < EIGHTS {
                keys[next_place + spot(i, t)] = lower(next_k[i]);
                keys[next_place + spot(i, t) + 1u] = upper(next_k[i]);
                values[place + spot(i, t)] = lower(next_v[i]);
                values[place + spot(i, t) + 1u] = upper(next_v[i]);
            }
        #end
        // Once, if at all: control flow by a loop's variable counts as uniform, by `if` not. It is so within a
        // subgroup, whose lanes are all here, since nothing before lets them diverge.
        for (outgrown = subgroupAny(outgrown); outgrown; outgrown = false) {
            #repeat r TURNS
                let factor = exp2(top[r] - reference[r]);
                top[r] = reference[r];
                total[r] *= factor;
                #repeat d BLOCKS_D
                    subgroupBarrier();
                    #repeat a ROW_FOLD
                        #repeat b FOLD
                            coopStoreT(sum[ROW_FOLD * r + a][FOLD * d + b], &scores[own + SIDE * a * S_ROW + SIDE / 4u * b], S_ROW);
                        #end
                    #end
                    subgroupBarrier();
                    for (var h = own_vector; h < 4u; h += EACH) {
                        scores[own + query_row * S_ROW + h] *= factor;
                    }
                    subgroupBarrier();
                    #repeat a ROW_FOLD
                        #repeat b FOLD
                            sum[ROW_FOLD * r + a][FOLD * d + b] =
                                coopLoadT<MatrixC>(&scores[own + SIDE * a * S_ROW + SIDE / 4u * b], S_ROW);
                        #end
                    #end
                #end
            #end
        }
        #repeat r TURNS
            #repeat c OWN
                let e = exp2(fma(s[r][c], vec4<f32>(scale), vec4<f32>(-top[r])));
                total[r] += (e.x + e.y) + (e.z + e.w);
                weights[own + (ROWS * r + query_row) * S_ROW + EACH * c + own_vector] = vec4<f16>(e);
            #end
        #end
        fetch(&next_k, row, k_from, j0 + 2u * KEYS, t);
        fetch(&next_v, row, v_from, j0 + KEYS, t);
        workgroupBarrier();
        #repeat j PARTS_K
            var next = array<MatrixC, PARTS_Q>();
            #repeat r PARTS_Q
                next[r] = MatrixC();
            #end
            #repeat d PARTS_D
                let at = next_place + SIDE * j * KV_ROW + SIDE / 4u * d;
                let k = coopLoad<MatrixB>(&keys[at], KV_ROW);
                #repeat r PARTS_Q
                    next[r] = coopMultiplyAdd(q_part[r][d], k, next[r]);
                #end
            #end
            #repeat r PARTS_Q
                coopStoreT(next[r], &scores[own + SIDE * r * S_ROW + SIDE / 4u * j], S_ROW);
            #end
        #end
        #repeat j PARTS_K
            var w = array<MatrixA, PARTS_Q>();
            #repeat r PARTS_Q
                w[r] = coopLoadT<MatrixA>(&weights[own + SIDE * r * S_ROW + SIDE / 4u * j], S_ROW);
            #end
            #repeat d PARTS_D
                let at = place + SIDE * j * KV_ROW + SIDE / 4u * d;
                let v = coopLoadT<MatrixB>(&values[at], KV_ROW);
                #repeat r PARTS_Q
                    sum[r][d] = coopMultiplyAdd(w[r], v, sum[r][d]);
                #end
            #end
        #end
    }
    #repeat r TURNS
        let whole = sum_of_query(total[r]);
        let i = i0 + ROWS * r + query_row;
        if RECORD && own_vector == 0u && i < p.queries {
            lse[(row * p.queries + i) * p.heads + head] = (top[r] + log2(whole)) * 0.6931471805599453;
        }
        #repeat d BLOCKS_D
            subgroupBarrier();
            #repeat a ROW_FOLD
                #repeat b FOLD
                    coopStoreT(sum[ROW_FOLD * r + a][FOLD * d + b], &scores[own + SIDE * a * S_ROW + SIDE / 4u * b], S_ROW);
                #end
            #end
            subgroupBarrier();
            for (var h = own_vector; h < 4u; h += EACH) {
                let quad = 4u * d + h;
                if i < p.queries && quad < DIM4 {
                    let v = scores[own + query_row * S_ROW + h] / whole;
                    o[((row * p.queries + i) * p.heads + head) * DIM4 + quad] = store_out(v);
                }
            }
        #end
    #end
}
