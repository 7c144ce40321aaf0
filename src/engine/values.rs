//! Values of inputs and results, as the host has them and as the device stores them.

use std::borrow::Cow;

use half::slice::HalfFloatSliceExt;

use crate::graph::Store;
use crate::kernels::Precision;
use crate::plan::PlanSlot;
use crate::{Error, Result};

/// Values `[row, position, channel]` as the device stores them: channels padded to multiples of four, in the type of the
/// slot.
pub(super) fn to_device<'v>(
    slot: &PlanSlot,
    values: &'v [f32],
    rows: usize,
    precision: Precision,
) -> Result<Cow<'v, [u8]>> {
    let c = slot.shape.channels;
    let want = rows.saturating_mul(slot.shape.positions()).saturating_mul(c);
    if values.len() != want {
        return Err(Error::usage(format!("the input `{}` does not fit the network", slot.name))
            .expected(format!("{want} values: {rows} rows of {}", slot.shape))
            .found(values.len().to_string()));
    }
    let width = slot.shape.quads() * 4;
    let mut padded = Cow::Borrowed(values);
    if width != c {
        let to = padded.to_mut();
        *to = vec![0.0f32; rows * slot.shape.positions() * width];
        for (to, from) in to.chunks_exact_mut(width).zip(values.chunks_exact(c)) {
            to[..c].copy_from_slice(from);
        }
    }
    Ok(match (slot.store, precision, padded) {
        (Store::Elem, Precision::F16, padded) => to_f16(&padded).into(),
        (_, _, Cow::Borrowed(values)) => bytemuck::cast_slice(values).into(),
        (_, _, Cow::Owned(values)) => bytemuck::cast_slice(&values).to_vec().into(),
    })
}

/// The inverse of [`to_device`] for f32 results.
pub(super) fn from_device(slot: &PlanSlot, words: &[u32], rows: usize) -> Vec<f32> {
    let values: Vec<f32> = bytemuck::cast_slice(words).to_vec();
    let (c, width) = (slot.shape.channels, slot.shape.quads() * 4);
    if slot.store == Store::Plain || c == width {
        return values;
    }
    let mut out = Vec::with_capacity(rows * slot.shape.positions() * c);
    for position in values.chunks_exact(width) {
        out.extend_from_slice(&position[..c]);
    }
    out
}

/// `values` rounded to f16, little endian.
fn to_f16(values: &[f32]) -> Vec<u8> {
    let mut halves = vec![half::f16::ZERO; values.len()];
    halves.convert_from_f32_slice(values);
    bytemuck::cast_slice(&halves).to_vec()
}
