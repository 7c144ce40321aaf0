// What products on CPU drivers read of w at once: as much as of x.
alias weight = wide;

fn load_weight(v: weight) -> vec4<f32> {
    return load_wide(v);
}
