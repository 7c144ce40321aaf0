// Storage of activations and weights: f32, four channels at a time.
alias elem4 = vec4<f32>;

fn load4(v: elem4) -> vec4<f32> {
    return v;
}

fn store4(v: vec4<f32>) -> elem4 {
    return v;
}
