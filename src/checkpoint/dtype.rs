//! Stored numbers to `f32`. Every conversion is exact but F64's, which rounds to nearest.
#![warn(clippy::indexing_slicing, clippy::string_slice)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::string_slice))]

use std::ops::Range;

use ::safetensors::Dtype;
use half::f16;
use half::slice::HalfFloatSliceExt;

/// Whether a dtype is one that [`extend`] decodes.
pub(crate) fn is_floating(dtype: Dtype) -> bool {
    use Dtype::{BF16, F8_E4M3, F8_E5M2, F16, F32, F64};
    matches!(dtype, F64 | F32 | F16 | BF16 | F8_E4M3 | F8_E5M2)
}

/// Whether all finite numbers of a dtype are numbers of f16.
pub(super) fn fits_f16(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F16 | Dtype::F8_E4M3 | Dtype::F8_E5M2)
}

/// Appends the elements `range` of a tensor whose bytes are `stored` (little-endian, at any
/// alignment). Returns whether the dtype is one of floating point; if not, nothing is appended.
#[expect(clippy::indexing_slicing, reason = "the sizes of tensors were checked when the file was opened")]
pub(super) fn extend(out: &mut Vec<f32>, dtype: Dtype, stored: &[u8], range: Range<usize>) -> bool {
    let width = dtype.bitsize() / 8;
    let bytes = &stored[range.start * width..range.end * width];
    match dtype {
        Dtype::F64 => out.extend(bytes.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b) as f32)),
        Dtype::F32 => out.extend(bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b))),
        Dtype::F16 => extend_f16(out, bytes),
        // bf16 is the upper half of an f32.
        Dtype::BF16 => out.extend(
            bytes.as_chunks().0.iter().map(|&b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)),
        ),
        Dtype::F8_E4M3 => extend_f8(out, bytes, f8_e4m3),
        Dtype::F8_E5M2 => extend_f8(out, bytes, f8_e5m2),
        _ => return false,
    }
    true
}

/// The integer in `bytes`; None for a dtype that is none.
pub(super) fn integer(dtype: Dtype, bytes: &[u8]) -> Option<f64> {
    fn of<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f64) -> Option<f64> {
        bytes.try_into().ok().map(value)
    }
    match dtype {
        Dtype::U8 => of(bytes, |b| u8::from_le_bytes(b).into()),
        Dtype::I8 => of(bytes, |b| i8::from_le_bytes(b).into()),
        Dtype::U16 => of(bytes, |b| u16::from_le_bytes(b).into()),
        Dtype::I16 => of(bytes, |b| i16::from_le_bytes(b).into()),
        Dtype::U32 => of(bytes, |b| u32::from_le_bytes(b).into()),
        Dtype::I32 => of(bytes, |b| i32::from_le_bytes(b).into()),
        Dtype::U64 => of(bytes, |b| u64::from_le_bytes(b) as f64),
        Dtype::I64 => of(bytes, |b| i64::from_le_bytes(b) as f64),
        _ => None,
    }
}

/// All numbers in `stored`, integers too; None for what is neither.
pub(crate) fn numbers(dtype: Dtype, stored: &[u8]) -> Option<Vec<f32>> {
    let width = (dtype.bitsize() / 8).max(1);
    let mut out = Vec::new();
    if extend(&mut out, dtype, stored, 0..stored.len() / width) {
        return Some(out);
    }
    stored.chunks_exact(width).map(|bytes| integer(dtype, bytes).map(|value| value as f32)).collect()
}

/// In blocks, because the processor's own instruction converts many at a time.
#[expect(clippy::indexing_slicing, reason = "a part is no longer than the block")]
fn extend_f16(out: &mut Vec<f32>, bytes: &[u8]) {
    let mut block = [f16::ZERO; 1024];
    for part in bytes.chunks(2 * block.len()) {
        let halves = &mut block[..part.len() / 2];
        for (half, &b) in halves.iter_mut().zip(part.as_chunks().0) {
            *half = f16::from_le_bytes(b);
        }
        let start = out.len();
        out.resize(start + halves.len(), 0.0);
        halves.convert_to_f32_slice(&mut out[start..]);
    }
}

#[expect(clippy::indexing_slicing, reason = "the table has a value for each byte")]
fn extend_f8(out: &mut Vec<f32>, bytes: &[u8], value: impl Fn(u8) -> f32) {
    let table: [f32; 256] = std::array::from_fn(|b| value(b as u8));
    out.extend(bytes.iter().map(|&b| table[usize::from(b)]));
}

/// OCP FP8 E4M3: bias 7, no infinity, NaN only with all bits set. Shifted into an f16's fields
/// it is an f16 that is 2^(15-7) too small.
fn f8_e4m3(b: u8) -> f32 {
    if b & 0x7f == 0x7f {
        return f32::NAN;
    }
    let bits = u16::from(b & 0x80) << 8 | u16::from(b & 0x7f) << 7;
    f16::from_bits(bits).to_f32() * 256.0
}

/// OCP FP8 E5M2: the upper half of an f16.
fn f8_e5m2(b: u8) -> f32 {
    f16::from_bits(u16::from(b) << 8).to_f32()
}

/// Place and value of the first NaN or infinity.
pub(super) fn first_non_finite(values: &[f32]) -> Option<(usize, f32)> {
    // Without an early exit the loop becomes vector instructions: this runs over every weight.
    let all_finite = |block: &[f32]| block.iter().fold(true, |ok, v| ok & v.is_finite());
    let block = values.chunks(4096).position(|block| !all_finite(block))?;
    values.iter().copied().enumerate().skip(block * 4096).find(|(_, v)| !v.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_refused() {
        let mut out = Vec::new();
        for dtype in [Dtype::I64, Dtype::U8, Dtype::BOOL, Dtype::F8_E8M0, Dtype::F4] {
            assert!(!extend(&mut out, dtype, &[0; 16], 0..1) && !is_floating(dtype), "{dtype}");
        }
        assert!(out.is_empty());
    }

    #[test]
    fn the_first_non_finite_value_is_found() {
        let mut values = vec![1.0; 10_000];
        assert_eq!(first_non_finite(&values), None);
        values[9_000] = f32::NEG_INFINITY;
        values[8_999] = f32::INFINITY;
        assert_eq!(first_non_finite(&values), Some((8_999, f32::INFINITY)));
    }
}
