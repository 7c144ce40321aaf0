// Count, mean and sum of squared deviations of parts, merged by Chan's formula in a fixed order.

const SIZE = 64u;

var<workgroup> parts: array<vec3<f32>, SIZE>;

fn merged(a: vec3<f32>, b: vec3<f32>) -> vec3<f32> {
    let n = max(a.x + b.x, 1.0);
    let d = b.y - a.y;
    return vec3<f32>(a.x + b.x, a.y + d * (b.x / n), a.z + b.z + d * d * (a.x * b.x / n));
}

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

// What group_norm_apply wants of the whole: mean, 1/√(variance + eps).
fn normalizer(whole: vec3<f32>, eps: f32) -> vec2<f32> {
    return vec2<f32>(whole.y, inverseSqrt(max(whole.z, 0.0) / whole.x + eps));
}
