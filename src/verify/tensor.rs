//! Tensors of a golden set on the host, read from and written to safetensors files.

use std::collections::BTreeMap;

use ::safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::checkpoint::dtype;
use crate::latent::Latent;
use crate::{Error, ErrorKind, Result};

/// The two kinds of elements of golden sets.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Numbers.
    F32(Vec<f32>),
    /// Masks: 0 or 1.
    U8(Vec<u8>),
}

/// A tensor, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Sizes, slowest-varying first.
    pub shape: Vec<usize>,
    /// As many as the product of the sizes.
    pub values: Values,
}

impl Tensor {
    /// A tensor of numbers.
    pub fn f32(shape: &[usize], values: Vec<f32>) -> Self {
        Self { shape: shape.to_vec(), values: Values::F32(values) }
    }

    /// A mask.
    pub fn u8(shape: &[usize], values: Vec<u8>) -> Self {
        Self { shape: shape.to_vec(), values: Values::U8(values) }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match &self.values {
            Values::F32(v) => v.len(),
            Values::U8(v) => v.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements as numbers.
    pub fn numbers(&self) -> Vec<f32> {
        match &self.values {
            Values::F32(v) => v.clone(),
            Values::U8(v) => v.iter().map(|b| f32::from(*b)).collect(),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        match &self.values {
            Values::F32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Values::U8(v) => v.clone(),
        }
    }
}

impl From<&Latent> for Tensor {
    fn from(latent: &Latent) -> Self {
        Self::f32(&latent.shape(), latent.data().to_vec())
    }
}

/// Reads all tensors of a safetensors file. Unlike a checkpoint's weights they may hold NaN: a
/// reference that failed is recorded as it is.
///
/// # Errors
/// [`ErrorKind::File`] if the bytes are not such a file or hold another element type.
pub(super) fn read_all(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>> {
    let file = SafeTensors::deserialize(bytes)
        .map_err(|e| Error::new(ErrorKind::File, "the golden tensors cannot be read").cause(e))?;
    file.iter()
        .map(|(name, view)| {
            let values = match view.dtype() {
                Dtype::U8 => Values::U8(view.data().to_vec()),
                other => Values::F32(dtype::numbers(other, view.data()).ok_or_else(|| {
                    Error::new(ErrorKind::File, "a golden tensor has an unknown element type")
                        .at(name)
                        .expected("numbers")
                        .found(other.to_string())
                })?),
            };
            Ok((name.to_owned(), Tensor { shape: view.shape().to_vec(), values }))
        })
        .collect()
}

/// The bytes of a safetensors file of `tensors`.
///
/// # Errors
/// [`ErrorKind::Usage`] if two tensors have one name, as when two sets are saved together, or one does not fit its
/// shape.
pub fn write_all(tensors: &[(String, Tensor)]) -> Result<Vec<u8>> {
    let mut data = BTreeMap::new();
    for (name, tensor) in tensors {
        if data.insert(name.as_str(), (tensor, tensor.bytes())).is_some() {
            return Err(Error::usage("two tensors to be saved have one name")
                .at(name)
                .hint("save one set at a time"));
        }
    }
    let views = data
        .iter()
        .map(|(name, (tensor, bytes))| {
            let dtype = match tensor.values {
                Values::F32(_) => Dtype::F32,
                Values::U8(_) => Dtype::U8,
            };
            let misfit = || Error::usage("a tensor does not fit its shape").at(*name);
            let elements = tensor.shape.iter().try_fold(1usize, |n, size| n.checked_mul(*size));
            if elements != Some(tensor.len()) {
                return Err(misfit().expected(format!("{:?}", tensor.shape)).found(tensor.len().to_string()));
            }
            let view = TensorView::new(dtype, tensor.shape.clone(), bytes);
            view.map(|v| (*name, v)).map_err(|e| misfit().cause(e))
        })
        .collect::<Result<Vec<_>>>()?;
    ::safetensors::serialize(views, None)
        .map_err(|e| Error::internal("the results cannot be written as safetensors").cause(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let tensors = vec![
            ("a.b".to_owned(), Tensor::f32(&[2, 1], vec![1.5, f32::INFINITY])),
            ("mask".to_owned(), Tensor::u8(&[3], vec![0, 1, 1])),
        ];
        let read = read_all(&write_all(&tensors).unwrap()).unwrap();
        assert_eq!(read.into_iter().collect::<Vec<_>>(), tensors);
        let twice = [tensors[0].clone(), tensors[0].clone()];
        assert_eq!(write_all(&twice).unwrap_err().kind(), ErrorKind::Usage);
    }
}
