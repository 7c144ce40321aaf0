// Storage of a product's weights on CPU drivers.
#if F16_WEIGHTS
// In f16 beside x in f32. Small f16 must not become zero: drivers that compute on the CPU convert them, and the
// tests see to it.
#if SHARED_LOADS
// A quad in one word of 64 bits: a CPU driver loads word by word, whatever their length.
alias weight = u64;

fn load_weight(v: weight) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(u32(v)), unpack2x16float(u32(v >> 32u)));
}
#else
alias weight = vec2<u32>;

fn load_weight(v: weight) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(v.x), unpack2x16float(v.y));
}
#endif
#else
// As x: as much is read at once.
alias weight = wide;

fn load_weight(v: weight) -> vec4<f32> {
    return load_wide(v);
}
#endif
