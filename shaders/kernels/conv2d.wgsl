// 3×3 convolution as an implicit matrix product: the nine taps are nine products with shifted
// positions, so no im2col buffer exists.
// x [row, height, width, c], W [ky][kx][c][n] (packed at load), y [row, height', width', n].
// UPSAMPLED: x is read as if upsampled x2 in both directions (nearest). Three taps then see two
// stored positions of an axis, so those that see the same are added when weights are packed: four taps,
// W [py][px][dy][dx][c][n], where y's line and column are even or odd.
#import helpers/activation
#import cores/gemm

const TAPS = select(9u, 4u, UPSAMPLED);
const ALL_TAPS = select(9u, 16u, UPSAMPLED);
const PADDED = true;   // the map is surrounded by zeros

// Line and column at tap 0, and the first stored line of the row.
fn x_place(m: u32) -> vec3<i32> {
    if m >= p.m {
        return vec3<i32>(-0x10000);
    }
    if UPSAMPLED {
        let c = cell(m);
        if !c.inside {
            return vec3<i32>(-0x10000);
        }
        // Lines 2i - 1 and 2i are made of the stored ones i - 1 and i.
        let first = vec2<i32>(vec2<u32>(c.line + 1u, c.column + 1u) / 2u) - 1;
        return vec3<i32>(first, i32(c.row * p.in_height) - i32(p.first_in));
    }
    let row = m / p.positions;
    let at = m % p.positions;
    let y0 = (at / p.out_width + p.first_out) * p.stride;
    let x0 = at % p.out_width * p.stride;
    return vec3<i32>(vec3<u32>(y0, x0, row * p.in_height)) - vec3<i32>(vec3<u32>(p.pad, p.pad, p.first_in));
}

fn x_at(place: vec3<i32>, tap: u32) -> i32 {
    // Unsigned: a coordinate before the picture wraps to a huge one and fails the same test.
    let side = select(3u, 2u, UPSAMPLED);
    let iy = u32(place.x) + tap / side;
    let ix = u32(place.y) + tap % side;
    if iy >= p.in_height || ix >= p.in_width {
        return -1;
    }
    return ((place.z + i32(iy)) * i32(p.in_width) + i32(ix)) * i32(p.c4);
}
