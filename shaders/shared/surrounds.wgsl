// What surrounds a product's sum, where the variant says so (shared/epilogue asks).

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
