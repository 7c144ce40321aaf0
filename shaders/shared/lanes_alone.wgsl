// Kernels for CPU drivers on a device without subgroups or 64-bit integers: each lane loads all that it
// needs, SHARED is 1. With them SHARED lanes load a part of it each, and `of_lane(v, lane)` is written out
// as the language's own `subgroupBroadcast`.

fn of_lane(v: vec4<f32>, lane: u32) -> vec4<f32> {
    return v;
}
