// What changes from step to step while parameters and bindings stay: coefficients, noise levels, the number of
// the step. A kernel's own begin at p.scalars. They are held as bits: a small number's bits taken for a float
// are a denormal, which a device may flush to zero.

@group(0) @binding(1) var<uniform> scalars: array<vec4<u32>, 64>;

fn scalars4(i: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(scalars[p.scalars + i]);
}
