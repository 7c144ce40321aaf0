// The result leaves the device: it is stored as f32 whatever the precision of the rest.
alias out4 = vec4<f32>;

fn store_out(v: vec4<f32>) -> out4 {
    return v;
}
