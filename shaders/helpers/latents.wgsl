// Latents of a sampling step: f32, [image, cell, c4] in quads, zeros in the padding channels of the last.

// v, the values of quad `quad`, with zeros in the padding channels.
fn unpadded(v: vec4<f32>, quad: u32, channels: u32) -> vec4<f32> {
    let c = (quad * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
    return select(vec4<f32>(0.0), v, c < vec4<u32>(channels));
}

// Whether a value is infinite or not a number, by its bits: compilers may take floats for finite.
fn is_broken(v: vec4<f32>) -> bool {
    let exponent = vec4<u32>(0x7f800000u);
    return any((bitcast<vec4<u32>>(v) & exponent) == exponent);
}
