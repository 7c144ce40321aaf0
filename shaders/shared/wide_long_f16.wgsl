// A quad of f16 in one word of 64 bits: a CPU driver loads word by word, whatever their length.
alias wide = u64;

fn load_wide(v: wide) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(u32(v)), unpack2x16float(u32(v >> 32u)));
}
