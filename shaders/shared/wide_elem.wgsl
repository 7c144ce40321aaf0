// What products and attention read at once, where nothing is gained by reading more: a quad.
alias wide = elem4;

fn load_wide(v: wide) -> vec4<f32> {
    return load4(v);
}
