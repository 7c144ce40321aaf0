// What the attention kernels share. Queries and keys-and-values are projections [row, token, c]
// in which a head takes DIM4 quads from its offset on; MERGED: all three are in one tensor
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
@group(0) @binding(1) var<storage, read_write> q: array<wide>;
@group(0) @binding(2) var<storage, read_write> kv: array<wide>;
