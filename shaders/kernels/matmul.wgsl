// Linear layer: y = act(x·W + b + vector) + residual at each position.
// x [m, c], W [c][n] (packed at load), y [m, n]; channels innermost, in quads.
// Also 1×1 convolutions, which in NHWC are the same thing.
#import helpers/activation
#import cores/gemm

const TAPS = 1u;
const ALL_TAPS = 1u;
const PADDED = false;

// Past the last position that one again: its result is not stored.
fn x_place(m: u32) -> vec3<i32> {
    return vec3<i32>(i32(min(m, p.m - 1u) * p.c4));
}

fn x_at(place: vec3<i32>, tap: u32) -> i32 {
    return place.x;
}
