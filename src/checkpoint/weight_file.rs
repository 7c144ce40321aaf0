//! One file that holds weights, and the decoding of a stretch of one of its tensors.
#![warn(clippy::indexing_slicing, clippy::string_slice)]

use std::borrow::Cow;
use std::fs::{self, File};
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::header::{Header, StoredTensor};
use super::{dtype, other_formats, safetensors, synthetic};
use crate::{Error, ErrorKind, Result};

/// Where the bytes of tensors come from.
pub(super) struct WeightFile {
    file: PathBuf,
    source: Bytes,
}

enum Bytes {
    /// With the file, whose length is looked at again before each read.
    Mapped(Mmap, File),
    Embedded(Cow<'static, [u8]>),
    Synthetic {
        seed: u64,
    },
}

impl WeightFile {
    /// Maps a file and reads its header.
    pub fn open(path: &Path) -> Result<(Self, Header)> {
        let cannot = |source| Error::io(path, "cannot open the file", source);
        let meta = fs::metadata(path).map_err(cannot)?;
        // Opening a pipe would wait for a writer for ever.
        if !meta.is_file() {
            return Err(Error::new(ErrorKind::File, "not a regular file")
                .file(path)
                .hint("the model is mapped into memory, so it must be a file on a disk"));
        }
        if meta.len() == 0 {
            return Err(other_formats::not_a_model(&[]).file(path));
        }
        let file = File::open(path).map_err(cannot)?;
        // SAFETY: a mapping is only sound while no program shortens or rewrites the file, which cannot
        // be ruled out; this is the usual bargain for models of several GB, which would
        // otherwise be copied whole. Every read looks at the file's length first, the bytes
        // are only decoded as plain numbers, and no reference outlives the map.
        let map = unsafe { Mmap::map(&file) }.map_err(cannot)?;
        let header = safetensors::parse(&map).map_err(|e| e.file(path))?;
        Ok((Self { file: path.into(), source: Bytes::Mapped(map, file) }, header))
    }

    /// A safetensors file in memory; errors call it `name`.
    pub fn embedded(name: &str, bytes: Cow<'static, [u8]>) -> Result<(Self, Header)> {
        let header = safetensors::parse(&bytes).map_err(|e| e.file(name))?;
        Ok((Self { file: name.into(), source: Bytes::Embedded(bytes) }, header))
    }

    /// A file whose weights are given by a formula.
    pub fn synthetic(name: String, seed: u64) -> Self {
        Self { file: name.into(), source: Bytes::Synthetic { seed } }
    }

    /// The path of the file, or the name that it was given.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The bytes of `tensor`; none where weights are given by a formula.
    pub fn bytes(&self, tensor: &StoredTensor) -> Result<Option<&[u8]>> {
        match &self.source {
            Bytes::Mapped(map, file) => {
                self.still_whole(map.len() as u64, file)?;
                self.stretch(map, tensor).map(Some)
            }
            Bytes::Embedded(bytes) => self.stretch(bytes, tensor).map(Some),
            Bytes::Synthetic { .. } => Ok(None),
        }
    }

    /// The bytes of `tensor` in the file's; where they lie was checked when it was opened.
    fn stretch<'b>(&self, bytes: &'b [u8], tensor: &StoredTensor) -> Result<&'b [u8]> {
        bytes.get(tensor.bytes.clone()).ok_or_else(|| {
            Error::internal("a tensor lies outside its file").file(&self.file).at(&tensor.name)
        })
    }

    /// Appends the elements `range` of `tensor` to `out`; `name` is what the caller calls it.
    ///
    /// # Errors
    /// [`ErrorKind::Model`] for a weight that is no finite number; [`ErrorKind::File`] if the file
    /// was cut short meanwhile.
    pub fn decode(
        &self,
        tensor: &StoredTensor,
        name: &str,
        range: Range<usize>,
        out: &mut Vec<f32>,
    ) -> Result<()> {
        let Some(stored) = self.bytes(tensor)? else {
            if let Bytes::Synthetic { seed } = self.source {
                synthetic::extend(out, &tensor.name, &tensor.info, seed, range);
            }
            return Ok(());
        };
        let (start, first) = (out.len(), range.start);
        if !dtype::extend(out, tensor.info.dtype, stored, range) {
            return Err(self.not_floating(tensor, name));
        }
        match dtype::first_non_finite(out.get(start..).unwrap_or_default()) {
            None => Ok(()),
            Some((offset, value)) => Err(Error::new(ErrorKind::Model, "a weight is not a finite number")
                .file(&self.file)
                .at(format!("{} element {}", shown(tensor, name), first + offset))
                .found(format!("{value}"))
                .hint("the file is damaged or was converted beyond its number range: use another copy")),
        }
    }

    /// The error for a tensor whose dtype is an integer's, or one that needs more than decoding.
    pub fn not_floating(&self, tensor: &StoredTensor, name: &str) -> Error {
        Error::new(ErrorKind::Model, "a weight is not stored as floating point")
            .file(&self.file)
            .at(shown(tensor, name))
            .expected("F32, F16, BF16, F64, F8_E4M3 or F8_E5M2")
            .found(tensor.info.dtype.to_string())
            .hint("pass the checkpoint before it was quantised")
    }

    /// A file that was cut short meanwhile (a download begun again) would end the program with a
    /// signal at the first page that is gone.
    fn still_whole(&self, expected: u64, file: &File) -> Result<()> {
        let length = file.metadata().map_or(0, |m| m.len());
        if length >= expected {
            return Ok(());
        }
        Err(Error::new(ErrorKind::File, "the file became shorter while it was in use")
            .file(&self.file)
            .expected(format!("{expected} bytes"))
            .found(format!("{length} bytes"))
            .hint("open it again when it is complete"))
    }
}

/// The tensor's name, with that in the file if the layout is another.
fn shown(tensor: &StoredTensor, name: &str) -> String {
    if name == tensor.name { name.to_owned() } else { format!("{name}, stored as {}", tensor.name) }
}
