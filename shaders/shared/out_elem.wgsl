// The result is stored like every other activation.
alias out4 = elem4;

fn store_out(v: vec4<f32>) -> out4 {
    return store4(v);
}
