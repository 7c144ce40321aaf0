// Storage of activations and weights, four channels at a time. Arithmetic is f32 in each.
#if F16
#if COOPERATIVE
// As vectors that cooperative matrices can be loaded from.
alias elem4 = vec4<f16>;

fn load4(v: elem4) -> vec4<f32> {
    return vec4<f32>(v);
}

fn store4(v: vec4<f32>) -> elem4 {
    return vec4<f16>(v);
}
#else
// As two words, which are packed and unpacked: that takes no device feature, so it runs everywhere.
alias elem4 = vec2<u32>;

fn load4(v: elem4) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(v.x), unpack2x16float(v.y));
}

fn store4(v: vec4<f32>) -> elem4 {
    return vec2<u32>(pack2x16float(v.xy), pack2x16float(v.zw));
}
#endif
#else
alias elem4 = vec4<f32>;

fn load4(v: elem4) -> vec4<f32> {
    return v;
}

fn store4(v: vec4<f32>) -> elem4 {
    return v;
}
#endif
