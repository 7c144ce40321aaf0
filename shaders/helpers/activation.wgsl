// Activation functions, by number: 0 none, 1 SiLU, 2 GELU, 3 quick GELU.

fn silu(x: vec4<f32>) -> vec4<f32> {
    return x / (1.0 + exp(-x));
}

fn quick_gelu(x: vec4<f32>) -> vec4<f32> {
    return x / (1.0 + exp(-1.702 * x));
}

// erf(x) in f32 to 1.4 ulp: x + x·P(x²) below 1, from there 1 - exp(-t·Q(t)) with t = |x| up to 4,
// where erf is 1 in f32. P and Q are Chebyshev fits of erf(x)/x - 1 and of -ln(erfc(t))/t.
// Both branches are computed and one is chosen: four lanes rarely agree on a branch.
fn erf4(x: vec4<f32>) -> vec4<f32> {
    let s = x * x;
    var near = vec4<f32>(7.875874871e-5);
    near = fma(near, s, vec4<f32>(-8.016864303e-4));
    near = fma(near, s, vec4<f32>(5.189087242e-3));
    near = fma(near, s, vec4<f32>(-2.685421146e-2));
    near = fma(near, s, vec4<f32>(1.128359437e-1));
    near = fma(near, s, vec4<f32>(-3.761262596e-1));
    near = fma(near, s, vec4<f32>(1.283791661e-1));
    near = fma(near, x, x);
    let t = min(abs(x), vec4<f32>(4.0));
    var far = vec4<f32>(1.630929e-5);
    far = fma(far, t, vec4<f32>(-3.691623861e-4));
    far = fma(far, t, vec4<f32>(3.805152839e-3));
    far = fma(far, t, vec4<f32>(-2.4032600224e-2));
    far = fma(far, t, vec4<f32>(1.0644119233e-1));
    far = fma(far, t, vec4<f32>(6.3510936499e-1));
    far = fma(far, t, vec4<f32>(1.1286351681));
    far = sign(x) * (1.0 - exp(-far * t));
    return select(near, far, t >= vec4<f32>(1.0));
}

fn gelu(x: vec4<f32>) -> vec4<f32> {
    return 0.5 * x * (1.0 + erf4(x * 0.70710678118654752));
}

fn activate(x: vec4<f32>, f: u32) -> vec4<f32> {
    switch f {
        case 1u: { return silu(x); }
        case 2u: { return gelu(x); }
        case 3u: { return quick_gelu(x); }
        default: { return x; }
    }
}
