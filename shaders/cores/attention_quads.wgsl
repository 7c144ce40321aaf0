// Queries, keys and values of the attention kernels by quads of a head.
#import cores/attention

fn query(row: u32, token: u32, head: u32, quad: u32) -> vec4<f32> {
    let i = (row * p.queries + token) * p.q_stride + p.q_offset + head * DIM4 + quad;
    if MERGED {
        return load_wide(kv[i]);
    }
    return load_wide(q[i]);
}

fn key(row: u32, token: u32, head: u32, quad: u32) -> vec4<f32> {
    return load_wide(kv[row * p.kv_row + token * p.kv_stride + p.k_offset + head * DIM4 + quad]);
}

fn value(row: u32, token: u32, head: u32, quad: u32) -> vec4<f32> {
    return load_wide(kv[row * p.kv_row + token * p.kv_stride + p.v_offset + head * DIM4 + quad]);
}
