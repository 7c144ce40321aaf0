// Storage of the result.
#if OUT_F32
// It leaves the device: f32 whatever the precision of the rest.
alias out4 = vec4<f32>;

fn store_out(v: vec4<f32>) -> out4 {
    return v;
}
#else
// Like every other activation.
alias out4 = elem4;

fn store_out(v: vec4<f32>) -> out4 {
    return store4(v);
}
#endif
