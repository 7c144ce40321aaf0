// The epilogue's inputs, where the variant's constants say which there are (cores/epilogue asks).

fn has_bias() -> bool {
    return HAS_BIAS;
}

fn has_vector() -> bool {
    return HAS_VECTOR;
}

fn has_residual() -> bool {
    return HAS_RESIDUAL;
}

fn activation() -> u32 {
    return ACTIVATION;
}

fn bias_at(n: u32) -> vec4<f32> {
    return bias[n];
}

// The first quad of the vector for a position of y.
fn vector_at(m: u32) -> u32 {
    return m / p.positions * p.vector_stride4 + p.vector_offset4;
}
