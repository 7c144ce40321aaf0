// GEMM core for GPUs: a 64×64 tile of y by 64 invocations (8×8), each 8 positions × 2 quads in
// registers: 64 multiply-adds for four 16-byte reads of workgroup memory. K goes in steps
// of 16 channels through two tiles of 4 KiB, half of what every device offers. Both tiles hold quads; x is
// transposed on the way in, four positions at a time, so that neither side is ever read or written in
// single values.
// The next step is read in the midst of multiplying this one, and stored in the same iteration of the loop, for
// what a register brings to the next iteration is copied. SD 1.5's UNet, two rows on an H200: 69.5 ms, read before
// multiplying and stored an iteration later 78.7, and with loads behind branches 79.7.
// PARTIAL: split-K, each workgroup sums a part of K, as few tiles leave most of a GPU idle; each stores
// its sums as they are for gemm_merge, [part][m, padded][n, padded].
#import cores/epilogue_inputs

@group(0) @binding(5) var<storage, read> w: array<wide>;
@group(0) @binding(7) var<storage, read_write> parts: array<vec4<f32>>;

const STEP4 = 4u;   // input quads a step

var<workgroup> tile_x: array<vec4<f32>, 256>;   // [channel 16][position / 4, 16]
var<workgroup> tile_w: array<vec4<f32>, 256>;   // [channel 16][output quad, 16]

// A step on its way to workgroup memory.
struct Walk {
    x: array<elem4, 4>,    // a quad of four positions
    w: array<elem4, 4>,    // a quad of every fourth channel
    base: array<i32, 4>,   // of the positions at this tap
    tap: u32,
    c0: u32,               // first quad of the step
    at: u32,               // of the first of its weights
}

// Whether channel c of a position is not the zero around x.
fn inside(base: i32, c: u32) -> bool {
    return base >= 0 && c < p.c4;
}

// Brings a step into registers. No load is behind a branch, which would make it wait for the one before.
fn fetch(walk: ptr<function, Walk>, t: u32) {
    let c = (*walk).c0 + t % 4u;
    for (var i = 0u; i < 4u; i++) {
        (*walk).x[i] = x[select(0u, u32((*walk).base[i]) + c, inside((*walk).base[i], c))];
    }
    // Channels past the last one, where x is zero, read what comes next, at the end of w its last quad.
    for (var i = 0u; i < 4u; i++) {
        (*walk).w[i] = w[min((*walk).at + i * 4u * p.n4, ALL_TAPS * p.c4 * 4u * p.n4 - 1u)];
    }
}

// From registers to the tiles.
fn put(walk: ptr<function, Walk>, t: u32) {
    let c = (*walk).c0 + t % 4u;
    var quads = array<vec4<f32>, 4>();
    for (var i = 0u; i < 4u; i++) {
        quads[i] = load4(select(elem4(), (*walk).x[i], inside((*walk).base[i], c)));
    }
    let a = transpose(mat4x4<f32>(quads[0], quads[1], quads[2], quads[3]));
    for (var i = 0u; i < 4u; i++) {
        tile_x[(t % 4u * 4u + i) * 16u + t / 4u] = a[i];
        tile_w[(t / 16u + i * 4u) * 16u + t % 16u] = load4((*walk).w[i]);
    }
}

// On to the next step.
fn advance(walk: ptr<function, Walk>, m: u32) {
    (*walk).c0 += STEP4;
    (*walk).at += 4u * STEP4 * p.n4;
    if (*walk).c0 >= p.c4 {
        (*walk).at -= ((*walk).c0 - p.c4) * 4u * p.n4;
        (*walk).c0 = 0u;
        (*walk).tap += 1u;
        find(walk, m);
    }
}

// Where the four positions from m on are read at this tap.
fn find(walk: ptr<function, Walk>, m: u32) {
    for (var i = 0u; i < 4u; i++) {
        (*walk).base[i] = x_base(m + i, (*walk).tap);
    }
}

// Adds to acc what an invocation makes of channels [begin, end) of a step.
fn multiply(acc: ptr<function, array<vec4<f32>, 16>>, tx: u32, ty: u32, begin: u32, end: u32) {
    for (var k = begin; k < end; k++) {
        let a0 = tile_x[k * 16u + ty * 2u];
        let a1 = tile_x[k * 16u + ty * 2u + 1u];
        let b0 = tile_w[k * 16u + tx];
        let b1 = tile_w[k * 16u + tx + 8u];
        for (var i = 0u; i < 4u; i++) {
            (*acc)[i] += a0[i] * b0;
            (*acc)[i + 4u] += a1[i] * b0;
            (*acc)[i + 8u] += a0[i] * b1;
            (*acc)[i + 12u] += a1[i] * b1;
        }
    }
}

fn store(part: u32, m: u32, n: u32, sum: vec4<f32>) {
    if PARTIAL {
        parts[(part * p.part_m + m) * p.part_n4 + n] = sum;
    } else {
        finish(m, n, sum);
    }
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let part = wid.z % p.splits;
    let m0 = (wid.z / p.splits * p.groups_y + wid.y) * 64u;
    let n0 = wid.x * 16u;
    // What this invocation brings in: one quad of four positions of x, four quads of w.
    let load_m = t / 4u;
    let load_n = t % 16u;
    // What it computes: positions 8·ty.., quads tx and tx + 8.
    let tx = t % 8u;
    let ty = t / 8u;

    let blocks = (p.c4 + STEP4 - 1u) / STEP4;
    let first = part * p.steps;
    let end = min(first + p.steps, TAPS * blocks);
    var walk = Walk();
    walk.tap = first / blocks;
    walk.c0 = first % blocks * STEP4;
    walk.at = (((w_tap(m0) + walk.tap) * p.c4 + walk.c0) * 4u + t / 16u) * p.n4 + min(n0 + load_n, p.n4 - 1u);
    find(&walk, m0 + load_m * 4u);
    fetch(&walk, t);
    put(&walk, t);
    var acc = array<vec4<f32>, 16>();
    for (var step = first + 1u; step < end; step++) {
        workgroupBarrier();
        multiply(&acc, tx, ty, 0u, 8u);
        advance(&walk, m0 + load_m * 4u);
        fetch(&walk, t);
        multiply(&acc, tx, ty, 8u, 16u);
        workgroupBarrier();
        put(&walk, t);
    }
    workgroupBarrier();
    multiply(&acc, tx, ty, 0u, 16u);
    for (var i = 0u; i < 8u; i++) {
        store(part, m0 + ty * 8u + i, n0 + tx, acc[i]);
        store(part, m0 + ty * 8u + i, n0 + tx + 8u, acc[i + 8u]);
    }
}
