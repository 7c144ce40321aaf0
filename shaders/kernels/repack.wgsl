// A stretch of a weight as the file holds it -> as the kernels read it.
// raw: [out][in][tap] in the file's type TYPE (0 f32, 1 f16, 2 bf16, 3 f8 e4m3, 4 f8 e5m2)
// packed: [tap][in4][out4] in f32, or with HALF in f16 (rounded to nearest even), zeros as padding.
// Numbers are taken apart and rounded as integers: devices may flush small f16 to zero or round in
// their own way, and weights must be the same on all. faults: how many values are not finite, and
// how many are beyond f16, a pair for each weight.
// UPSAMPLED: a 3×3 window on a map upsampled x2, packed [2][2][2][2][in4][out4]: of an axis' three taps, those
// that see the same stored position are added in f32. For a result at an even place they are the first,
// then the second and third; at an odd one the first and second, then the third.
// A workgroup takes 8 neighbouring places of the file by 8 quads of outputs, so that reads and
// writes both touch memory in runs.

struct Params {
    places: u32,   // of an output in the file: inputs × taps
    taps: u32,     // of the packed weight
    outs: u32,     // outputs in this stretch
    in4: u32,      // padded inputs
    out4: u32,     // quads of all outputs
    first4: u32,   // the stretch's first quad
    fault: u32,    // the weight's pair of faults
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> raw: array<u32>;
@group(0) @binding(2) var<storage, read_write> packed: array<u32>;
@group(0) @binding(3) var<storage, read_write> faults: array<atomic<u32>>;

const INFINITY = 0x7f800000u;

// A small float with `mantissa` bits below `bits`, sign in `sign` (bit 31), to f32: exact.
fn widened(sign: u32, bits: u32, mantissa: u32, bias: u32) -> u32 {
    let exponent = bits >> mantissa;
    let fraction = bits & ((1u << mantissa) - 1u);
    if exponent == 0u {
        let unit = bitcast<f32>((128u - bias - mantissa) << 23u);
        return sign | bitcast<u32>(f32(fraction) * unit);
    }
    return sign | ((exponent + 127u - bias) << 23u) | (fraction << (23u - mantissa));
}

// Element `at` of raw as the bits of an f32.
fn single(at: u32) -> u32 {
    switch TYPE {
        case 0u: { return raw[at]; }
        case 1u: {
            let h = raw[at / 2u] >> (at % 2u * 16u);
            let sign = (h & 0x8000u) << 16u;
            if (h & 0x7c00u) == 0x7c00u {
                return sign | INFINITY | ((h & 0x3ffu) << 13u);
            }
            return widened(sign, h & 0x7fffu, 10u, 15u);
        }
        case 2u: { return (raw[at / 2u] >> (at % 2u * 16u)) << 16u; }
        default: {
            let b = raw[at / 4u] >> (at % 4u * 8u);
            let sign = (b & 0x80u) << 24u;
            if TYPE == 3u {
                // No infinity; NaN is all ones.
                if (b & 0x7fu) == 0x7fu {
                    return sign | INFINITY | 1u;
                }
                return widened(sign, b & 0x7fu, 3u, 7u);
            }
            if (b & 0x7cu) == 0x7cu {
                return sign | INFINITY | ((b & 3u) << 21u);
            }
            return widened(sign, b & 0x7fu, 2u, 15u);
        }
    }
}

// The bits of an f32 to those of the nearest f16, ties to even.
fn half(b: u32) -> u32 {
    let sign = (b >> 16u) & 0x8000u;
    let a = b & 0x7fffffffu;
    if a > INFINITY {
        return sign | 0x7e00u;
    }
    if a >= 0x47800000u {
        return sign | 0x7c00u;
    }
    if a >= 0x38800000u {
        return sign | ((a - 0x38000000u + 0xfffu + ((a >> 13u) & 1u)) >> 13u);
    }
    if a < 0x33000000u {
        return sign;
    }
    // Below 2^-14, f16 counts in steps of 2^-24.
    let shift = 126u - (a >> 23u);
    let m = (a & 0x7fffffu) | 0x800000u;
    let steps = m >> shift;
    let rest = m & ((1u << shift) - 1u);
    let tie = 1u << (shift - 1u);
    return sign | (steps + u32(rest > tie || (rest == tie && (steps & 1u) == 1u)));
}

fn checked(bits: u32) -> u32 {
    let a = bits & 0x7fffffffu;
    if a >= INFINITY {
        atomicAdd(&faults[p.fault], 1u);
    } else if HALF && a > 0x477fe000u {
        atomicAdd(&faults[p.fault + 1u], 1u);
    }
    return bits;
}

// Output `out` at a place of the packed weight, channels of the input before taps.
fn value(out: u32, place: u32) -> u32 {
    if !UPSAMPLED {
        return checked(single(out * p.places + place));
    }
    let start = out * p.places + place / 16u * 9u;
    let odd = vec2<u32>(place >> 3u, place >> 2u) & vec2<u32>(1u);    // of the result's line and column
    let seen = vec2<u32>(place >> 1u, place) & vec2<u32>(1u);         // which of two stored positions
    let first = select(vec2<u32>(0u), 1u + odd, seen == vec2<u32>(1u));
    let last = select(odd, vec2<u32>(2u), seen == vec2<u32>(1u));
    var sum = 0.0;
    for (var y = first.x; y <= last.x; y++) {
        for (var x = first.y; x <= last.y; x++) {
            sum += bitcast<f32>(single(start + 3u * y + x));
        }
    }
    return checked(bitcast<u32>(sum));
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let place = wid.x * 8u + t % 8u;
    let quad = wid.y * 8u + t / 8u;
    if place >= p.in4 * p.taps || quad * 4u >= p.outs {
        return;
    }
    var v = vec4<u32>(0u);
    for (var k = 0u; k < 4u; k++) {
        let out = quad * 4u + k;
        if out < p.outs && (place < p.places || (UPSAMPLED && place / 16u < p.places / 9u)) {
            v[k] = value(out, place);
        }
    }
    let to = (place % p.taps * p.in4 + place / p.taps) * p.out4 + p.first4 + quad;
    if HALF {
        packed[2u * to] = half(v.x) | (half(v.y) << 16u);
        packed[2u * to + 1u] = half(v.z) | (half(v.w) << 16u);
    } else {
        packed[4u * to] = v.x;
        packed[4u * to + 1u] = v.y;
        packed[4u * to + 2u] = v.z;
        packed[4u * to + 3u] = v.w;
    }
}
