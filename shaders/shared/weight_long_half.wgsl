// Weights in f16 beside x in f32, a quad in one word of 64 bits: a CPU driver loads word by word, whatever
// their length. Small f16 must not become zero: drivers that compute on the CPU convert them, and the tests see
// to it.
alias weight = u64;

fn load_weight(v: weight) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(u32(v)), unpack2x16float(u32(v >> 32u)));
}
