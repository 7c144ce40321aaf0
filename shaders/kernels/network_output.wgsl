// The prediction of the picture under the noise: to[cell] = x[row's place, cell] * keep - out[row, cell] * take.
// x [image, cell, c4], out [row, cell, c4] -> to, for each row [cell, c4] from the quad that its table names; all
// f32. Padding channels of `out` may hold anything.
// With COLUMNS the row's column sums [row, position] go to where its table says, too.
// Scalars: (keep, take, number of the step, -); keep and take are src/network.rs's for each kind of network.
// flags[0] becomes the first step with a prediction that is not finite: a look at each result on the host
// would cost a wait a step.

struct Params {
    total: u32,        // quads of all predictions
    all: u32,          // and column sums
    width: u32,        // invocations in one y of the grid
    cells: u32,        // of a row's area
    area_width: u32,
    c4: u32,
    channels: u32,
    positions: u32,    // column sums of a row
    latent_cells: u32, // of a whole image
    latent_width: u32,
    latent_first: u32, // quads
    table_first: u32,  // vec4s
    scalars: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
#import helpers/rows
#import helpers/latents
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> x: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> to: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> flags: array<atomic<u32>>;
@group(0) @binding(7) var<storage, read_write> columns: array<f32>;
@group(0) @binding(8) var<storage, read_write> columns_to: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = (id.y * p.width) + id.x;
    if i >= p.all {
        return;
    }
    if COLUMNS && i >= p.total {
        let at = i - p.total;
        let row = at / p.positions;
        columns_to[table[row_in_table(row) + 1u].y + (at % p.positions)] = columns[at];
        return;
    }
    let quad = i % p.c4;
    let at = i / p.c4;
    let row = at / p.cells;
    let cell = at % p.cells;
    let factors = scalars4(0u);
    let noisy = x[latent_at(row, cell) + quad];
    let v = unpadded((noisy * factors.x) - (out[i] * factors.y), quad, p.channels);
    to[table[row_in_table(row) + 1u].x + (cell * p.c4) + quad] = v;
    if is_broken(v) {
        atomicMin(&flags[0], scalars[p.scalars].z);
    }
}
