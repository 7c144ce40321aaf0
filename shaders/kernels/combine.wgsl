// y = sum_k c_k a_k over latents, in the order of k: guidance and the updates of samplers, both linear.
// With MASKED the factor of a_k is c_k + d_k m(cell): inpainting's blends, m x + (1 - m) kept.
// a_k, y [image, cell, c4] f32 in quads; mask [1 or image, cell], f32.
// Scalars: c (two vec4s), with MASKED d (two), then (number of the step, -, -, -).
// flags[1] becomes the first step with a result that is not finite.
//
// OPERANDS latents have a binding each, as many as every device has room for; a sum of more goes on in a second
// dispatch from y, with FIRST the number of its first term. So its bits are those of one dispatch.

struct Params {
    total: u32,       // quads of y
    width: u32,       // invocations in one y of the grid
    c4: u32,
    cells: u32,       // of an image
    first0: u32,      // first quads of the operands
    first1: u32,
    first2: u32,
    first3: u32,
    first4: u32,
    first5: u32,
    y_first: u32,
    mask_first: u32,  // values
    mask_stride: u32, // from image to image: 0 is one mask for all
    scalars: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
#import helpers/scalars
#import helpers/latents
#repeat $k OPERANDS
@group(0) @binding(2 + $k) var<storage, read_write> a$k: array<vec4<f32>>;
#end
@group(0) @binding(2 + OPERANDS) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(3 + OPERANDS) var<storage, read_write> flags: array<atomic<u32>>;
#repeat $m MASKED
@group(0) @binding(4 + OPERANDS) var<storage, read_write> mask: array<f32>;
#end

fn factor(k: u32, m: f32) -> f32 {
    let c = scalars4(k / 4u)[k % 4u];
    if MASKED {
        return c + (scalars4(2u + (k / 4u))[k % 4u] * m);
    }
    return c;
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = (id.y * p.width) + id.x;
    if i >= p.total {
        return;
    }
    var m = 0.0;
#repeat $m MASKED
    let at = i / p.c4;
    m = mask[p.mask_first + ((at / p.cells) * p.mask_stride) + (at % p.cells)];
#end
    var sum = vec4<f32>(0.0);
    if FIRST > 0u {
        sum = y[p.y_first + i];
    }
#repeat $k OPERANDS
    let term$k = factor(FIRST + $ku, m) * a$k[p.first$k + i];
    if FIRST + $ku == 0u {
        sum = term$k;
    } else {
        sum += term$k;
    }
#end
    y[p.y_first + i] = sum;
    if is_broken(sum) {
        atomicMin(&flags[1], scalars[p.scalars + select(2u, 4u, MASKED)].x);
    }
}
