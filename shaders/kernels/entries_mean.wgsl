// The mean prediction over the conditioning entries of a side: y = sum_e w_e D_e / sum_e w_e at each cell, over
// the entries whose area holds it; 0 where nothing counts (ComfyUI starts its count at 1e-37).
// D_e [image, cell of the area, c4] in quads, w_e [cell of the area] -> y [image, cell, c4], all f32.
// Two vec4s an entry in the table: (first line, first column, height, width) of its area,
// (first quad of image 0's prediction, quads from image to image, first weight, -).
//
// Entries are summed in the order of the table, the same for each cell, whatever batch it is in.

struct Params {
    total: u32,       // quads of y
    width: u32,       // invocations in one y of the grid
    cells: u32,       // of an image
    latent_width: u32,
    c4: u32,
    entries: u32,
    table_first: u32, // vec4s
    y_first: u32,     // quads
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> table: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> weights: array<f32>;
@group(0) @binding(3) var<storage, read_write> predictions: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = (id.y * p.width) + id.x;
    if i >= p.total {
        return;
    }
    let quad = i % p.c4;
    let at = i / p.c4;
    let image = at / p.cells;
    let line = (at % p.cells) / p.latent_width;
    let across = (at % p.cells) % p.latent_width;
    var sum = vec4<f32>(0.0);
    var total = 0.0;
    for (var e = 0u; e < p.entries; e += 1u) {
        let area = table[p.table_first + (2u * e)];
        let places = table[p.table_first + (2u * e) + 1u];
        // Before the area this wraps around, and is beyond it too.
        let l = line - area.x;
        let c = across - area.y;
        if l < area.z && c < area.w {
            let cell = (l * area.w) + c;
            let w = weights[places.z + cell];
            sum += w * predictions[places.x + (image * places.y) + (cell * p.c4) + quad];
            total += w;
        }
    }
    var mean = vec4<f32>(0.0);
    if total != 0.0 {
        mean = sum / total;
    }
    y[p.y_first + i] = mean;
}
