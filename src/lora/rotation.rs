//! Rotations of a weight's rows: OFT (Qiu et al. 2023, arXiv 2306.07280) and BOFT (Liu et al. 2023, arXiv
//! 2311.06243) as LyCORIS has them.
//!
//! Each block B makes Q = B - Bᵀ and, by Cayley's transform, R = (I + Q) · (I - Q)⁻¹.

/// Matrices `[size, size]`, one after the other.
pub(super) struct Blocks {
    size: usize,
    values: Vec<f64>,
}

impl Blocks {
    /// The rotations of blocks `[…, size, size]`, whose Q all together have at most the norm `limit`, if it is not 0.
    pub fn new(values: &[f32], size: usize, limit: f64) -> Self {
        let mut q: Vec<f64> = values
            .chunks_exact(size * size)
            .flat_map(|b| {
                (0..size * size).map(|at| f64::from(b[at]) - f64::from(b[at % size * size + at / size]))
            })
            .collect();
        let norm = q.iter().map(|v| v * v).sum::<f64>().sqrt() + 1e-8;
        if limit > 0.0 && norm > limit {
            q.iter_mut().for_each(|v| *v *= limit / norm);
        }
        let values = q.chunks_exact(size * size).flat_map(|q| cayley(q, size)).collect();
        Self { size, values }
    }

    fn block(&self, at: usize) -> &[f64] {
        &self.values[at * self.size * self.size..][..self.size * self.size]
    }

    /// OFT: rows of `weight` `[outputs, columns]` in blocks, each as Σ over n of R[n, m] · W[n].
    pub fn turn(&self, weight: &mut [f64], columns: usize) {
        let size = self.size;
        for (at, rows) in weight.chunks_exact_mut(size * columns).enumerate() {
            let r = self.block(at);
            let before = rows.to_vec();
            for (m, row) in rows.chunks_exact_mut(columns).enumerate() {
                sum(row, &before, columns, |n| r[n * size + m]);
            }
        }
    }

    /// BOFT: in `stages`; stage i turns blocks of rows that lie `2^i · size/2` apart in pairs, each to
    /// the share `strength` of the way.
    pub fn turn_in_stages(&self, weight: &mut [f64], columns: usize, stages: usize, strength: f64) {
        let size = self.size;
        let rows = weight.len() / columns;
        let blocks = rows / size;
        for stage in 0..stages {
            let k = (1 << stage) * (size / 2);
            // Where row r goes: "(c g k) -> (c k g)", two groups.
            let places: Vec<usize> = (0..rows).map(|r| (r / (2 * k) * k + r % k) * 2 + r / k % 2).collect();
            let mut gathered = vec![0.0; weight.len()];
            for (r, to) in places.iter().enumerate() {
                gathered[to * columns..][..columns].copy_from_slice(&weight[r * columns..][..columns]);
            }
            for (at, rows) in gathered.chunks_exact_mut(size * columns).enumerate() {
                let r = self.block(stage * blocks + at);
                let before = rows.to_vec();
                for (i, row) in rows.chunks_exact_mut(columns).enumerate() {
                    let one = |j: usize| if i == j { 1.0 - strength } else { 0.0 };
                    sum(row, &before, columns, |j| strength * r[i * size + j] + one(j));
                }
            }
            for (r, from) in places.iter().enumerate() {
                weight[r * columns..][..columns].copy_from_slice(&gathered[from * columns..][..columns]);
            }
        }
    }
}

/// `row = Σ factor(n) · rows[n]`.
fn sum(row: &mut [f64], rows: &[f64], columns: usize, factor: impl Fn(usize) -> f64) {
    row.fill(0.0);
    for (n, other) in rows.chunks_exact(columns).enumerate() {
        let factor = factor(n);
        for (sum, value) in row.iter_mut().zip(other) {
            *sum += factor * value;
        }
    }
}

/// (I + Q) · (I - Q)⁻¹ = (I - Q)⁻¹ · (I + Q) of a skew matrix, by elimination: I - Q has no eigenvalue 0.
fn cayley(q: &[f64], size: usize) -> Vec<f64> {
    let one = |at: usize| if at / size == at % size { 1.0 } else { 0.0 };
    let mut left: Vec<f64> = (0..size * size).map(|at| one(at) - q[at]).collect();
    let mut right: Vec<f64> = (0..size * size).map(|at| one(at) + q[at]).collect();
    for column in 0..size {
        let largest =
            |a: &usize, b: &usize| left[a * size + column].abs().total_cmp(&left[b * size + column].abs());
        let pivot = (column..size).max_by(largest).unwrap_or(column);
        for matrix in [&mut left, &mut right] {
            for at in 0..size {
                matrix.swap(column * size + at, pivot * size + at);
            }
        }
        let scale = 1.0 / left[column * size + column];
        for row in (0..size).filter(|row| *row != column) {
            let factor = left[row * size + column] * scale;
            if factor != 0.0 {
                for matrix in [&mut left, &mut right] {
                    for at in 0..size {
                        matrix[row * size + at] -= factor * matrix[column * size + at];
                    }
                }
            }
        }
        for matrix in [&mut left, &mut right] {
            matrix[column * size..][..size].iter_mut().for_each(|v| *v *= scale);
        }
    }
    right
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotations_keep_lengths() {
        let size = 5;
        let values: Vec<f32> = (0..2 * size * size).map(|i| (i as f32 * 1.7).sin()).collect();
        let blocks = Blocks::new(&values, size, 0.0);
        for at in 0..2 {
            let r = blocks.block(at);
            for i in 0..size {
                for j in 0..size {
                    let dot: f64 = (0..size).map(|k| r[i * size + k] * r[j * size + k]).sum();
                    assert!((dot - f64::from(u8::from(i == j))).abs() < 1e-12, "{i} {j}: {dot}");
                }
            }
        }
        let q = Blocks::new(&values, size, 1e-6);
        assert!(
            q.block(0).iter().enumerate().all(|(at, v)| (v - f64::from(u8::from(at % 6 == 0))).abs() < 1e-5)
        );
    }
}
