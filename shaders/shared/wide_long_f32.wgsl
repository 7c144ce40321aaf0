// A quad of f32 in two words of 64 bits: a CPU driver loads word by word, whatever their length.
alias wide = vec2<u64>;

fn load_wide(v: wide) -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4<u32>(u32(v.x), u32(v.x >> 32u), u32(v.y), u32(v.y >> 32u)));
}
