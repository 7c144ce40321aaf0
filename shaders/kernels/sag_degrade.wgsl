// Self-Attention Guidance between its two network calls (Hong et al. 2022, arXiv 2210.00939):
//   score    = sum_e w_e c_e / sum_e w_e, column sums c_e brought to the latent's size by the nearest position
//   mask     = score > threshold
//   degraded = base blurred where the mask is 1: 9x9 Gaussian, edges reflected without repeating them
//   input    = degraded + x - base, under the noise of the step
// base, x -> degraded, input [image, cell, c4] f32; mask [image, cell], 0 or 1.
// Four vec4s an entry in the table: (first line, first column, height, width) of its area, (-, -, first weight, -),
// (height, width of the map, first column sum of image 0, sums from image to image), (f32: height of the map /
// height of the area, the same of widths, -, -). The ratios come from the host: a device's division may be off
// in the last place, and all cells of a line would then have another position.
// GIVEN: the mask is read. SINGLE: one entry that covers all with one weight; its mean is itself, to the bit.
//
// One invocation a cell, since the mask is one for all channels. A blur of two passes would save products, but
// take a dispatch and a latent more; sums run as on the host, nine lines of nine taps each.

struct Params {
    total: u32,      // cells of all images
    width: u32,      // invocations in one y of the grid
    latent_height: u32,
    latent_width: u32,
    c4: u32,
    entries: u32,
    threshold: f32,
    tap0: f32,       // weights of the blur by distance from its centre
    tap1: f32,
    tap2: f32,
    tap3: f32,
    tap4: f32,
    table_first: u32,
    base_first: u32, // quads
    x_first: u32,
    degraded_first: u32,
    input_first: u32,
    mask_first: u32, // values
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> table: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> weights: array<f32>;
@group(0) @binding(3) var<storage, read_write> columns: array<f32>;
@group(0) @binding(4) var<storage, read_write> base: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> x: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> degraded: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> input: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> mask: array<u32>;

const REACH = 4;

// The column sum nearest to a cell of an entry's area.
fn column(entry: u32, image: u32, line: u32, across: u32) -> f32 {
    let map = table[entry + 2u];
    let ratio = bitcast<vec4<f32>>(table[entry + 3u]);
    let at_line = min(u32(f32(line) * ratio.x), map.x - 1u);
    let at_column = min(u32(f32(across) * ratio.y), map.y - 1u);
    return columns[map.z + (image * map.w) + (at_line * map.y) + at_column];
}

fn score(image: u32, line: u32, across: u32) -> f32 {
    if SINGLE {
        return column(p.table_first, image, line, across);
    }
    var sum = 0.0;
    var total = 0.0;
    for (var e = 0u; e < p.entries; e += 1u) {
        let entry = p.table_first + (4u * e);
        let area = table[entry];
        // Before the area this wraps around, and is beyond it too.
        let l = line - area.x;
        let c = across - area.y;
        if l < area.z && c < area.w {
            let w = weights[table[entry + 1u].z + (l * area.w) + c];
            sum += w * column(entry, image, l, c);
            total += w;
        }
    }
    if total == 0.0 {
        return 0.0;
    }
    return sum / total;
}

fn reflect_at(i: i32, length: u32) -> u32 {
    let last = i32(length) - 1;
    let inside = abs(i);
    return u32(select(inside, (2 * last) - inside, inside > last));
}

// The base around a cell; `first` is the quad in question of the image's cell 0.
fn blurred(first: u32, line: u32, across: u32) -> vec4<f32> {
    var taps = array<f32, 5>(p.tap0, p.tap1, p.tap2, p.tap3, p.tap4);
    var sum = vec4<f32>(0.0);
    for (var dy = -REACH; dy <= REACH; dy += 1) {
        let start = first + (reflect_at(i32(line) + dy, p.latent_height) * p.latent_width * p.c4);
        var of_line = vec4<f32>(0.0);
        for (var dx = -REACH; dx <= REACH; dx += 1) {
            of_line += taps[abs(dx)] * base[start + (reflect_at(i32(across) + dx, p.latent_width) * p.c4)];
        }
        sum += taps[abs(dy)] * of_line;
    }
    return sum;
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = (id.y * p.width) + id.x;
    if i >= p.total {
        return;
    }
    let cells = p.latent_height * p.latent_width;
    let image = i / cells;
    let line = (i % cells) / p.latent_width;
    let across = i % p.latent_width;
    var masked = false;
    if GIVEN {
        masked = mask[p.mask_first + i] != 0u;
    } else {
        masked = score(image, line, across) > p.threshold;
        mask[p.mask_first + i] = u32(masked);
    }
    for (var quad = 0u; quad < p.c4; quad += 1u) {
        let at = (i * p.c4) + quad;
        let plain = base[p.base_first + at];
        var v = plain;
        if masked {
            v = blurred(p.base_first + (image * cells * p.c4) + quad, line, across);
        }
        degraded[p.degraded_first + at] = v;
        input[p.input_first + at] = (v + x[p.x_first + at]) - plain;
    }
}
