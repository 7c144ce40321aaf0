// The sum of what the invocations of a workgroup hold, pairwise and in a fixed order. Who imports it says what a Sum
// is, and how many invocations a workgroup has: SIZE, a power of two.

var<workgroup> parts: array<Sum, SIZE>;

// The whole of what all invocations `t` hold, in each of them.
fn sum_all(t: u32, own: Sum) -> Sum {
    parts[t] = own;
    workgroupBarrier();
    for (var half = SIZE / 2u; half > 0u; half /= 2u) {
        if t < half {
            parts[t] += parts[t + half];
        }
        workgroupBarrier();
    }
    let whole = parts[0];
    // The next sum writes there.
    workgroupBarrier();
    return whole;
}
