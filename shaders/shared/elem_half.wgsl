// Storage of activations and weights: f16, as vectors that cooperative matrices can be loaded from.
alias elem4 = vec4<f16>;

fn load4(v: elem4) -> vec4<f32> {
    return vec4<f32>(v);
}

fn store4(v: vec4<f32>) -> elem4 {
    return vec4<f16>(v);
}
