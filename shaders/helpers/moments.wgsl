// Count, mean and sum of squared deviations of parts, merged by Chan's formula in a fixed order.

fn merged(a: vec3<f32>, b: vec3<f32>) -> vec3<f32> {
    let n = max(a.x + b.x, 1.0);
    let d = b.y - a.y;
    return vec3<f32>(a.x + b.x, a.y + d * (b.x / n), a.z + b.z + d * d * (a.x * b.x / n));
}

// What group_norm_apply needs of all parts merged: mean, 1/√(variance + eps).
fn normalizer(whole: vec3<f32>, eps: f32) -> vec2<f32> {
    return vec2<f32>(whole.y, inverseSqrt(max(whole.z, 0.0) / whole.x + eps));
}
