// What the matrix product and the convolution share: the operands of the sum.
//
//   sum[m, n] = Σ_tap Σ_c x[position(m, tap), c] · w[tap, c, n]
//
// c counts input channels. A linear layer has one tap, a 3×3 convolution nine (implicit GEMM: no
// im2col buffer), and of an upsampled map four in each phase. Each shader says where x is read:
// x_place(m), all that does not depend on the tap, then x_at(place, tap), the first quad there or, for
// the convolution, -1 outside.
// Each core says how it reads w, at binding 5.
#import cores/epilogue

@group(0) @binding(6) var<storage, read_write> x: array<wide>;

// The first tap in w of the phase that a row belongs to.
fn w_tap(m: u32) -> u32 {
    if UPSAMPLED {
        return m / p.phase_m * TAPS;
    }
    return 0u;
}

fn x_base(m: u32, tap: u32) -> i32 {
    return x_at(x_place(m), tap);
}
