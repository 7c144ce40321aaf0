// Operands of cooperative matrices, read sixteen bytes at a time: widths are multiples of eight. They are read
// as words, for a vector is one load and a struct of two vectors is two. WGSL has no way from words to halves
// but this one through f32, which is exact, and which compilers leave out.
alias wide = vec4<u32>;

fn lower(v: wide) -> vec4<f16> {
    return vec4<f16>(vec4<f32>(unpack2x16float(v.x), unpack2x16float(v.y)));
}

fn upper(v: wide) -> vec4<f16> {
    return vec4<f16>(vec4<f32>(unpack2x16float(v.z), unpack2x16float(v.w)));
}
