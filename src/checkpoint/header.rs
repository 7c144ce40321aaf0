//! What a checkpoint's header holds, and the rules that every tensor in it must keep.
#![warn(clippy::indexing_slicing, clippy::string_slice)]

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use ::safetensors::Dtype;

use crate::{Error, ErrorKind, Result};

/// More than any network of this family has (SDXL with a second copy of its weights: 5,000).
pub(super) const MAX_TENSORS: usize = 32_768;
/// The longest real names have about 120 bytes. No network has a tensor with a longer one.
const MAX_NAME: usize = 512;

/// What the header says of one tensor.
#[doc(hidden)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Sizes, slowest-varying first; empty for a scalar.
    pub shape: Vec<usize>,
    /// How the elements are stored.
    pub dtype: Dtype,
}

impl TensorInfo {
    /// Number of elements: the product of the sizes (checked for overflow when the file was opened).
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A tensor as a file holds it.
pub(super) struct StoredTensor {
    pub name: String,
    pub info: TensorInfo,
    /// Bytes from the start of the file; unused where weights are given by a formula.
    pub bytes: Range<usize>,
}

/// Tensors in the order of the file, and the metadata.
pub(super) struct Header {
    pub tensors: Vec<StoredTensor>,
    pub metadata: BTreeMap<String, String>,
    /// What is odd about the file, a sentence each.
    pub warnings: Vec<String>,
}

/// The names met so far, and the position of each.
#[derive(Default)]
pub(super) struct SeenNames {
    places: HashMap<String, usize>,
    twice: Vec<String>,
}

impl SeenNames {
    /// Notes a name for `place`; the place of another of that name, if there is one.
    pub fn admit(&mut self, name: &str, place: usize) -> Option<usize> {
        let before = self.places.get(name).copied();
        match before {
            Some(_) => self.twice.push(name.to_owned()),
            None => drop(self.places.insert(name.to_owned(), place)),
        }
        before
    }

    /// A sentence for each name that was met again.
    pub fn warnings(&self) -> Vec<String> {
        let warning = |name: &String| format!("two tensors are called \"{}\": the last counts", shown(name));
        self.twice.iter().map(warning).collect()
    }
}

/// Whether a network may have a tensor of this name, which may also be shown as it is.
pub(super) fn is_usable(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME && !name.chars().any(char::is_control)
}

/// The warning for a name that is not usable: the tensor is left out.
pub(super) fn unusable(name: &str) -> String {
    format!("the tensor \"{}\" ({} bytes) is left out: no network has such a name", shown(name), name.len())
}

/// A name in a message: what would garble a terminal is escaped, what is long is cut.
pub(super) fn shown(name: &str) -> String {
    name.escape_debug().take(200).collect()
}

/// Bytes that a tensor of this dtype and shape takes.
pub(super) fn byte_size(name: &str, info: &TensorInfo) -> Result<usize> {
    // In the order of the format's own reader, which multiplies the sizes first.
    let elements = info.shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size));
    let bits = elements.and_then(|n| n.checked_mul(info.dtype.bitsize()));
    match bits {
        // Dtypes below one byte may leave a rest.
        Some(bits) if bits % 8 == 0 => Ok(bits / 8),
        _ => Err(damaged("a tensor has an impossible size").at(shown(name)).found(describe(info))),
    }
}

pub(super) fn too_many_tensors() -> Error {
    damaged("too many tensors").expected(format!("at most {MAX_TENSORS}"))
}

/// `F16 [4, 320, 3, 3]`.
pub(super) fn describe(info: &TensorInfo) -> String {
    format!("{} {:?}", info.dtype, info.shape)
}

/// A file that is a safetensors file, but a faulty one.
pub(super) fn damaged(what: &str) -> Error {
    Error::new(ErrorKind::File, what).hint("the file is damaged or badly written: fetch it again")
}

/// Lays tensors one after the other, as a file of `dtype` would hold them.
pub(super) fn lay_out(tensors: &[(String, Vec<usize>)], dtype: Dtype) -> Result<Vec<StoredTensor>> {
    if tensors.len() > MAX_TENSORS {
        return Err(too_many_tensors());
    }
    let mut names = SeenNames::default();
    let mut end = 0usize;
    let place = |(name, shape): &(String, Vec<usize>)| {
        if !is_usable(name) || names.admit(name, 0).is_some() {
            return Err(damaged("a tensor's name is empty, garbled, or there already").at(shown(name)));
        }
        let info = TensorInfo { shape: shape.clone(), dtype };
        let start = end;
        end = start
            .checked_add(byte_size(name, &info)?)
            .ok_or_else(|| damaged("the file is too large").at(name))?;
        Ok(StoredTensor { name: name.clone(), info, bytes: start..end })
    };
    tensors.iter().map(place).collect()
}
