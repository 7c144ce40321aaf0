// What the attention kernels share. Queries and keys-and-values are projections [row, token, c]
// in which a head takes DIM4 quads from its offset on; MERGED: all three stand in one tensor
// (binding kv), and the queries' own binding is not used.

struct Params {
    queries: u32,   // tokens of a row
    keys: u32,
    heads: u32,
    q_stride: u32,  // quads of a token
    kv_stride: u32,
    kv_row: u32,    // quads from a row to the next: keys and values may be slices of more
    q_offset: u32,  // first quad of head 0
    k_offset: u32,
    v_offset: u32,
    scale: f32,     // 1/√d
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> q: array<elem4>;
@group(0) @binding(2) var<storage, read_write> kv: array<elem4>;

fn query(row: u32, token: u32, head: u32, quad: u32) -> vec4<f32> {
    let i = (row * p.queries + token) * p.q_stride + p.q_offset + head * DIM4 + quad;
    if MERGED {
        return load4(kv[i]);
    }
    return load4(q[i]);
}

fn key(row: u32, token: u32, head: u32, quad: u32) -> vec4<f32> {
    return load4(kv[row * p.kv_row + token * p.kv_stride + p.k_offset + head * DIM4 + quad]);
}

fn value(row: u32, token: u32, head: u32, quad: u32) -> vec4<f32> {
    return load4(kv[row * p.kv_row + token * p.kv_stride + p.v_offset + head * DIM4 + quad]);
}
