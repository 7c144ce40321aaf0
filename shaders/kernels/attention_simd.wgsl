// Attention for CPU drivers: o_i = Σ_j softmax_j(q_i·k_j/√d) v_j. Each invocation is a SIMD lane
// with QUERIES queries and their sums in registers; keys come KEYS at a time with a running maximum
// (no T×T buffer), so that one exponential rescales for all of them. A load takes as long as hundreds of
// multiply-adds there, so lanes share keys and values: each reads its part of the KEYS, SHARED of them, and
// broadcasts it to the others (helpers/of_lane). All lanes of a workgroup therefore go through the same keys.
// Loops over the head dimension are unrolled: a read with a variable index of an array becomes a branch for each
// element there. Mesa's CPU driver ends every loop of an invocation, without a word, after 65,535
// iterations of all its loops together.
// o [row, token, head·d]; lse [row, token, head] = log Σ_j exp(q_i·k_j/√d), if RECORD.
#import cores/attention_quads
#import helpers/of_lane

@group(0) @binding(3) var<storage, read_write> o: array<out4>;
@group(0) @binding(4) var<storage, read_write> lse: array<f32>;

const NONE = -1e30;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let i0 = (wid.x * LANES + t) * QUERIES;
    let head = wid.y;
    let row = wid.z;
    var qi = array<array<vec4<f32>, DIM4>, QUERIES>();
    var sum = array<array<vec4<f32>, DIM4>, QUERIES>();
    var top = array<f32, QUERIES>();
    var weight = array<f32, QUERIES>();
    #repeat a QUERIES
        top[a] = NONE;
        #repeat d DIM4
            // Queries past the end repeat the last and are not stored.
            qi[a][d] = query(row, min(i0 + a, p.queries - 1u), head, d) * p.scale;
        #end
    #end
    let end = select(p.keys, min(p.keys, (wid.x + 1u) * LANES * QUERIES), CAUSAL);
    for (var j0 = 0u; j0 < end; j0 += KEYS) {
        // Keys past the end repeat the last and are not counted.
        var j = array<u32, HELD>();
        #repeat h HELD
            j[h] = min(j0 + h * SHARED + t % SHARED, p.keys - 1u);
        #end
        var dots = array<array<vec4<f32>, KEYS>, QUERIES>();
        #repeat d DIM4
            var k = array<vec4<f32>, HELD>();
            #repeat h HELD
                k[h] = key(row, j[h], head, d);
            #end
            #repeat b KEYS
                let kb = of_lane(k[b / SHARED], b % SHARED);
                #repeat a QUERIES
                    dots[a][b] = fma(qi[a][d], kb, dots[a][b]);
                #end
            #end
        #end
        var s = array<array<f32, KEYS>, QUERIES>();
        #repeat a QUERIES
            var higher = top[a];
            #repeat b KEYS
                let seen = j0 + b < p.keys && (!CAUSAL || j0 + b <= i0 + a);
                let v = (dots[a][b].x + dots[a][b].y) + (dots[a][b].z + dots[a][b].w);
                s[a][b] = select(NONE, v, seen);
                higher = max(higher, s[a][b]);
            #end
            let shrink = exp(top[a] - higher);
            top[a] = higher;
            weight[a] *= shrink;
            #repeat d DIM4
                sum[a][d] *= shrink;
            #end
            #repeat b KEYS
                s[a][b] = exp(s[a][b] - higher);
                weight[a] += s[a][b];
            #end
        #end
        #repeat d DIM4
            var v = array<vec4<f32>, HELD>();
            #repeat h HELD
                v[h] = value(row, j[h], head, d);
            #end
            #repeat b KEYS
                let vb = of_lane(v[b / SHARED], b % SHARED);
                #repeat a QUERIES
                    sum[a][d] = fma(vec4<f32>(s[a][b]), vb, sum[a][d]);
                #end
            #end
        #end
    }
    #repeat a QUERIES
        let i = i0 + a;
        if i < p.queries {
            #repeat d DIM4
                o[((row * p.queries + i) * p.heads + head) * DIM4 + d] = store_out(sum[a][d] / weight[a]);
            #end
            if RECORD {
                lse[(row * p.queries + i) * p.heads + head] = top[a] + log(weight[a]);
            }
        }
    #end
}
