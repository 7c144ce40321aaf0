// How far a step's second and third order are apart, in units of what is tolerated at each value:
//   to = sqrt(mean of ((low - high) / max(absolute, relative max(|low|, |before|)))^2)
// over all values of all images (DPM-Solver adaptive, Lu et al. 2022, arXiv 2206.00927, section 4.2).
// low, high, before [image, cell, c4] f32 in quads -> one f32.
//
// One workgroup: its sums are in the same order on every run, and a latent is small beside a network call.

struct Params {
    total: u32,     // quads of all images
    c4: u32,
    channels: u32,
    values: f32,    // of all images, without padding
    low_first: u32, // quads
    high_first: u32,
    before_first: u32,
    to_first: u32,  // values
    absolute: f32,  // tolerance at the least
    relative: f32,  // tolerance as a share of a value
}

@group(0) @binding(0) var<uniform> p: Params;
#import helpers/latents
@group(0) @binding(1) var<storage, read_write> low: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> high: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> before: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> to: array<f32>;

alias Sum = f32;
const SIZE = 256u;
#import helpers/sum_all

@compute @workgroup_size(SIZE)
fn main(@builtin(local_invocation_index) t: u32) {
    var sum = 0.0;
    for (var i = t; i < p.total; i += SIZE) {
        let l = low[p.low_first + i];
        let largest = max(abs(l), abs(before[p.before_first + i]));
        let tolerated = max(vec4<f32>(p.absolute), p.relative * largest);
        let off = unpadded((l - high[p.high_first + i]) / tolerated, i % p.c4, p.channels);
        sum += dot(off, off);
    }
    let whole = sum_all(t, sum);
    if t == 0u {
        to[p.to_first] = sqrt(whole / p.values);
    }
}
