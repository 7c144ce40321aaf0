// Attention over more keys than one dispatch can see, from attention over two parts of them:
//   o = (e^la·a + e^lb·b) / (e^la + e^lb),   l = log(e^la + e^lb)
// a, b [token, head·d] results of the parts, f32; la, lb [token, head] their log-sum-exp.
// One invocation a quad; the first quad of a head also stores l.

struct Params {
    total: u32,   // quads of o
    width: u32,   // invocations in one y of the grid
    dim4: u32,    // quads of a head
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> a: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> la: array<f32>;
@group(0) @binding(3) var<storage, read_write> b: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> lb: array<f32>;
@group(0) @binding(5) var<storage, read_write> o: array<out4>;
@group(0) @binding(6) var<storage, read_write> l: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.y * p.width + id.x;
    if i >= p.total {
        return;
    }
    let at = i / p.dim4;
    let top = max(la[at], lb[at]);
    let wa = exp(la[at] - top);
    let wb = exp(lb[at] - top);
    o[i] = store_out((wa * a[i] + wb * b[i]) / (wa + wb));
    if RECORD && i % p.dim4 == 0u {
        l[at] = top + log(wa + wb);
    }
}
