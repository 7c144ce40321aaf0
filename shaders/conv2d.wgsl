// 3×3 convolution as an implicit matrix product: the nine taps are nine products with shifted
// positions, so no im2col buffer exists.
// x [row, height, width, c], W [ky][kx][c][n] (packed at load), y [row, height', width', n].
// UPSAMPLE: x is read as if each position stood twice in both directions (nearest).
#import shared/activation
#import shared/gemm

const TAPS = 9u;
const PADDED = true;   // what stands around the map is zero

// Line and column at tap 0, and the first stored line of the row.
fn x_place(m: u32) -> vec3<i32> {
    if m >= p.m {
        return vec3<i32>(-0x10000);
    }
    let row = m / p.positions;
    let at = m % p.positions;
    let y0 = (at / p.out_width + p.first_out) * p.stride;
    let x0 = at % p.out_width * p.stride;
    // A map of odd size was halved rounding up.
    let lines = select(p.in_height, (p.in_height + 1u) / 2u, UPSAMPLE);
    return vec3<i32>(vec3<u32>(y0, x0, row * lines)) - vec3<i32>(vec3<u32>(p.pad, p.pad, p.first_in));
}

fn x_at(place: vec3<i32>, tap: u32) -> i32 {
    // Unsigned: a coordinate before the picture wraps to a huge one and fails the same test.
    let iy = u32(place.x) + tap / 3u;
    let ix = u32(place.y) + tap % 3u;
    if iy >= p.in_height || ix >= p.in_width {
        return -1;
    }
    if UPSAMPLE {
        return ((place.z + i32(iy / 2u)) * i32((p.in_width + 1u) / 2u) + i32(ix / 2u)) * i32(p.c4);
    }
    return ((place.z + i32(iy)) * i32(p.in_width) + i32(ix)) * i32(p.c4);
}
