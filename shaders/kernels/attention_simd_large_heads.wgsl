// Attention with large heads for CPU drivers: attention_simd with one query a lane, whose sums are in
// workgroup memory, each lane's own, and whose query is read again for every KEYS keys. Unrolled, or in
// an array with a variable index, a head dimension of 160 compiles for minutes.
// The head dimension goes in blocks of BLOCK quads, because the driver limits the number of iterations.
#import cores/attention_quads
#import helpers/of_lane

@group(0) @binding(3) var<storage, read_write> o: array<out4>;
@group(0) @binding(4) var<storage, read_write> lse: array<f32>;

const NONE = -1e30;

var<workgroup> sums: array<vec4<f32>, DIM4 * LANES>;   // [quad][lane]

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let wanted = wid.x * LANES + t;
    let head = wid.y;
    let row = wid.z;
    // Queries past the end repeat the last and are not stored.
    let i = min(wanted, p.queries - 1u);
    for (var d = 0u; d < DIM4; d++) {
        sums[d * LANES + t] = vec4<f32>(0.0);
    }
    var top = NONE;
    var weight = 0.0;
    let end = select(p.keys, min(p.keys, (wid.x + 1u) * LANES), CAUSAL);
    for (var j0 = 0u; j0 < end; j0 += KEYS) {
        // Keys past the end repeat the last and are not counted.
        var j = array<u32, HELD>();
        #repeat h HELD
            j[h] = min(j0 + h * SHARED + t % SHARED, p.keys - 1u);
        #end
        var dots = array<vec4<f32>, KEYS>();
        for (var d0 = 0u; d0 < DIM4; d0 += BLOCK) {
            #repeat e BLOCK
                let q = query(row, i, head, d0 + e) * p.scale;
                var k = array<vec4<f32>, HELD>();
                #repeat h HELD
                    k[h] = key(row, j[h], head, d0 + e);
                #end
                #repeat b KEYS
                    dots[b] = fma(q, of_lane(k[b / SHARED], b % SHARED), dots[b]);
                #end
            #end
        }
        var s = array<f32, KEYS>();
        var higher = top;
        #repeat b KEYS
            let seen = j0 + b < p.keys && (!CAUSAL || j0 + b <= i);
            s[b] = select(NONE, (dots[b].x + dots[b].y) + (dots[b].z + dots[b].w), seen);
            higher = max(higher, s[b]);
        #end
        let shrink = exp(top - higher);
        top = higher;
        weight *= shrink;
        #repeat b KEYS
            s[b] = exp(s[b] - higher);
            weight += s[b];
        #end
        for (var d0 = 0u; d0 < DIM4; d0 += BLOCK) {
            #repeat e BLOCK
                let at = (d0 + e) * LANES + t;
                var v = array<vec4<f32>, HELD>();
                #repeat h HELD
                    v[h] = value(row, j[h], head, d0 + e);
                #end
                var sum = sums[at] * shrink;
                #repeat b KEYS
                    sum = fma(vec4<f32>(s[b]), of_lane(v[b / SHARED], b % SHARED), sum);
                #end
                sums[at] = sum;
            #end
        }
    }
    if wanted >= p.queries {
        return;
    }
    for (var d = 0u; d < DIM4; d++) {
        o[((row * p.queries + i) * p.heads + head) * DIM4 + d] = store_out(sums[d * LANES + t] / weight);
    }
    if RECORD {
        lse[(row * p.queries + i) * p.heads + head] = top + log(weight);
    }
}
