// 3×3 convolution as an implicit matrix product: the nine taps are nine products with shifted
// positions, so no im2col buffer exists.
// x [row, height, width, c], W [ky][kx][c][n] (packed at load), y [row, height', width', n].
// UPSAMPLE: x is read as if each position stood twice in both directions (nearest).
#import shared/activation
#import shared/gemm

const TAPS = 9u;

// Index of the first input quad that output position m meets at `tap`, or -1 outside the picture.
fn x_base(m: u32, tap: u32) -> i32 {
    if m >= p.m {
        return -1;
    }
    let row = m / p.positions;
    let at = m % p.positions;
    // Unsigned: a coordinate before the picture wraps to a huge one and fails the same test.
    let iy = (at / p.out_width + p.first_out) * p.stride + tap / 3u - p.pad;
    let ix = at % p.out_width * p.stride + tap % 3u - p.pad;
    if iy >= p.in_height || ix >= p.in_width {
        return -1;
    }
    if UPSAMPLE {
        // A map of odd size was halved rounding up.
        let line = row * ((p.in_height + 1u) / 2u) + iy / 2u - p.first_in;
        return i32((line * ((p.in_width + 1u) / 2u) + ix / 2u) * p.c4);
    }
    return i32(((row * p.in_height + iy - p.first_in) * p.in_width + ix) * p.c4);
}
