//! The quantile function of the Beta distribution, for the `beta` scheduler.

/// Lanczos' coefficients for `g = 7`, nine terms: `ln Γ` to about 1e-15.
const LANCZOS: [f64; 9] = [
    0.999_999_999_999_809_9,
    676.520_368_121_885_1,
    -1_259.139_216_722_402_8,
    771.323_428_777_653_1,
    -176.615_029_162_140_6,
    12.507_343_278_686_905,
    -0.138_571_095_265_720_12,
    9.984_369_578_019_572e-6,
    1.505_632_735_149_311_6e-7,
];

/// The `x` at which the Beta(`a`, `b`) distribution reaches probability `q`: the inverse of
/// [`regularised`]. `q` outside 0..=1 gives the nearest end.
pub(super) fn quantile(q: f64, a: f64, b: f64) -> f64 {
    if q <= 0.0 {
        return 0.0;
    }
    if q >= 1.0 {
        return 1.0;
    }
    // Bisection: the function is monotonic, and a schedule needs a few dozen values. Newton's method would need care at
    // both ends, where the density is infinite for a, b < 1.
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if regularised(middle, a, b) < q {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// The regularised incomplete beta function `I_x(a, b)` for `0 < x < 1`
/// (Numerical Recipes, 6.4; Abramowitz & Stegun 26.5.8).
fn regularised(x: f64, a: f64, b: f64) -> f64 {
    // The fraction converges fast only left of the mean; the right side is the mirror image.
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - regularised(1.0 - x, b, a);
    }
    let ln_beta = ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b);
    let front = (a * x.ln() + b * (-x).ln_1p() - ln_beta).exp() / a;
    front * continued_fraction(x, a, b)
}

/// The continued fraction of `I_x(a, b)`, by Lentz's method.
fn continued_fraction(x: f64, a: f64, b: f64) -> f64 {
    // Lentz's method divides by its partial results: a zero is replaced by something tiny.
    let nonzero = |v: f64| if v.abs() < 1e-300 { 1e-300 } else { v };
    let mut c = 1.0;
    let mut d = 1.0 / nonzero(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    for m in 1..300 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        for term in [even, odd] {
            d = 1.0 / nonzero(1.0 + term * d);
            c = nonzero(1.0 + term / c);
            fraction *= d * c;
        }
        if (d * c - 1.0).abs() < 1e-15 {
            break;
        }
    }
    fraction
}

/// `ln Γ(x)` for `x > 0.5`.
fn ln_gamma(x: f64) -> f64 {
    let x = x - 1.0;
    let t = x + 7.5;
    let series: f64 = (1u32..).zip(&LANCZOS[1..]).map(|(i, c)| c / (x + f64::from(i))).sum();
    0.5 * std::f64::consts::TAU.ln() + (x + 0.5) * t.ln() - t + (LANCZOS[0] + series).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_forms() {
        // Beta(1, 1) is uniform, Beta(1, 2) has 1 - (1-x)², and equal parameters have median 1/2.
        for q in [1e-6, 0.1, 0.3, 0.5, 0.9, 0.999_999] {
            assert!((quantile(q, 1.0, 1.0) - q).abs() < 1e-13);
            assert!((quantile(q, 1.0, 2.0) - (1.0 - (1.0 - q).sqrt())).abs() < 1e-13);
        }
        assert!((quantile(0.5, 0.6, 0.6) - 0.5).abs() < 1e-13);
        assert_eq!((quantile(0.0, 0.6, 0.6), quantile(1.0, 0.6, 0.6)), (0.0, 1.0));
    }

    #[test]
    fn gamma() {
        assert!(ln_gamma(1.0).abs() < 1e-14);
        assert!((ln_gamma(5.0) - 24f64.ln()).abs() < 1e-13);
        assert!((ln_gamma(1.5) - (0.5 * std::f64::consts::PI.sqrt()).ln()).abs() < 1e-14);
    }
}
