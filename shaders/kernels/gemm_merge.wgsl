// The end of a product with split-K: the partial sums [part][m, padded][n, padded], f32, are
// added in order, then the epilogue. One invocation a quad. SPLITS parts are all on their way before the
// first is added: a loop would wait for each.
#import helpers/activation
#import cores/epilogue
#import cores/epilogue_inputs

@group(0) @binding(5) var<storage, read_write> parts: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let i = (wid.y * p.groups_y + wid.x) * 64u + t;
    let m = i / p.n4;
    let n = i % p.n4;
    if m >= p.m {
        return;
    }
    var part = array<vec4<f32>, SPLITS>();
    #repeat i SPLITS
        part[i] = parts[(i * p.part_m + m) * p.part_n4 + n];
    #end
    var sum = vec4<f32>(0.0);
    #repeat i SPLITS
        sum += part[i];
    #end
    finish(m, n, sum);
}
