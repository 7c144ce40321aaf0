// What products and attention read at once.
#if COOPERATIVE
// Operands of cooperative matrices, sixteen bytes at a time: widths are multiples of eight. They are read
// as words, for a vector is one load and a struct of two vectors is two. WGSL has no way from words to halves
// but this one through f32, which is exact, and which compilers leave out.
alias wide = vec4<u32>;

fn lower(v: wide) -> vec4<f16> {
    return vec4<f16>(vec4<f32>(unpack2x16float(v.x), unpack2x16float(v.y)));
}

fn upper(v: wide) -> vec4<f16> {
    return vec4<f16>(vec4<f32>(unpack2x16float(v.z), unpack2x16float(v.w)));
}
#else
#if SHARED_LOADS
// A CPU driver loads word by word, whatever their length: a quad in words of 64 bits.
#if F16
alias wide = u64;

fn load_wide(v: wide) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(u32(v)), unpack2x16float(u32(v >> 32u)));
}
#else
alias wide = vec2<u64>;

fn load_wide(v: wide) -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4<u32>(u32(v.x), u32(v.x >> 32u), u32(v.y), u32(v.y >> 32u)));
}
#endif
#else
// A quad, where nothing is gained by reading more.
alias wide = elem4;

fn load_wide(v: wide) -> vec4<f32> {
    return load4(v);
}
#endif
#endif
