// Classifier-free guidance with rescaling (Lin et al. 2023, arXiv 2305.08891, section 3.4), in terms
// of v prediction, image by image:
//   v = (x / (s^2 + 1) - D) root / s of D_c and D_u, root = sqrt(s^2 + 1)
//   v_cfg = v_u + (v_c - v_u) cfg;   v = m v_cfg std(v_c) / std(v_cfg) + (1 - m) v_cfg
//   y = x / (s^2 + 1) - v s / root
// cond, uncond, x, y [image, cell, c4] f32 in quads.
// Scalars: (s^2 + 1, root, s, cfg), (m, number of the step, -, -). flags[1] becomes the first step with a result
// that is not finite.
//
// Predictions go in and out as x - D, as on the host: at a sigma of thousands the rounding of that is what
// pictures are made with. One workgroup an image, which passes over it three times: means, deviations from them,
// results. Sums run in an order that depends on the size of an image alone.

struct Params {
    size4: u32,        // quads of an image
    c4: u32,
    channels: u32,
    values: f32,       // of an image, without padding
    zero: u32,         // what no compiler knows to be 0
    cond_first: u32,   // quads
    uncond_first: u32,
    x_first: u32,
    y_first: u32,
    scalars: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
#import helpers/scalars
#import helpers/latents
@group(0) @binding(2) var<storage, read_write> cond: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> uncond: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> x: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> flags: array<atomic<u32>>;

alias Sum = vec2<f32>;
const SIZE = 256u;
#import helpers/sum_all

fn four(v: vec4<f32>) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}

// x - (x - d), which compilers may take for d: they must not see through the difference.
fn rounded(x: vec4<f32>, d: vec4<f32>) -> vec4<f32> {
    return x - bitcast<vec4<f32>>(bitcast<vec4<u32>>(x - d) ^ vec4<u32>(p.zero));
}

struct Velocity {
    cond: vec4<f32>,
    guided: vec4<f32>,
}

// With zeros in the padding channels.
fn velocity(at: u32) -> Velocity {
    let s = scalars4(0u);
    let noisy = x[p.x_first + at];
    let scaled = noisy / s.x;
    let c = (scaled - rounded(noisy, cond[p.cond_first + at])) * s.y / s.z;
    let u = (scaled - rounded(noisy, uncond[p.uncond_first + at])) * s.y / s.z;
    let quad = at % p.c4;
    return Velocity(unpadded(c, quad, p.channels), unpadded(u + (s.w * (c - u)), quad, p.channels));
}

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let first = wid.x * p.size4;
    var sums = vec2<f32>(0.0);
    for (var i = t; i < p.size4; i += SIZE) {
        let v = velocity(first + i);
        sums += vec2<f32>(four(v.cond), four(v.guided));
    }
    let means = sum_all(t, sums) / p.values;
    var squares = vec2<f32>(0.0);
    for (var i = t; i < p.size4; i += SIZE) {
        let v = velocity(first + i);
        let c = unpadded(v.cond - means.x, i % p.c4, p.channels);
        let g = unpadded(v.guided - means.y, i % p.c4, p.channels);
        squares += vec2<f32>(four(c * c), four(g * g));
    }
    let deviations = sqrt(sum_all(t, squares) / max(p.values - 1.0, 1.0));
    let ratio = deviations.x / deviations.y;
    let s = scalars4(0u);
    let multiplier = scalars4(1u).x;
    for (var i = t; i < p.size4; i += SIZE) {
        let at = first + i;
        let g = velocity(at).guided;
        let v = (multiplier * (g * ratio)) + ((1.0 - multiplier) * g);
        let noisy = x[p.x_first + at];
        let result = unpadded(rounded(noisy, (noisy / s.x) - (v * s.z / s.y)), i % p.c4, p.channels);
        y[p.y_first + at] = result;
        if is_broken(result) {
            atomicMin(&flags[1], scalars[p.scalars + 1u].y);
        }
    }
}
