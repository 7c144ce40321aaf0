// Storage of activations and weights: f16, four channels as two words. Arithmetic stays f32, so
// packing and unpacking is all that is needed and no device feature is: this runs everywhere.
alias elem4 = vec2<u32>;

fn load4(v: elem4) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(v.x), unpack2x16float(v.y));
}

fn store4(v: vec4<f32>) -> elem4 {
    return vec2<u32>(pack2x16float(v.xy), pack2x16float(v.zw));
}
