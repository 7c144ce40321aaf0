// GEMM core for GPUs with cooperative matrices of 16×16×16, f16 in and f32 out: a tile of TILE×TILE
// by four subgroups of 32, two by two, each a quarter in FRAGMENTS² accumulators. The depth goes in
// steps of 32 channels through two tiles of f16 in workgroup memory, whose rows are eight values
// longer than they need be: without, the lanes of a load meet in the same banks. Accumulators reach
// the epilogue 16×16 at a time through a kilobyte a subgroup; little workgroup memory keeps more
// workgroups on a core. What cooperative matrices load must start and step on 16 bytes; their strides count
// vectors, the elements of the arrays.

const FRAGMENTS = TILE / 32u;
const X_ROW = 10u;              // vectors in a row of tile_x: 32 channels and 8 unused
const W_ROW = TILE / 4u + 2u;
const PER_ROW = TILE / 16u;     // rows of x that an invocation brings in

var<workgroup> tile_x: array<vec4<f16>, TILE * X_ROW>;   // [position TILE][channel 32 + 8]
var<workgroup> tile_w: array<vec4<f16>, 32u * W_ROW>;    // [channel 32][output TILE + 8]
var<workgroup> fragment: array<vec4<f32>, 256>;          // [subgroup 4][16][16]

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let m0 = (wid.z * p.groups_y + wid.y) * TILE;
    let n0 = wid.x * (TILE / 4u);
    let group = t / 32u;
    let lane = t % 32u;
    // The quarter of this subgroup.
    let qm = group / 2u * (TILE / 2u);
    let qn = group % 2u * (TILE / 2u);
    // What this invocation brings in of x: a quad of channels of every 16th position.
    let load_m = t / 8u;
    let load_c = t % 8u;

    var acc: array<array<coop_mat16x16<f32, C>, FRAGMENTS>, FRAGMENTS>;
    for (var i = 0u; i < FRAGMENTS; i++) {
        for (var j = 0u; j < FRAGMENTS; j++) {
            acc[i][j] = coop_mat16x16<f32, C>();
        }
    }
    for (var tap = 0u; tap < TAPS; tap++) {
        var base: array<i32, PER_ROW>;
        for (var i = 0u; i < PER_ROW; i++) {
            base[i] = x_base(m0 + load_m + 16u * i, tap);
        }
        for (var c0 = 0u; c0 < p.c4; c0 += 8u) {
            let c = c0 + load_c;
            for (var i = 0u; i < PER_ROW; i++) {
                var v = vec4<f16>();
                if base[i] >= 0 && c < p.c4 {
                    v = x[u32(base[i]) + c];
                }
                tile_x[(load_m + 16u * i) * X_ROW + load_c] = v;
            }
            for (var at = t; at < 8u * TILE; at += 128u) {
                let k = at / (TILE / 4u);
                let n = at % (TILE / 4u);
                var v = vec4<f16>();
                if c0 * 4u + k < p.c4 * 4u && n0 + n < p.n4 {
                    v = w[((tap * p.c4 + c0) * 4u + k) * p.n4 + n0 + n];
                }
                tile_w[k * W_ROW + n] = v;
            }
            workgroupBarrier();
            for (var k = 0u; k < 2u; k++) {
                var a: array<coop_mat16x16<f16, A>, FRAGMENTS>;
                for (var i = 0u; i < FRAGMENTS; i++) {
                    let first = (qm + 16u * i) * X_ROW + 4u * k;
                    a[i] = coopLoadT<coop_mat16x16<f16, A>>(&tile_x[first], X_ROW);
                }
                for (var j = 0u; j < FRAGMENTS; j++) {
                    let first = 16u * k * W_ROW + (qn + 16u * j) / 4u;
                    let b = coopLoadT<coop_mat16x16<f16, B>>(&tile_w[first], W_ROW);
                    for (var i = 0u; i < FRAGMENTS; i++) {
                        acc[i][j] = coopMultiplyAdd(a[i], b, acc[i][j]);
                    }
                }
            }
            workgroupBarrier();
        }
    }
    for (var i = 0u; i < FRAGMENTS; i++) {
        for (var j = 0u; j < FRAGMENTS; j++) {
            coopStoreT(acc[i][j], &fragment[group * 64u], 4u);
            workgroupBarrier();
            for (var h = 0u; h < 2u; h++) {
                let at = lane * 2u + h;
                let m = m0 + qm + 16u * i + at / 4u;
                finish(m, n0 + (qn + 16u * j) / 4u + at % 4u, fragment[group * 64u + at]);
            }
            workgroupBarrier();
        }
    }
}
