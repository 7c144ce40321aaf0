//! The arithmetic: W + scale · up · down, row by row.

use std::thread;

use super::patches::{Patch, Patches};
use crate::Result;
use crate::checkpoint::Checkpoint;
use crate::engine::Source;
use crate::kernels::repack::Stored;

/// A checkpoint as it is with LoRAs added. The sum is made anew each time a tensor is read, and
/// each time the same.
#[derive(Clone, Copy)]
pub struct Patched<'a> {
    /// The model as it is in its file.
    pub checkpoint: &'a Checkpoint,
    /// What is added.
    pub patches: &'a Patches,
}

impl Source for Patched<'_> {
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
        if self.patches.of(name).is_empty() { Source::raw(self.checkpoint, name, shape) } else { Ok(None) }
    }

    fn fits_f16(&self, name: &str) -> bool {
        self.patches.of(name).is_empty() && self.checkpoint.fits_f16(name)
    }
}

/// Adds one change to the values of a tensor; shapes were checked when it was fitted.
fn add(values: &mut [f32], shape: &[usize], patch: &Patch) -> Result<()> {
    let change = &patch.lora.changes[patch.change];
    let up = patch.lora.read(&change.up)?;
    let mut down = patch.lora.read(&change.down)?;
    if let Some(mid) = &change.mid {
        down = joined(&patch.lora.read(mid)?, patch.lora.shape(mid), &down);
    }
    let outputs = patch.lora.shape(&change.up).first().copied().unwrap_or(0);
    let rank = up.len() / outputs.max(1);
    let product = Product { up: &up, down: &down, rank, scale: patch.scale };
    if patch.transposed {
        let mut sum = vec![0.0; values.len()];
        product.add_to(&mut sum);
        for (i, value) in values.iter_mut().enumerate() {
            let (input, output) = (i / shape[1], i % shape[1]);
            *value += sum[output * shape[0] + input];
        }
        return Ok(());
    }
    let band = values.len() / patch.third.map_or(1, |_| 3);
    let start = band * patch.third.unwrap_or(0);
    product.add_to(&mut values[start..start + band]);
    Ok(())
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
