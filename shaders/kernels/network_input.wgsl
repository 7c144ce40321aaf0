// What a network reads: x[row, cell] = latent[row's place, cell] * c_in, and time[row] = embedding.
// latent [image, cell, c4] f32 -> x [row, cell, in4], zeros from c4 on; embedding [time4] f32, one for all
// rows -> time [row, time4]. x and time are in the network's storage.
// Scalars: (c_in, -, -, -); c_in = 1/√(σ² + 1) gives the network a picture of variance 1.
//
// One invocation a quad, those of x first, then those of time: a step of a small network is bound by its
// number of dispatches.

struct Params {
    x_total: u32,      // quads of x, all rows
    total: u32,        // and of time
    width: u32,        // invocations in one y of the grid
    cells: u32,        // of a row's area
    area_width: u32,
    in4: u32,
    c4: u32,
    time4: u32,
    latent_cells: u32, // of a whole image
    latent_width: u32,
    latent_first: u32, // quads
    table_first: u32,  // vec4s
    embedding_first: u32,
    scalars: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
#import helpers/rows
@group(0) @binding(3) var<storage, read_write> latent: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> embedding: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> x: array<elem4>;
@group(0) @binding(6) var<storage, read_write> time: array<elem4>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = (id.y * p.width) + id.x;
    if i >= p.total {
        return;
    }
    if i >= p.x_total {
        let at = i - p.x_total;
        time[at] = store4(embedding[p.embedding_first + (at % p.time4)]);
        return;
    }
    let quad = i % p.in4;
    let at = i / p.in4;
    var v = vec4<f32>(0.0);
    if quad < p.c4 {
        v = latent[latent_at(at / p.cells, at % p.cells) + quad] * scalars4(0u).x;
    }
    x[i] = store4(v);
}
