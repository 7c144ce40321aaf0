//! NumPy's `SeedSequence`: many independent seeds derived from one, each by a key.
//!
//! All arithmetic is modulo 2^32 (O'Neill, "Developing a seed_seq alternative", pcg-random.org, 2015;
//! NumPy NEP 19).

/// Words of the entropy pool, as many as torchsde's Brownian tree uses.
const POOL: usize = 24;

/// Initial value and multiplier of the constant of each hash: into the pool, and out of it.
const INTO: (u32, u32) = (0x43b0_d7e5, 0x931e_8875);
const OUT_OF: (u32, u32) = (0x8b51_f9dd, 0x58f3_8ded);

/// The first word of the state of the child `key` of the sequence that begins with `entropy`.
/// An empty key is the sequence itself.
pub(super) fn seed(entropy: u64, key: &[u64]) -> u32 {
    let mut input: Vec<u32> = words(entropy).collect();
    // Keys begin after the words of the pool, so that a key is never taken for entropy.
    input.resize(POOL, 0);
    input.extend(key.iter().flat_map(|&part| words(part)));
    Hash::new(OUT_OF).next(pool(&input)[0])
}

/// A number as 32-bit words, the low one first; small numbers are a single word.
fn words(number: u64) -> impl Iterator<Item = u32> {
    let high = (number >> 32) as u32;
    [Some(number as u32), (high != 0).then_some(high)].into_iter().flatten()
}

/// The pool: each word is mixed with every other word, and then with every further word of the input.
fn pool(input: &[u32]) -> [u32; POOL] {
    let mut hash = Hash::new(INTO);
    let mut pool = [0; POOL];
    for (word, value) in pool.iter_mut().zip(input) {
        *word = hash.next(*value);
    }
    for from in 0..POOL {
        for to in (0..POOL).filter(|&to| to != from) {
            pool[to] = mix(pool[to], hash.next(pool[from]));
        }
    }
    for &value in &input[POOL..] {
        for word in &mut pool {
            *word = mix(*word, hash.next(value));
        }
    }
    pool
}

/// A hash whose constant changes with each use.
struct Hash {
    constant: u32,
    multiplier: u32,
}

impl Hash {
    fn new((constant, multiplier): (u32, u32)) -> Self {
        Self { constant, multiplier }
    }

    fn next(&mut self, value: u32) -> u32 {
        let keyed = value ^ self.constant;
        self.constant = self.constant.wrapping_mul(self.multiplier);
        fold(keyed.wrapping_mul(self.constant))
    }
}

fn mix(x: u32, y: u32) -> u32 {
    fold(x.wrapping_mul(0xca01_f9dd).wrapping_sub(y.wrapping_mul(0x4973_f715)))
}

fn fold(value: u32) -> u32 {
    value ^ value >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numpys_numbers() {
        // numpy.random.SeedSequence(entropy, spawn_key=key, pool_size=24).generate_state(1)
        assert_eq!(seed(0, &[]), 4_025_752_534);
        assert_eq!(seed(12345, &[0, 0]), 3_924_261_748);
        assert_eq!(seed((1 << 63) + 7, &[5, 3]), 3_237_352_637);
        assert_eq!(seed(1, &[(1 << 40) + 3, 41]), 213_379_044);
    }
}
