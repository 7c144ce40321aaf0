//! Noise: for each seed the same as PyTorch's CPU generator, so that seeds can be shared with ComfyUI and other
//! programs.
//!
//! The f32 functions of a platform's maths library differ in the last bit between systems. Here they are computed in
//! f64 and rounded, so that a seed gives the same bytes everywhere.

mod brownian;
mod seed_sequence;

use std::f64::consts::TAU;

pub use brownian::BrownianNoise;

use rand_mt::Mt;

use crate::latent::Latent;
use crate::{Error, Result};

/// Largest batch, and one more than the largest batch index.
pub(crate) const MOST_PICTURES: usize = 4096;

/// PyTorch turns uniform numbers into normal ones in blocks of this size.
const BLOCK: usize = 16;

/// The noise that a run starts from, `[batch, channels, height, width]`, with mean 0 and variance 1. If there is not
/// enough memory it is empty, as with [`Latent::zeros`].
///
/// All images of the batch are drawn from one stream, so image 1 of a batch is not image 0 of another seed. Only the
/// low 32 bits of the seed count, as in PyTorch: `5` and `2^32 + 5` give the same noise.
pub fn noise(seed: u64, shape: [usize; 4]) -> Latent {
    Generator::new(seed).draw(shape)
}

/// The noise of chosen images of the stream, in the order of `batch_indices` (repeats are allowed), as ComfyUI computes
/// it for a latent with a batch index. Each image is drawn separately; the time is proportional to the largest index.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if `shape[0]` is not the number of indices, if one of them is 4096 or
/// more, or if the noise is too large for memory.
pub fn noise_for(seed: u64, batch_indices: &[usize], shape: [usize; 4]) -> Result<Latent> {
    let [batch, channels, height, width] = shape;
    if batch_indices.len() != batch {
        return Err(Error::usage("the batch indices do not fit the batch")
            .expected(format!("{batch} indices"))
            .found(batch_indices.len().to_string()));
    }
    if let Some(far) = batch_indices.iter().find(|i| **i >= MOST_PICTURES) {
        return Err(Error::usage("no such picture of a batch")
            .expected(format!("numbers below {MOST_PICTURES}"))
            .found(far.to_string()));
    }
    let mut out = Latent::of_shape(shape)?;
    let mut generator = Generator::new(seed);
    for image in 0..=batch_indices.iter().copied().max().unwrap_or(0) {
        let drawn = generator.draw([1, channels, height, width]);
        for (row, _) in batch_indices.iter().enumerate().filter(|&(_, &index)| index == image) {
            out.image_mut(row).copy_from_slice(drawn.data());
        }
    }
    Ok(out)
}

/// The noise that ancestral samplers add after each step: a separate stream with the seed `seed + 1`, so that it does
/// not repeat the initial noise.
#[doc(hidden)]
pub struct AncestralNoise(Generator);

impl AncestralNoise {
    /// The stream for the seed of a run.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for the seed 2^64 - 1, since `seed + 1`
    /// overflows.
    pub fn new(seed: u64) -> Result<Self> {
        let next = seed.checked_add(1).ok_or_else(|| {
            Error::usage("the seed is too large for a sampler that adds noise")
                .expected(format!("at most {}", u64::MAX - 1))
                .found(seed.to_string())
                .hint("such samplers draw from seed + 1; choose another seed")
        })?;
        Ok(Self(Generator::new(next)))
    }

    /// The next noise of the stream, `[batch, channels, height, width]`.
    pub fn draw(&mut self, shape: [usize; 4]) -> Latent {
        self.0.draw(shape)
    }
}

/// PyTorch's CPU generator: a Mersenne Twister, and its way of making normal numbers.
struct Generator {
    twister: Mt,
    /// The Box-Muller method gives normal numbers in pairs; this is the second of a pair.
    spare: Option<f64>,
}

impl Generator {
    fn new(seed: u64) -> Self {
        // Truncated on purpose: PyTorch seeds with the low 32 bits.
        Self { twister: Mt::new(seed as u32), spare: None }
    }

    fn draw(&mut self, shape: [usize; 4]) -> Latent {
        let [batch, channels, height, width] = shape;
        let mut out = Latent::zeros(batch, channels, height, width);
        self.fill(out.data_mut());
        out
    }

    /// Fills `out` with normal numbers. Below 16 values PyTorch uses another method, with other results.
    fn fill(&mut self, out: &mut [f32]) {
        let Some(tail) = out.len().checked_sub(BLOCK) else {
            out.fill_with(|| self.normal() as f32);
            return;
        };
        out.fill_with(|| self.uniform());
        out.chunks_exact_mut(BLOCK).for_each(normals_of_block);
        // If the last block is incomplete, the last 16 values are drawn again, which overwrites some values of the
        // block before.
        if !out.len().is_multiple_of(BLOCK) {
            let last = &mut out[tail..];
            last.fill_with(|| self.uniform());
            normals_of_block(last);
        }
    }

    /// Uniform in [0, 1), 24 bits.
    fn uniform(&mut self) -> f32 {
        (self.twister.next_u32() & 0x00ff_ffff) as f32 / (1u32 << 24) as f32
    }

    /// Uniform in [0, 1), 53 bits; the first draw of the twister is the high half.
    fn uniform_f64(&mut self) -> f64 {
        let (high, low) = (u64::from(self.twister.next_u32()), u64::from(self.twister.next_u32()));
        ((high << 32 | low) & ((1 << 53) - 1)) as f64 / (1u64 << 53) as f64
    }

    /// One normal number in double precision, by the Box-Muller method.
    fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let (turn, u) = (self.uniform_f64(), self.uniform_f64());
        let radius = (-2.0 * (-u).ln_1p()).sqrt();
        let (sin, cos) = (TAU * turn).sin_cos();
        self.spare = Some(radius * sin);
        radius * cos
    }
}

/// The Box-Muller method on a block of 16 uniform numbers: number j gives the radius and number j+8 the angle of the
/// pair that replaces them. Every intermediate result is rounded to f32, as in PyTorch.
fn normals_of_block(block: &mut [f32]) {
    let (first, second) = block.split_at_mut(BLOCK / 2);
    for (a, b) in first.iter_mut().zip(second) {
        // 1 - u is never 0, so the logarithm is finite.
        let radius = (-2.0 * f64::from(1.0 - *a).ln() as f32).sqrt();
        let (sin, cos) = f64::from(TAU as f32 * *b).sin_cos();
        *a = radius * cos as f32;
        *b = radius * sin as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn the_well_known_seed_42() {
        let expected = [1.9269, 1.4873, 0.9007, -2.1055, 0.6784, -1.2345, -0.0431, -1.6047];
        for (got, want) in noise(42, [1, 4, 8, 8]).data().iter().zip(expected) {
            assert!((got - want).abs() < 6e-5, "{got} {want}");
        }
    }

    #[test]
    fn odd_requests() {
        assert!(noise(1, [0, 4, 8, 8]).data().is_empty());
        assert!(noise_for(1, &[], [0, 4, 8, 8]).unwrap().data().is_empty());
        assert_eq!(noise_for(1, &[0], [2, 4, 8, 8]).unwrap_err().kind(), ErrorKind::Usage);
        assert_eq!(AncestralNoise::new(u64::MAX).err().map(|e| e.kind()), Some(ErrorKind::Usage));
    }
}
