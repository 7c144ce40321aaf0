//! Noise that does not depend on the steps taken: increments of one Brownian path over σ.
//!
//! The path is that of torchsde's `BrownianTree`, which ComfyUI's SDE samplers use. An interval is halved until its
//! parts fit the requested one. The increment of a half follows from that of the interval, and from noise whose seed is
//! the position of the half in the tree. So the path does not depend on the requests or their order.

use std::collections::HashMap;

use super::noise;
use super::seed_sequence::seed;
use crate::latent::Latent;

/// Decimal places that times are rounded to.
const DIGITS: usize = 6;

/// A Brownian path over an interval of noise levels.
#[doc(hidden)]
pub struct BrownianNoise {
    seed: u64,
    shape: [usize; 4],
    root: Interval,
    increment: Latent,
    /// The increments of left halves that the last step used, by key and depth of the interval: the next step begins
    /// where that one ended, and needs the same ones.
    known: HashMap<(u64, u64), Latent>,
}

/// A node of the tree.
#[derive(Clone, Copy)]
struct Interval {
    start: f64,
    end: f64,
    /// The path from the root, a bit for each level: 0 is left, 1 is right.
    key: u64,
    depth: u64,
}

impl Interval {
    /// Where it is halved; None if it is too small to halve.
    fn middle(&self) -> Option<f64> {
        let middle = on_grid(0.5 * (self.end + self.start));
        (self.start < middle && middle < self.end).then_some(middle)
    }

    fn halves(&self, middle: f64) -> [Interval; 2] {
        // Keys repeat beyond 64 levels, which only sigmas above 1e13 have.
        let (key, depth) = (self.key.wrapping_mul(2), self.depth + 1);
        [
            Interval { start: self.start, end: middle, key, depth },
            Interval { start: middle, end: self.end, key: key.wrapping_add(1), depth },
        ]
    }
}

impl BrownianNoise {
    /// The path between two noise levels, for latents `[batch, channels, height, width]`. All 64
    /// bits of the seed count.
    pub fn new(seed: u64, shape: [usize; 4], sigma_min: f32, sigma_max: f32) -> Self {
        let (low, high) = (f64::from(sigma_min.min(sigma_max)), f64::from(sigma_min.max(sigma_max)));
        let root_seed = self::seed(seed, &[]);
        Self {
            seed,
            shape,
            root: Interval { start: on_grid(low), end: on_grid(high), key: 0, depth: 0 },
            increment: noise(root_seed.into(), shape).scaled((high - low).sqrt() as f32),
            known: HashMap::new(),
        }
    }

    /// The noise of the step from `sigma` to `next`, of variance 1: the path's increment divided by
    /// `√|σ' - σ|`. Beyond its two ends the path is constant; a step without length
    /// has no noise.
    pub fn between(&mut self, sigma: f32, next: f32) -> Latent {
        // Not `clamp`, which panics if an end of the path is NaN.
        let at = |t: f32| on_grid(f64::from(t).max(self.root.start).min(self.root.end));
        let wanted = (at(sigma.min(next)), at(sigma.max(next)));
        let [batch, channels, height, width] = self.shape;
        let mut sum = Latent::zeros(batch, channels, height, width);
        if wanted.0 < wanted.1 {
            let mut used = HashMap::new();
            self.add(self.root, self.increment.clone(), wanted, &mut used, &mut sum);
            self.known = used;
            // The path runs from low to high sigmas.
            let length = (next - sigma).abs().sqrt().copysign(next - sigma);
            sum.data_mut().iter_mut().for_each(|v| *v /= length);
        }
        sum
    }

    /// Adds the increment of the part of `interval` that is within `wanted`; `increment` is that of the interval.
    fn add(
        &self,
        interval: Interval,
        increment: Latent,
        wanted: (f64, f64),
        used: &mut HashMap<(u64, u64), Latent>,
        sum: &mut Latent,
    ) {
        if wanted.0 <= interval.start && interval.end <= wanted.1 {
            for (s, v) in sum.data_mut().iter_mut().zip(increment.data()) {
                *s += v;
            }
            return;
        }
        let Some(middle) = interval.middle() else { return };
        let address = (interval.key, interval.depth);
        let known = self.known.get(&address).cloned();
        let left = known.unwrap_or_else(|| self.left_half(interval, middle, &increment));
        used.insert(address, left.clone());
        let right = increment.zipped(&left, |all, left| all - left);
        let [before, after] = interval.halves(middle);
        if wanted.0 < middle {
            self.add(before, left, wanted, used, sum);
        }
        if wanted.1 > middle {
            self.add(after, right, wanted, used, sum);
        }
    }

    /// The Brownian bridge: given both ends, the point between parts of lengths l and r is normal, with the mean on the
    /// straight line and the variance `l·r / (l + r)`.
    fn left_half(&self, interval: Interval, middle: f64, increment: &Latent) -> Latent {
        let (left, right) = (middle - interval.start, interval.end - middle);
        let part = 1.0 / (interval.end - interval.start);
        let deviation = (left * right * part).sqrt() as f32;
        let (left, part) = (left as f32, part as f32);
        let seed = self::seed(self.seed, &[interval.key, interval.depth]);
        increment.zipped(&noise(seed.into(), self.shape), |w, z| left * w * part + deviation * z)
    }
}

/// Rounds to the nearest decimal, exactly; multiplying by 1e6 and rounding would not be exact.
fn on_grid(t: f64) -> f64 {
    format!("{t:.DIGITS$}").parse().unwrap_or(t)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_pythons() {
        assert_eq!(on_grid(0.0078125), 0.007812);
        assert_eq!(on_grid(14.614642143249512), 14.614642);
        assert_eq!(on_grid(0.0291675), 0.029167);
    }

    #[test]
    fn neighbouring_steps_add_up() {
        let mut path = BrownianNoise::new(5, [1, 1, 4, 8], 0.03, 14.6);
        let mut scaled = |a: f32, b: f32| path.between(a, b).scaled((a - b).sqrt());
        let (first, second) = (scaled(9.0, 4.0), scaled(4.0, 1.5));
        let parts = Latent::combine(&[(1.0, &first), (1.0, &second)]).unwrap();
        for (a, b) in parts.data().iter().zip(scaled(9.0, 1.5).data()) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
    }

    #[test]
    fn the_order_of_questions_does_not_matter() {
        let fresh = || BrownianNoise::new(5, [1, 1, 4, 8], 0.03, 14.6);
        let mut path = fresh();
        for (a, b) in [(9.0, 4.0), (9.0, 1.0), (4.0, 1.0), (9.0, 4.0), (0.5, 0.3)] {
            assert_eq!(path.between(a, b), fresh().between(a, b), "{a} {b}");
        }
    }

    #[test]
    fn odd_steps_do_not_panic() {
        let mut path = BrownianNoise::new(5, [1, 1, 4, 8], 0.03, 14.6);
        for (a, b) in [(1.0, 1.0), (20.0, 15.0), (0.02, 0.01), (f32::NAN, 1.0), (f32::MAX, 0.0)] {
            assert!(path.between(a, b).is_finite(), "{a} {b}");
        }
        assert_eq!(
            BrownianNoise::new(5, [1, 1, 4, 8], f32::NAN, f32::NAN).between(2.0, 1.0).shape(),
            [1, 1, 4, 8]
        );
        let mut long = BrownianNoise::new(5, [1, 1, 4, 8], f32::MIN_POSITIVE, 1e12);
        assert!(long.between(2.0, 1.0).data().iter().all(|v| !v.is_nan()));
    }
}
