// Values of other SIMD lanes, in kernels for CPU drivers: of_lane(v, lane) is the v of lane `lane`. Where lanes share
// what they load, SHARED of them read a part each, and this is written out as the language's own
// `subgroupBroadcast`. Where they do not, each lane loads all that it needs, and SHARED is 1.
#if !SHARED_LOADS
fn of_lane(v: vec4<f32>, lane: u32) -> vec4<f32> {
    return v;
}
#endif
