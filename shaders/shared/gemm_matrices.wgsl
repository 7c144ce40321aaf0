// GEMM core for GPUs with cooperative matrices of 16×16×16, f16 in and f32 out: a tile of TILE_M×TILE_N
// by SUB_M×SUB_N subgroups of 32, each with PARTS_M×PARTS_N matrices of it in accumulators. The depth goes
// in steps of STEP channels through two tiles of f16 in workgroup memory, whose rows are eight values longer
// than they need be: without, the lanes of a load meet in the same banks. With PREFETCH the next step is on
// its way while this one is multiplied. SUB_K such sets of subgroups share a step: small tiles then have as
// much on its way as large ones. Accumulators reach the epilogue one matrix at a time through workgroup
// memory, 1 KiB a subgroup: more would keep workgroups from running beside each other. No subgroup waits for
// another there, but for those that share its matrices.
// What cooperative matrices load must start and step on 16 bytes; their strides count vectors, the
// elements of the arrays. FULL_C says that steps meet no end of x and w.
// GATED: y = value · gelu(gate), where w holds the columns of all values, then those of all gates: the
// left half of a tile is values, the right half their gates, which other subgroups sum; SUB_K is 1.
// PARTIAL: the depth is divided among workgroups; each stores its sums as they are for gemm_merge,
// [part][m, padded][n, padded].
#import shared/surrounds
#import shared/wide_eight

@group(0) @binding(7) var<storage, read_write> parts: array<vec4<f32>>;

const THREADS = 32u * SUB_M * SUB_N * SUB_K;
const TILE_M = SUB_M * PARTS_M * 16u;
const TILE_N = SUB_N * PARTS_N * 16u;
const X_ROW = STEP / 4u + 2u;             // vectors in a row of tile_x, and of tile_w
const W_ROW = TILE_N / 4u + 2u;
const STEP8 = STEP / 8u;
const HALF4 = TILE_N / 8u;                // quads of half a tile, and
const HALF_SUB_N = max(SUB_N / 2u, 1u);   // subgroups
const MATRIX = 64u;                       // vectors of an accumulator
const W_EIGHTS = STEP * TILE_N / 8u;

var<workgroup> tile_x: array<vec4<f16>, TILE_M * X_ROW>;         // [position][channel STEP + 8]
var<workgroup> tile_w: array<vec4<f16>, STEP * W_ROW>;           // [channel][output TILE_N + 8]
var<workgroup> sums: array<vec4<f32>, SUB_M * SUB_N * SUB_K * MATRIX>;   // [subgroup][16][16]

// A step on its way to workgroup memory, and where the next one is read.
struct Walk {
    x: array<Eight, LOADS_X>,           // LOADS of an invocation in a step
    w: array<Eight, LOADS_W>,
    place: array<vec3<i32>, LOADS_X>,   // of this invocation's positions,
    base: array<i32, LOADS_X>,          // at this tap
    at: array<u32, LOADS_W>,            // of its weights, in eights
    tap: u32,
    c0: u32,                            // first quad of the step
}

// Brings the next step into registers: of x, eight channels of every (THREADS / STEP8)th position. No load
// stands behind a branch, which would make it wait for the one before.
fn fetch(walk: ptr<function, Walk>, t: u32) {
    let c = (*walk).c0 + t % STEP8 * 2u;
    #repeat i LOADS_X
        if PADDED || !FULL_C {
            let inside = (*walk).base[i] >= 0 && c < p.c4;
            let v = x[select(0u, (u32((*walk).base[i]) + c) / 2u, inside)];
            (*walk).x[i] = Eight(select(vec4<f16>(), v.lo, inside), select(vec4<f16>(), v.hi, inside));
        } else {
            (*walk).x[i] = x[(u32((*walk).base[i]) + c) / 2u];
        }
    #end
    // Channels past the last one, where x is zero, read what comes next, at the end of w its last eight.
    #repeat i LOADS_W
        (*walk).w[i] = w[select(min((*walk).at[i], ALL_TAPS * p.c4 * p.n4 * 2u - 1u), (*walk).at[i], FULL_C)];
        (*walk).at[i] += STEP / 2u * p.n4;
    #end
    (*walk).c0 += STEP / 4u;
    if (*walk).c0 >= p.c4 {
        #repeat i LOADS_W
            (*walk).at[i] -= ((*walk).c0 - p.c4) * 2u * p.n4;
        #end
        (*walk).c0 = 0u;
        (*walk).tap += 1u;
        #repeat i LOADS_X
            (*walk).base[i] = x_at((*walk).place[i], (*walk).tap);
        #end
    }
}

// From registers to the tiles.
fn put(walk: ptr<function, Walk>, t: u32) {
    #repeat i LOADS_X
        let to = (t / STEP8 + i * (THREADS / STEP8)) * X_ROW + t % STEP8 * 2u;
        tile_x[to] = (*walk).x[i].lo;
        tile_x[to + 1u] = (*walk).x[i].hi;
    #end
    #repeat i LOADS_W
        let at = t + i * THREADS;
        if W_EIGHTS % THREADS == 0u || at < W_EIGHTS {
            let to = at / (TILE_N / 8u) * W_ROW + at % (TILE_N / 8u) * 2u;
            tile_w[to] = (*walk).w[i].lo;
            tile_w[to + 1u] = (*walk).w[i].hi;
        }
    #end
}

fn finish_gated(m: u32, n: u32, value_sum: vec4<f32>, gate_sum: vec4<f32>) {
    let gates = p.n4 / 2u;
    if m >= p.m || n >= gates {
        return;
    }
    var value = value_sum;
    var gate = gate_sum;
    if HAS_BIAS {
        value += bias[n];
        gate += bias[gates + n];
    }
    y[m * gates + n] = store_out(value * gelu(gate));
}

// What the subgroups that share a matrix have summed of one of its vectors.
fn total(own: u32, at: u32) -> vec4<f32> {
    var sum = sums[own * MATRIX + at];
    for (var k = 1u; k < SUB_K; k++) {
        sum += sums[(k * SUB_M * SUB_N + own) * MATRIX + at];
    }
    return sum;
}

// Until all that share a matrix are here.
fn meet() {
    if SUB_K == 1u && !GATED {
        subgroupBarrier();
    } else {
        workgroupBarrier();
    }
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let part = wid.z % p.splits;
    let m0 = (wid.z / p.splits * p.groups_y + wid.y) * TILE_M;
    let n0 = wid.x * select(TILE_N / 4u, HALF4, GATED);
    let group = t / 32u;
    let lane = t % 32u;
    // The part of this subgroup: of the tile, and of each step.
    let own = group % (SUB_M * SUB_N);
    let own_m = own / SUB_N * (TILE_M / SUB_M);
    let own_n = own % SUB_N * (TILE_N / SUB_N);
    let own_k = group / (SUB_M * SUB_N) * (STEP / SUB_K);

    let blocks = (p.c4 + STEP / 4u - 1u) / (STEP / 4u);
    let first = part * p.steps;
    let end = min(first + p.steps, TAPS * blocks);
    var walk: Walk;
    walk.tap = first / blocks;
    walk.c0 = first % blocks * (STEP / 4u);
    #repeat i LOADS_X
        walk.place[i] = x_place(m0 + t / STEP8 + i * (THREADS / STEP8));
        walk.base[i] = x_at(walk.place[i], walk.tap);
    #end
    #repeat i LOADS_W
        let at = min(t + i * THREADS, W_EIGHTS - 1u);
        let eight = at % (TILE_N / 8u);
        let n = n0 + 2u * eight + select(0u, p.n4 / 2u - HALF4, GATED && 2u * eight >= HALF4);
        // Columns past the last one are nobody's.
        let k = ((w_tap(m0) + walk.tap) * p.c4 + walk.c0) * 4u + at / (TILE_N / 8u);
        walk.at[i] = (k * p.n4 + min(n, p.n4 - 2u)) / 2u;
    #end
    var acc: array<array<coop_mat16x16<f32, C>, PARTS_N>, PARTS_M>;
    #repeat i PARTS_M
        #repeat j PARTS_N
            acc[i][j] = coop_mat16x16<f32, C>();
        #end
    #end
    if PREFETCH {
        fetch(&walk, t);
    }
    for (var step = first; step < end; step++) {
        if !PREFETCH {
            fetch(&walk, t);
        }
        put(&walk, t);
        workgroupBarrier();
        if PREFETCH && step + 1u < end {
            fetch(&walk, t);
        }
        for (var k = own_k / 16u; k < (own_k + STEP / SUB_K) / 16u; k++) {
            var a: array<coop_mat16x16<f16, A>, PARTS_M>;
            #repeat i PARTS_M
                let at = (own_m + 16u * i) * X_ROW + 4u * k;
                a[i] = coopLoadT<coop_mat16x16<f16, A>>(&tile_x[at], X_ROW);
            #end
            #repeat j PARTS_N
                let at = 16u * k * W_ROW + (own_n + 16u * j) / 4u;
                let b = coopLoadT<coop_mat16x16<f16, B>>(&tile_w[at], W_ROW);
                #repeat i PARTS_M
                    acc[i][j] = coopMultiplyAdd(a[i], b, acc[i][j]);
                #end
            #end
        }
        workgroupBarrier();
    }
    #repeat i PARTS_M
        #repeat j PARTS_N
            let m = m0 + own_m + 16u * i;
            let n = n0 + (own_n / 16u + j) * 4u;
            coopStoreT(acc[i][j], &sums[group * MATRIX], 4u);
            meet();
            if GATED {
                // Two subgroups hold values and gates; each finishes eight of their sixteen rows.
                let column = group % SUB_N % HALF_SUB_N;
                let values = (group / SUB_N * SUB_N + column) * MATRIX;
                let at = group % SUB_N / HALF_SUB_N * 32u + lane;
                let to = n0 + column * (TILE_N / SUB_N / 4u) + 4u * j + at % 4u;
                finish_gated(m + at / 4u, to, sums[values + at], sums[values + HALF_SUB_N * MATRIX + at]);
            } else {
                // Those that share a matrix finish a part of its rows each. Indices are made of parts that begin
                // with the loop's: what a compiler could make before the steps it would keep in registers all
                // through them, and convolutions took 6 % longer.
                for (var at = group / (SUB_M * SUB_N) * 32u + lane; at < MATRIX; at += 32u * SUB_K) {
                    let row = at / 4u;
                    let quad = at % 4u;
                    let sum = total(own, 4u * row + quad);
                    if PARTIAL {
                        parts[((part * p.part_m + m) + row) * p.part_n4 + n + quad] = sum;
                    } else {
                        finish(m + row, n + quad, sum);
                    }
                }
            }
            meet();
        #end
    #end
}
