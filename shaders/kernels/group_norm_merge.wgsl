// The statistics of whole rows from those of spans: parts [row][span][group] of group_norm_stats
// -> stats [row][group] (mean, 1/√(variance + eps)). One workgroup a row and group.
#import helpers/moments

struct Params {
    groups: u32,
    spans: u32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> spans: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> stats: array<vec2<f32>>;

const SIZE = 64u;

var<workgroup> parts: array<vec3<f32>, SIZE>;

// The whole of what the workgroup's invocations `t` hold, complete in invocation 0.
fn merge_all(t: u32, own: vec3<f32>) -> vec3<f32> {
    parts[t] = own;
    workgroupBarrier();
    for (var half = SIZE / 2u; half > 0u; half /= 2u) {
        if t < half {
            parts[t] = merged(parts[t], parts[t + half]);
        }
        workgroupBarrier();
    }
    return parts[0];
}

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let group = wid.x;
    let row = wid.y;
    var own = vec3<f32>(0.0);
    for (var span = t; span < p.spans; span += SIZE) {
        let i = 2u * ((row * p.spans + span) * p.groups + group);
        own = merged(own, vec3<f32>(spans[i], spans[i + 1u].x));
    }
    let whole = merge_all(t, own);
    if t == 0u {
        stats[row * p.groups + group] = normalizer(whole, p.eps);
    }
}
