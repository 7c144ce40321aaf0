// GEMM core for GPUs with cooperative matrices, f16 in and f32 out: a tile of TILE_M×TILE_N by SUB_M×SUB_N
// subgroups, each with PARTS_M×PARTS_N matrices of it in accumulators, or BLOCKS_M×BLOCKS_N blocks of 16×16. K goes
// in steps of STEP channels through two tiles of f16 in workgroup memory, whose rows are eight values longer
// than they need be: without, the lanes of a load meet in the same banks. SUB_K such sets of subgroups, one or
// two, share a step: small tiles then have as much on its way as large ones.
// The next step is read in the midst of multiplying this one: subgroups then diverge, and some multiply while
// others read. Loads and stores of a step are in one iteration of the loop, for what a register brings to the next
// iteration is copied. Accumulators reach the epilogue one block at a time through workgroup memory, 1 KiB a
// subgroup: more would keep workgroups from running beside each other. No subgroup waits for another there, but
// for those that share its matrices, and the epilogue's inputs are read before they are needed.
// What cooperative matrices load must start and step on 16 bytes; their strides count vectors, the
// elements of the arrays. FULL_C says that steps meet no end of x and w.
// GATED: y = value · gelu(gate), where w holds the columns of all values, then those of all gates. Of a
// subgroup's columns in a tile the first half are values, the others their gates; SUB_K is 1.
// PARTIAL: split-K, each workgroup sums a part of K and stores its sums as they are for gemm_merge,
// [part][m, padded][n, padded].
#import cores/epilogue_inputs
#import types/wide
#import types/matrix
#import cores/gemm_cooperative_walk

@group(0) @binding(5) var<storage, read> w: array<wide>;
@group(0) @binding(7) var<storage, read_write> parts: array<vec4<f32>>;

const THREADS = LANES * SUB_M * SUB_N * SUB_K;
const TILE_M = SUB_M * PARTS_M * SIDE;
const TILE_N = SUB_N * PARTS_N * SIDE;
const X_ROW = STEP / 4u + 2u;             // vectors in a row of tile_x, and of tile_w
const W_ROW = TILE_N / 4u + 2u;
const STEP8 = STEP / 8u;
const TILE_N8 = TILE_N / 8u;
const K_PARTS = STEP / SUB_K / SIDE;      // of a step, for a subgroup
const BLOCK = 64u;                        // vectors of a block; a lane finishes LINES of them
const W_EIGHTS = STEP * TILE_N8;

var<workgroup> tile_x: array<vec4<f16>, TILE_M * X_ROW>;         // [position][channel STEP + 8]
var<workgroup> tile_w: array<vec4<f16>, STEP * W_ROW>;           // [channel][output TILE_N + 8]
var<workgroup> sums: array<vec4<f32>, SUB_M * SUB_N * SUB_K * BLOCK>;    // [subgroup][16][16]

alias Sums = array<array<MatrixC, PARTS_N>, PARTS_M>;

// Adds to acc what a subgroup whose first vectors in the tiles are at_x and at_w makes of parts [begin, stop)
// of its step.
fn multiply(acc: ptr<function, Sums>, at_x: u32, at_w: u32, begin: u32, stop: u32) {
    for (var k = begin; k < stop; k++) {
        var a = array<MatrixA, PARTS_M>();
        #repeat i PARTS_M
            a[i] = coopLoadT<MatrixA>(&tile_x[at_x + SIDE * i * X_ROW + SIDE / 4u * k], X_ROW);
        #end
        #repeat j PARTS_N
            let b = coopLoadT<MatrixB>(&tile_w[at_w + SIDE * k * W_ROW + SIDE / 4u * j], W_ROW);
            #repeat i PARTS_M
                (*acc)[i][j] = coopMultiplyAdd(a[i], b, (*acc)[i][j]);
            #end
        #end
    }
}

// What the subgroups that share a block have summed of one of its vectors.
fn total(own: u32, at: u32) -> vec4<f32> {
    var sum = sums[own * BLOCK + at];
    for (var k = 1u; k < SUB_K; k++) {
        sum += sums[(k * SUB_M * SUB_N + own) * BLOCK + at];
    }
    return sum;
}

// Until all that share a block are here.
fn meet() {
    if SUB_K == 1u {
        subgroupBarrier();
    } else {
        workgroupBarrier();
    }
}

// Where a lane finishes sums.
struct Spot {
    sums: u32,   // of its subgroup: its own first vector,
    own: u32,    // and the part of the tile they belong to
    at: u32,     // the first of the lane's vectors in a block
    m: u32,      // its position in the first block, and its quad there
    n: u32,
}

fn finish_gated(acc: ptr<function, Sums>, spot: Spot) {
    let gates = p.n4 / 2u;
    var of_bias = array<vec4<f32>, BLOCKS_N>();
    if HAS_BIAS {
        #repeat j BLOCKS_N
            let n = min(spot.n + j % HALF_N * 4u, gates - 1u);
            of_bias[j] = bias[select(n, gates + n, j >= HALF_N)];
        #end
    }
    #repeat i BLOCKS_M
        #repeat j HALF_N
            var value = array<vec4<f32>, LINES>();
            #repeat r FOLD
                #repeat c FOLD
                    coopStoreT((*acc)[FOLD * i + r][FOLD * j + c], &sums[spot.sums + SIDE * 4u * r + SIDE / 4u * c], 4u);
                #end
            #end
            meet();
            #repeat l LINES
                value[l] = sums[spot.sums + spot.at + LANES * l] + of_bias[j];
            #end
            meet();
            #repeat r FOLD
                #repeat c FOLD
                    coopStoreT((*acc)[FOLD * i + r][FOLD * (j + HALF_N) + c], &sums[spot.sums + SIDE * 4u * r + SIDE / 4u * c], 4u);
                #end
            #end
            meet();
            #repeat l LINES
                let m = spot.m + 16u * i + LANES / 4u * l;
                let n = spot.n + 4u * j;
                if m < p.m && n < gates {
                    let gate = sums[spot.sums + spot.at + LANES * l] + of_bias[j + HALF_N];
                    y[m * gates + n] = store_out(value[l] * gelu(gate));
                }
            #end
            meet();
        #end
    #end
}

fn finish_all(acc: ptr<function, Sums>, spot: Spot, part: u32) {
    let n = spot.n;
    var of_bias = array<vec4<f32>, BLOCKS_N>();
    if HAS_BIAS {
        #repeat j BLOCKS_N
            of_bias[j] = bias[min(n + 4u * j, p.n4 - 1u)];
        #end
    }
    #repeat i BLOCKS_M
        let m = spot.m + 16u * i;
        var to = array<i32, LINES>();
        var of_vector = array<array<elem4, BLOCKS_N>, LINES>();
        var of_residual = array<array<elem4, BLOCKS_N>, LINES>();
        #repeat l LINES
            to[l] = place_of(m + LANES / 4u * SUB_K * l);
            let place = u32(max(to[l], 0));
            #repeat j BLOCKS_N
                let quad = min(n + 4u * j, p.n4 - 1u);
                if HAS_VECTOR {
                    of_vector[l][j] = vector[vector_at(place) + quad];
                }
                if HAS_RESIDUAL {
                    of_residual[l][j] = residual[place * p.n4 + quad];
                }
            #end
        #end
        #repeat j BLOCKS_N
            #repeat r FOLD
                #repeat c FOLD
                    coopStoreT((*acc)[FOLD * i + r][FOLD * j + c], &sums[spot.sums + SIDE * 4u * r + SIDE / 4u * c], 4u);
                #end
            #end
            meet();
            #repeat l LINES
                let sum = total(spot.own, spot.at + LANES * SUB_K * l);
                if PARTIAL {
                    parts[(part * p.part_m + m + LANES / 4u * SUB_K * l) * p.part_n4 + n + 4u * j] = sum;
                } else if to[l] >= 0 && n + 4u * j < p.n4 {
                    y[u32(to[l]) * p.n4 + n + 4u * j] =
                        store_out(finished(sum, of_bias[j], of_vector[l][j], of_residual[l][j]));
                }
            #end
            meet();
        #end
    #end
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let part = wid.z % p.splits;
    let m0 = (wid.z / p.splits * p.groups_y + wid.y) * TILE_M;
    let n0 = wid.x * select(TILE_N / 4u, TILE_N / 8u, GATED);
    let group = t / LANES;
    let lane = t % LANES;
    // The part of this subgroup: of the tile, and of each step.
    let own = group % (SUB_M * SUB_N);
    let own_m = own / SUB_N * (TILE_M / SUB_M);
    let own_n = own % SUB_N * (TILE_N / SUB_N);
    let own_k = group / (SUB_M * SUB_N);
    let at_x = own_m * X_ROW + own_k * (STEP / SUB_K / 4u);
    let at_w = own_k * (STEP / SUB_K) * W_ROW + own_n / 4u;

    let blocks = (p.c4 + STEP / 4u - 1u) / (STEP / 4u);
    let first = part * p.steps;
    let end = min(first + p.steps, TAPS * blocks);
    var walk = Walk();
    walk.tap = first / blocks;
    walk.c0 = first % blocks * STEP8;
    #repeat i LOADS_X
        walk.place[i] = x_place(m0 + t / STEP8 + i * (THREADS / STEP8));
        walk.base[i] = x_at(walk.place[i], walk.tap) >> 1u;
    #end
    #repeat i LOADS_W
        let at = min(t + i * THREADS, W_EIGHTS - 1u);
        var n = n0 / 2u + at % TILE_N8;
        if GATED {
            // A subgroup has BLOCKS_N eights of values, then of gates.
            let half = at % TILE_N8 / BLOCKS_N;
            n = n0 / 2u + half / 2u * BLOCKS_N + at % BLOCKS_N + half % 2u * (p.n4 / 4u);
        }
        // Columns past the last one are not stored.
        let k = (w_tap(m0) + walk.tap) * p.c4 * 4u + walk.c0 * 8u + at / TILE_N8;
        walk.at[i] = k * (p.n4 / 2u) + min(n, p.n4 / 2u - 1u);
    #end
    var acc = Sums();
    #repeat i PARTS_M
        #repeat j PARTS_N
            acc[i][j] = MatrixC();
        #end
    #end
    fetch(&walk, t);
    put(&walk, t);
    for (var step = first + 1u; step < end; step++) {
        workgroupBarrier();
        multiply(&acc, at_x, at_w, 0u, K_PARTS / 2u);
        hold(&walk);
        advance(&walk);
        fetch(&walk, t);
        hold(&walk);
        multiply(&acc, at_x, at_w, K_PARTS / 2u, K_PARTS);
        workgroupBarrier();
        put(&walk, t);
    }
    workgroupBarrier();
    multiply(&acc, at_x, at_w, 0u, K_PARTS);

    let at = own_k * LANES + lane;
    let n = n0 + own_n / select(4u, 8u, GATED) + lane % 4u;
    let spot = Spot(group * BLOCK, own, at, m0 + own_m + at / 4u, n);
    if GATED {
        finish_gated(&acc, spot);
    } else {
        finish_all(&acc, spot, part);
    }
}
