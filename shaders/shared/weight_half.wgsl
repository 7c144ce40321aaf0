// Weights in f16 beside x in f32, where a shader has no words of 64 bits; see shared/weight_long_half.
alias weight = vec2<u32>;

fn load_weight(v: weight) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(v.x), unpack2x16float(v.y));
}
