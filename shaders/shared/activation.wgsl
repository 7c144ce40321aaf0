// Activation functions, chosen by the constant ACTIVATION: 0 none, 1 SiLU, 2 GELU, 3 quick GELU.

fn silu(x: vec4<f32>) -> vec4<f32> {
    return x / (1.0 + exp(-x));
}

fn quick_gelu(x: vec4<f32>) -> vec4<f32> {
    return x / (1.0 + exp(-1.702 * x));
}

// erf(x) in f32 to about 1 ulp: a polynomial in x² near zero, 1 - exp(polynomial) elsewhere.
// Both branches are computed and one is chosen: four lanes rarely agree on a branch.
fn erf4(x: vec4<f32>) -> vec4<f32> {
    let t = abs(x);
    let s = x * x;
    var far = fma(vec4<f32>(-1.72853470e-5), t, vec4<f32>(3.83197126e-4));
    let odd = fma(vec4<f32>(-3.88396438e-3), t, vec4<f32>(2.42546219e-2));
    far = fma(far, s, odd);
    far = fma(far, t, vec4<f32>(-1.06777877e-1));
    far = fma(far, t, vec4<f32>(-6.34846687e-1));
    far = fma(far, t, vec4<f32>(-1.28717512e-1));
    far = fma(far, t, -t);
    far = sign(x) * (1.0 - exp(far));
    var near = vec4<f32>(-5.96761703e-4);
    near = fma(near, s, vec4<f32>(4.99119423e-3));
    near = fma(near, s, vec4<f32>(-2.67681349e-2));
    near = fma(near, s, vec4<f32>(1.12819925e-1));
    near = fma(near, s, vec4<f32>(-3.76125336e-1));
    near = fma(near, s, vec4<f32>(1.28379166e-1));
    near = fma(near, x, x);
    return select(near, far, t > vec4<f32>(0.927734375));
}

fn gelu(x: vec4<f32>) -> vec4<f32> {
    // The argument is clamped where erf is 1 to the last bit, or exp would meet infinity.
    let z = clamp(x * 0.70710678118654752, vec4<f32>(-6.0), vec4<f32>(6.0));
    return 0.5 * x * (1.0 + erf4(z));
}

fn activate(x: vec4<f32>) -> vec4<f32> {
    switch ACTIVATION {
        case 1u: { return silu(x); }
        case 2u: { return gelu(x); }
        case 3u: { return quick_gelu(x); }
        default: { return x; }
    }
}
