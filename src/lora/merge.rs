//! The arithmetic: W + scale · up · down, row by row, and that of the other kinds.

use std::thread;

use super::file::Lora;
use super::patches::{Patch, Patches};
use super::rotation::Blocks;
use super::weight_change::{self, ChangeKind, Factor};
use crate::checkpoint::Checkpoint;
use crate::engine::WeightSource;
use crate::kernels::repack::Stored;
use crate::{Error, Result};

/// A checkpoint as it is with LoRAs added. The sum is made anew each time a tensor is read, and
/// each time the same.
#[derive(Clone, Copy)]
pub struct Patched<'a> {
    /// The model as it is in its file.
    pub checkpoint: &'a Checkpoint,
    /// What is added.
    pub patches: &'a Patches,
}

impl Patched<'_> {
    /// Rows of a table `[rows, columns]`, one after the other.
    ///
    /// # Errors
    /// As [`Checkpoint::rows_f32`].
    pub fn rows(&self, name: &str, rows: &[usize]) -> Result<Vec<f32>> {
        if self.patches.of(name).is_empty() {
            return self.checkpoint.rows_f32(name, rows);
        }
        // Few LoRAs change a table, and then all of it is made: tens of thousands of rows in a second.
        let [count, columns] = self.checkpoint.dims(name)?;
        let table = self.read(name, &[count, columns])?;
        let row = |row: &usize| {
            let values = row.checked_mul(columns).and_then(|at| table.get(at..at + columns));
            values.ok_or_else(|| Error::usage("no such row of a table").at(name).found(row.to_string()))
        };
        Ok(rows.iter().map(row).collect::<Result<Vec<&[f32]>>>()?.concat())
    }
}

impl WeightSource for Patched<'_> {
    fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let mut values = self.checkpoint.read_f32(name, shape)?;
        let patches = self.patches.of(name);
        for patch in patches {
            add(&mut values, shape, patch)?;
        }
        // The file's own values were looked at when they were read.
        if let (Some(patch), Some(value)) = (patches.first(), values.iter().find(|v| !v.is_finite())) {
            let error = self.checkpoint.fault("a weight leaves the range of f32").file(patch.lora.file());
            return Err(error.at(name).found(value.to_string()).hint("lower the weight of the LoRA"));
        }
        Ok(values)
    }

    fn raw(&self, name: &str, shape: &[usize]) -> Result<Option<(Stored, &[u8])>> {
        if self.patches.of(name).is_empty() {
            WeightSource::raw(self.checkpoint, name, shape)
        } else {
            Ok(None)
        }
    }

    fn fits_f16(&self, name: &str) -> bool {
        self.patches.of(name).is_empty() && self.checkpoint.fits_f16(name)
    }
}

/// Makes one change of the values of a tensor; shapes were checked when it was fitted.
fn add(values: &mut [f32], shape: &[usize], patch: &Patch) -> Result<()> {
    if patch.transposed {
        // Stored as [inputs, outputs].
        let mut turned = transposed(values, shape[0], shape[1]);
        change(&mut turned, &[shape[1], shape[0]], patch)?;
        values.copy_from_slice(&transposed(&turned, shape[1], shape[0]));
        return Ok(());
    }
    let Some(third) = patch.third else { return change(values, shape, patch) };
    let (mut shape, band) = (shape.to_vec(), values.len() / 3);
    if let Some(rows) = shape.first_mut() {
        *rows /= 3;
    }
    change(&mut values[third * band..][..band], &shape, patch)
}

/// Makes the change of `weight` `[outputs, inputs, taps…]` or `[channels]`.
fn change(weight: &mut [f32], shape: &[usize], patch: &Patch) -> Result<()> {
    let lora = &*patch.lora;
    let change = &lora.changes[patch.change];
    match (&change.kind, &change.magnitude) {
        (ChangeKind::Set(name), _) => weight.copy_from_slice(&lora.read(name)?),
        (ChangeKind::Pair { up, down, mid }, None) => {
            add_pair(lora, up, down, mid.as_deref(), patch.scale, weight)?;
        }
        (ChangeKind::Oft { blocks, limit, rescale }, _) => {
            rotate(lora, weight, (blocks, *limit), rescale.as_deref(), patch.weight.into())?;
        }
        (kind, None) => {
            let difference = difference(lora, kind, weight, shape)?;
            for (value, d) in weight.iter_mut().zip(difference) {
                *value += patch.scale * d;
            }
        }
        (kind, Some(magnitude)) => {
            let mut changed = weight.to_vec();
            for (value, d) in changed.iter_mut().zip(difference(lora, kind, weight, shape)?) {
                *value += (change.scale * f64::from(d)) as f32;
            }
            stretch(&mut changed, shape, &lora.read(magnitude)?, lora.shape(magnitude));
            for (value, changed) in weight.iter_mut().zip(changed) {
                *value += patch.weight * (changed - *value);
            }
        }
    }
    Ok(())
}

/// What `kind` adds at weight 1 with alpha/rank 1.
fn difference(lora: &Lora, kind: &ChangeKind, weight: &[f32], shape: &[usize]) -> Result<Vec<f32>> {
    match kind {
        ChangeKind::Pair { up, down, mid } => {
            let mut sum = vec![0.0; weight.len()];
            add_pair(lora, up, down, mid.as_deref(), 1.0, &mut sum)?;
            Ok(sum)
        }
        ChangeKind::Loha([first, second]) => {
            let (mut first, second) = (matrix_of(lora, first)?, matrix_of(lora, second)?);
            first.values.iter_mut().zip(&second.values).for_each(|(a, b)| *a *= b);
            Ok(first.values)
        }
        ChangeKind::Lokr([first, second]) => {
            let (first, second) = (matrix_of(lora, first)?, matrix_of(lora, second)?);
            Ok(kronecker(&first, &second))
        }
        ChangeKind::Glora { a, b } => glora(lora, a, b, weight, shape),
        ChangeKind::Difference(name) => lora.read(name),
        ChangeKind::Oft { .. } | ChangeKind::Set(_) => Err(Error::internal("a change that is no sum")),
    }
}

/// Adds scale · up · down, with the kernel between them if there is one.
fn add_pair(lora: &Lora, up: &str, down: &str, mid: Option<&str>, scale: f32, to: &mut [f32]) -> Result<()> {
    let outputs = lora.shape(up).first().copied().unwrap_or(0);
    let up = lora.read(up)?;
    let mut down = lora.read(down)?;
    if let Some(mid) = mid {
        down = joined(&lora.read(mid)?, lora.shape(mid), &down);
    }
    let rank = up.len() / outputs.max(1);
    Product { up: &up, down: &down, rank, scale }.add_to(to);
    Ok(())
}

/// A factor, multiplied out: `[rows, …]`.
struct Matrix {
    rows: usize,
    values: Vec<f32>,
}

fn matrix_of(lora: &Lora, factor: &Factor) -> Result<Matrix> {
    let first = |name: &str| lora.shape(name).first().copied().unwrap_or(1);
    Ok(match factor {
        Factor::Whole(name) => Matrix { rows: first(name), values: lora.read(name)? },
        Factor::Product { a, b } => {
            Matrix { rows: first(a), values: multiplied(&lora.read(a)?, &lora.read(b)?, first(a)) }
        }
        Factor::Tucker { t, a, b } => {
            let down = joined(&lora.read(t)?, lora.shape(t), &lora.read(b)?);
            // Stored as [rank, rows].
            let (a, of) = (lora.read(a)?, lora.shape(a));
            let (rank, rows) = (of[0], of[1]);
            Matrix { rows, values: multiplied(&transposed(&a, rank, rows), &down, rows) }
        }
    })
}

/// `[rows, columns]` as `[columns, rows]`.
fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..values.len()).map(|i| values[i % rows * columns + i / rows]).collect()
}

/// up `[rows, rank]` · down `[rank, columns]`.
fn multiplied(up: &[f32], down: &[f32], rows: usize) -> Vec<f32> {
    let rank = up.len() / rows.max(1);
    let mut product = vec![0.0; rows * down.len() / rank.max(1)];
    Product { up, down, rank, scale: 1.0 }.add_to(&mut product);
    product
}

/// `[a, b]` ⊗ `[c, d, taps]` → `[a·c, b·d, taps]`: a row of the second is d · taps values, which stay together.
fn kronecker(first: &Matrix, second: &Matrix) -> Vec<f32> {
    let (b, row) = (first.values.len() / first.rows, second.values.len() / second.rows);
    let mut out = Vec::with_capacity(first.values.len() * second.values.len());
    for factors in first.values.chunks_exact(b) {
        for row in second.values.chunks_exact(row) {
            for factor in factors {
                out.extend(row.iter().map(|value| factor * value));
            }
        }
    }
    out
}

/// W · a1 · a2 + b1 · b2; the old way round W · a2 · a1 + b2 · b1, where W is laid flat.
fn glora(lora: &Lora, a: &[String; 2], b: &[String; 2], weight: &[f32], shape: &[usize]) -> Result<Vec<f32>> {
    let shapes = [a, b].map(|pair| pair.each_ref().map(|name| lora.shape(name)));
    let (old, _) = weight_change::glora(shapes[0], shapes[1])
        .ok_or_else(|| Error::internal("a GLoRA that does not fit"))?;
    let [[mut a1, mut a2], [mut b1, mut b2]] =
        [[lora.read(&a[0])?, lora.read(&a[1])?], [lora.read(&b[0])?, lora.read(&b[1])?]];
    if old {
        (a1, a2, b1, b2) = (a2, a1, b2, b1);
    }
    let outputs = shape[0];
    let inputs = if old { weight.len() / outputs } else { shape[1] };
    let taps = weight.len() / outputs / inputs;
    let rank = a1.len() / inputs;
    // Taps behind inputs: rows of the product are outputs × taps.
    let mut rows = vec![0.0; weight.len()];
    for (i, value) in weight.iter().enumerate() {
        let (output, input, tap) = (i / taps / inputs, i / taps % inputs, i % taps);
        rows[(output * taps + tap) * inputs + input] = *value;
    }
    let inner = multiplied(&rows, &a1, outputs * taps);
    debug_assert_eq!(inner.len(), outputs * taps * rank);
    let product = multiplied(&inner, &a2, outputs * taps);
    let mut sum = multiplied(&b1, &b2, outputs);
    for (i, value) in sum.iter_mut().enumerate() {
        let (output, input, tap) = (i / taps / inputs, i / taps % inputs, i % taps);
        *value += product[(output * taps + tap) * inputs + input];
    }
    Ok(sum)
}

/// Rotates rows of `weight`, to the share `strength` of the way: by OFT at the end, by BOFT at each of its stages.
fn rotate(
    lora: &Lora,
    weight: &mut [f32],
    (blocks, limit): (&str, f64),
    rescale: Option<&str>,
    strength: f64,
) -> Result<()> {
    let shape = lora.shape(blocks);
    let size = shape.last().copied().unwrap_or(1);
    let (stages, outputs) = match *shape {
        [stages, n, size, _] => (Some(stages), n * size),
        _ => (None, shape[0] * size),
    };
    let columns = weight.len() / outputs;
    let mut turned: Vec<f64> = weight.iter().map(|v| f64::from(*v)).collect();
    let rotations = Blocks::new(&lora.read(blocks)?, size, limit);
    match stages {
        None => rotations.turn(&mut turned, columns),
        Some(stages) => rotations.turn_in_stages(&mut turned, columns, stages, strength),
    }
    if let Some(rescale) = rescale {
        for (row, factor) in turned.chunks_exact_mut(columns).zip(lora.read(rescale)?) {
            row.iter_mut().for_each(|v| *v *= f64::from(factor));
        }
    }
    let share = if stages.is_some() { 1.0 } else { strength };
    for (value, turned) in weight.iter_mut().zip(turned) {
        *value += (share * (turned - f64::from(*value))) as f32;
    }
    Ok(())
}

/// What DoRA (Liu et al. 2024, arXiv 2402.09353) adds to a norm before it divides by it.
const EPSILON: f64 = 1.2e-7;

/// Gives the rows, or the columns, of `weight` the lengths `magnitude`.
fn stretch(weight: &mut [f32], shape: &[usize], magnitude: &[f32], of: &[usize]) {
    let row = weight.len() / shape[0];
    let taps = row / shape.get(1).copied().unwrap_or(1);
    let rows = of.first() == shape.first();
    let group = |i: usize| if rows { i / row } else { i % row / taps };
    let mut norms = vec![0.0f64; magnitude.len()];
    for (i, value) in weight.iter().enumerate() {
        norms[group(i)] += f64::from(*value) * f64::from(*value);
    }
    let factors: Vec<f64> =
        norms.iter().zip(magnitude).map(|(norm, m)| f64::from(*m) / (norm.sqrt() + EPSILON)).collect();
    for (i, value) in weight.iter_mut().enumerate() {
        *value = (f64::from(*value) * factors[group(i)]) as f32;
    }
}

/// `[a, b, h, w]` · `[b, i]` → `[a, i, h, w]`: the middle of a Tucker form and its first matrix as one.
fn joined(mid: &[f32], shape: &[usize], down: &[f32]) -> Vec<f32> {
    let (a, b) = (shape[0], shape[1]);
    let (taps, inputs) = (mid.len() / (a * b), down.len() / b);
    let mut out = vec![0.0; a * inputs * taps];
    for (at, value) in out.iter_mut().enumerate() {
        let (row, input, tap) = (at / taps / inputs, at / taps % inputs, at % taps);
        *value = (0..b).map(|k| mid[(row * b + k) * taps + tap] * down[k * inputs + input]).sum();
    }
    out
}

/// scale · up `[outputs, rank]` · down `[rank, columns]`.
#[derive(Clone, Copy)]
struct Product<'a> {
    up: &'a [f32],
    down: &'a [f32],
    rank: usize,
    scale: f32,
}

/// Multiplications below which threads cost more than they bring.
const WORTH_THREADS: usize = 1 << 22;

impl Product<'_> {
    /// Adds the product to `values` `[outputs, columns]`. Rows are shared out among threads; each
    /// is summed by itself in a fixed order, so their number changes nothing.
    fn add_to(self, values: &mut [f32]) {
        let columns = self.down.len() / self.rank;
        let rows = values.len() / columns;
        let threads = match values.len() * self.rank {
            few if few < WORTH_THREADS => 1,
            _ => thread::available_parallelism().map_or(1, |n| n.get()),
        };
        let share = rows.div_ceil(threads).max(1);
        let work = values.chunks_mut(share * columns).zip(self.up.chunks(share * self.rank));
        if threads == 1 {
            work.for_each(|(values, up)| self.add_rows(values, up));
            return;
        }
        thread::scope(|scope| {
            for (values, up) in work {
                scope.spawn(move || self.add_rows(values, up));
            }
        });
    }

    fn add_rows(self, values: &mut [f32], up: &[f32]) {
        let columns = self.down.len() / self.rank;
        let mut sum = vec![0.0f32; columns];
        for (row, factors) in values.chunks_exact_mut(columns).zip(up.chunks_exact(self.rank)) {
            sum.fill(0.0);
            // Four at a time, or the loop would wait for `sum` to go to memory and back.
            let (fours, rest) = factors.as_chunks::<4>();
            let mut down = self.down.chunks_exact(columns);
            for &[a, b, c, d] in fours {
                let mut next = || down.next().unwrap_or_default().iter();
                let four = next().zip(next()).zip(next().zip(next()));
                for (s, ((w, x), (y, z))) in sum.iter_mut().zip(four) {
                    *s += (a * w + b * x) + (c * y + d * z);
                }
            }
            for (factor, down) in rest.iter().zip(down) {
                for (s, d) in sum.iter_mut().zip(down) {
                    *s += factor * d;
                }
            }
            for (value, s) in row.iter_mut().zip(&sum) {
                *value += self.scale * s;
            }
        }
    }
}
