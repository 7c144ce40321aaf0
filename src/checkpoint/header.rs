//! What a checkpoint's header holds, and the rules that every tensor in it must keep.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use ::safetensors::Dtype;

use super::TensorInfo;
use crate::{Error, ErrorKind, Result};

/// More than any network of this family has (SDXL with a second copy of its weights: 5,000).
pub(super) const MAX_TENSORS: usize = 32_768;
/// Convolutions over video have five dimensions; nothing has more.
const MAX_RANK: usize = 8;
/// The longest real names have about 120 bytes.
const MAX_NAME: usize = 512;

/// A tensor as a file holds it.
pub(super) struct Stored {
    pub name: String,
    pub info: TensorInfo,
    /// Bytes from the start of the file; unused where weights are given by a formula.
    pub bytes: Range<usize>,
}

/// Tensors in the order of the file, and the metadata.
pub(super) struct Header {
    pub tensors: Vec<Stored>,
    pub metadata: BTreeMap<String, String>,
}

/// The names met so far.
#[derive(Default)]
pub(super) struct Names(HashSet<String>);

impl Names {
    /// Refuses a name that is used twice, empty, overlong, or that would garble a terminal.
    pub fn admit(&mut self, name: &str) -> Result<()> {
        if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
            let shown: String = name.escape_debug().take(60).collect();
            return Err(damaged("a tensor's name is not usable")
                .expected(format!("1 to {MAX_NAME} bytes without control characters"))
                .found(format!("\"{shown}\" of {} bytes", name.len())));
        }
        if !self.0.insert(name.into()) {
            return Err(damaged("two tensors have the same name").at(name));
        }
        if self.0.len() > MAX_TENSORS {
            return Err(too_many_tensors());
        }
        Ok(())
    }
}

/// Bytes that a tensor of this dtype and shape takes.
pub(super) fn byte_size(name: &str, info: &TensorInfo) -> Result<usize> {
    if info.shape.len() > MAX_RANK {
        return Err(damaged("a tensor has too many dimensions")
            .at(name)
            .expected(format!("at most {MAX_RANK}"))
            .found(info.shape.len().to_string()));
    }
    let bits = info.shape.iter().try_fold(info.dtype.bitsize(), |n, &size| n.checked_mul(size));
    match bits {
        // Dtypes below one byte may leave a rest.
        Some(bits) if bits % 8 == 0 => Ok(bits / 8),
        _ => Err(damaged("a tensor has an impossible size").at(name).found(describe(info))),
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
pub(super) fn lay_out(tensors: &[(String, Vec<usize>)], dtype: Dtype) -> Result<Vec<Stored>> {
    let mut names = Names::default();
    let mut end = 0usize;
    let place = |(name, shape): &(String, Vec<usize>)| {
        names.admit(name)?;
        let info = TensorInfo { shape: shape.clone(), dtype };
        let start = end;
        end = start
            .checked_add(byte_size(name, &info)?)
            .ok_or_else(|| damaged("the file is too large").at(name))?;
        Ok(Stored { name: name.clone(), info, bytes: start..end })
    };
    tensors.iter().map(place).collect()
}
