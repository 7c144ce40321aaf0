//! Checkpoints: opened, validated, and read tensor by tensor as `f32`.
//!
//! Opening looks at the header only, so it takes milliseconds for any size of file. Weights are
//! decoded when a builder asks for them, with the shape it expects: a tensor that is missing,
//! misshapen or not finite is an error that names it, never a wrong picture.

mod dtype;
mod family;
mod header;
mod manifest;
pub mod names;
mod safetensors;
mod sniff;
mod synthetic;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::ops::{Bound, Range};
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::{Error, ErrorKind, Result};

pub use self::manifest::Manifest;
pub use ::safetensors::Dtype;
pub(crate) use family::refuse_foreign;

/// What the header says of one tensor.
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

/// A model file: names, shapes and, on demand, weights.
///
/// ```no_run
/// use sagittal::checkpoint::Checkpoint;
/// let model = Checkpoint::open("v1-5-pruned-emaonly.safetensors")?;
/// let bias = model.read_f32("model.diffusion_model.out.2.bias", &[4])?;
/// # Ok::<(), sagittal::Error>(())
/// ```
pub struct Checkpoint {
    file: PathBuf,
    /// In the order of the file.
    tensors: Vec<Tensor>,
    /// Sorted, so that everything below one prefix is one range.
    index: BTreeMap<String, usize>,
    metadata: BTreeMap<String, String>,
    source: Source,
}

struct Tensor {
    name: String,
    info: TensorInfo,
    /// Bytes from the start of the file; unused by a synthetic checkpoint.
    bytes: Range<usize>,
}

enum Source {
    /// With the file, whose length is looked at again before each read.
    Mapped(Mmap, File),
    Embedded(&'static [u8]),
    Synthetic {
        seed: u64,
    },
}

impl Checkpoint {
    /// Opens a `.safetensors` file. It is mapped, not read: memory is used for what is decoded.
    ///
    /// # Errors
    /// [`ErrorKind::File`] if the path cannot be read, is a folder, or holds something else than
    /// a sound safetensors file; the message says what it looks like and what to pass instead.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let cannot = |source| {
            Error::io(path, "cannot open the model", source)
                .hint("check the path and that you may read the file")
        };
        let meta = fs::metadata(path).map_err(cannot)?;
        if meta.is_dir() {
            return Err(sniff::directory(path));
        }
        // Opening a pipe would wait for a writer for ever.
        if !meta.is_file() {
            return Err(Error::new(ErrorKind::File, "not a regular file")
                .file(path)
                .hint("the model is mapped into memory, so it must be a file on a disk"));
        }
        if meta.len() == 0 {
            return Err(sniff::not_a_model(&[]).file(path));
        }
        let file = File::open(path).map_err(cannot)?;
        // SAFETY: a mapping is only sound while nobody shortens or rewrites the file, which no
        // program can rule out; this is the usual bargain for models of several GB, which would
        // otherwise be copied whole. Every read looks at the file's length first, the bytes
        // are only decoded as plain numbers, and no reference outlives the map.
        let map = unsafe { Mmap::map(&file) }.map_err(cannot)?;
        let header = safetensors::parse(&map).map_err(|e| e.file(path))?;
        Ok(Self::from_header(path.into(), header, Source::Mapped(map, file)))
    }

    /// A safetensors file that is part of the program; `name` stands for it in errors.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_bytes(name: &str, bytes: &'static [u8]) -> Result<Self> {
        let header = safetensors::parse(bytes).map_err(|e| e.file(name))?;
        Ok(Self::from_header(name.into(), header, Source::Embedded(bytes)))
    }

    /// A checkpoint whose weights are given by a formula and rounded to `dtype` (`F16` or `F32`):
    /// tests and benchmarks of any model without its weights. Nothing is stored.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for another dtype; [`ErrorKind::File`] for a manifest with a repeated
    /// name or an impossible shape.
    pub fn synthetic(manifest: &Manifest, seed: u64, dtype: Dtype) -> Result<Self> {
        if !matches!(dtype, Dtype::F16 | Dtype::F32) {
            return Err(Error::usage("this dtype cannot hold synthetic weights")
                .expected("F16 or F32")
                .found(dtype.to_string()));
        }
        let header = manifest.header(seed, dtype)?;
        let name = format!("{} (synthetic, seed {seed})", manifest.family);
        Ok(Self::from_header(name.into(), header, Source::Synthetic { seed }))
    }

    fn from_header(file: PathBuf, header: header::Header, source: Source) -> Self {
        let header::Header { tensors, metadata } = header;
        let index = tensors.iter().enumerate().map(|(i, t)| (t.name.clone(), i)).collect();
        Self { file, tensors, index, metadata, source }
    }

    /// The path of the file, or the name that stands for it.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// All tensor names, in the order of the file.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tensors.iter().map(|t| t.name.as_str())
    }

    /// The names that start with `prefix`, sorted.
    pub fn names_under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        self.index
            .range::<str, _>(from)
            .map(|(name, _)| name.as_str())
            .take_while(move |name| name.starts_with(prefix))
    }

    /// Shape and dtype of a tensor, or `None` if there is none of that name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.get(name).map(|t| &t.info)
    }

    /// Whether there is a tensor of that name.
    pub fn has(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    /// The free-form texts of the header (`__metadata__`); values may hold line breaks.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Looks for a tensor in the header alone; its data is not read.
    ///
    /// # Errors
    /// [`ErrorKind::Model`] if the tensor is missing or has another shape.
    pub fn expect(&self, name: &str, shape: &[usize]) -> Result<()> {
        self.look(name, shape).map(|_| ())
    }

    fn look(&self, name: &str, shape: &[usize]) -> Result<&Tensor> {
        let tensor = self.get(name).ok_or_else(|| self.missing(name, format!("{shape:?}")))?;
        if tensor.info.shape != shape {
            return Err(self.misshapen(name, format!("{shape:?}"), &tensor.info.shape));
        }
        Ok(tensor)
    }

    /// All elements of a tensor, row-major, as `f32`.
    ///
    /// # Errors
    /// [`ErrorKind::Model`] if the tensor is missing, has another shape than `expected_shape`, is
    /// not stored as floating point, or holds NaN or infinity; [`ErrorKind::Memory`] if there is
    /// no room for the result.
    pub fn read_f32(&self, name: &str, expected_shape: &[usize]) -> Result<Vec<f32>> {
        let tensor = self.look(name, expected_shape)?;
        let elements = tensor.info.elements();
        let mut out = self.reserve(name, elements)?;
        self.decode(tensor, 0..elements, &mut out)?;
        Ok(out)
    }

    /// Some rows of a matrix `[rows, columns]` as `f32`, one after the other; the rest is not
    /// decoded. For token embeddings, of which a prompt needs 77 rows of 49,408.
    ///
    /// # Errors
    /// As [`read_f32`](Self::read_f32); [`ErrorKind::Usage`] for a row beyond the last.
    pub fn rows_f32(&self, name: &str, rows: &[usize]) -> Result<Vec<f32>> {
        let [height, width] = self.dims(name)?;
        let tensor = self.get(name).ok_or_else(|| self.missing(name, "a matrix"))?;
        let mut out = self.reserve(name, rows.len().saturating_mul(width))?;
        for &row in rows {
            if row >= height {
                return Err(Error::usage("row out of range")
                    .file(&self.file)
                    .at(name)
                    .expected(format!("a row below {height}"))
                    .found(row.to_string()));
            }
            self.decode(tensor, row * width..(row + 1) * width, &mut out)?;
        }
        Ok(out)
    }

    /// The sizes of a tensor of `N` dimensions, none of them zero.
    ///
    /// # Errors
    /// [`ErrorKind::Model`] if the tensor is missing, has another number of dimensions, or is empty.
    pub fn dims<const N: usize>(&self, name: &str) -> Result<[usize; N]> {
        let info = self.tensor(name).ok_or_else(|| self.missing(name, format!("{N} dimensions")))?;
        match <[usize; N]>::try_from(info.shape.as_slice()) {
            Ok(dims) if !dims.contains(&0) => Ok(dims),
            _ => Err(self.misshapen(name, format!("{N} dimensions, none empty"), &info.shape)),
        }
    }

    /// How many consecutive numbers follow `prefix` in the names: `input_blocks.` → 12. Zero if none.
    ///
    /// # Errors
    /// [`ErrorKind::Model`] if a number is left out, for then part of the network is missing.
    pub fn count(&self, prefix: &str) -> Result<usize> {
        let number =
            |name: &str| name[prefix.len()..].split('.').next().and_then(|n| n.parse::<usize>().ok());
        let found: BTreeSet<usize> = self.names_under(prefix).filter_map(number).collect();
        match found.iter().enumerate().find(|&(i, &n)| i != n) {
            None => Ok(found.len()),
            Some((gap, &next)) => Err(self
                .fault("a part of the network is missing")
                .at(format!("{prefix}{gap}"))
                .found(format!("{prefix}{next}"))
                .hint("the file is incomplete: fetch it again")),
        }
    }

    /// An [`ErrorKind::Model`] error about this file.
    pub(crate) fn fault(&self, what: impl Into<String>) -> Error {
        Error::new(ErrorKind::Model, what).file(&self.file)
    }

    /// The error for a tensor of another shape than the network needs.
    pub(crate) fn misshapen(&self, name: &str, expected: impl Into<String>, found: &[usize]) -> Error {
        self.fault("a tensor has the wrong shape")
            .at(name)
            .expected(expected)
            .found(format!("{found:?}"))
            .hint("the file is damaged, or made for another network: use an unmodified checkpoint")
    }

    /// The error for a tensor that the network needs and the file lacks.
    pub(crate) fn missing(&self, name: &str, expected: impl Into<String>) -> Error {
        let nearest = self.nearest(name).map_or("no tensors".into(), |n| format!("{n} as the nearest name"));
        self.fault("a tensor is missing")
            .at(name)
            .expected(expected)
            .found(nearest)
            .hint("pass a complete checkpoint (UNet, VAE and text encoder in one file)")
    }

    /// In sorted order the name with the longest common prefix is next to where `name` would be.
    fn nearest(&self, name: &str) -> Option<&str> {
        let common = |other: &str| name.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
        let before = self.index.range::<str, _>((Bound::Unbounded, Bound::Excluded(name))).next_back();
        let after = self.index.range::<str, _>((Bound::Included(name), Bound::Unbounded)).next();
        before.into_iter().chain(after).map(|(n, _)| n.as_str()).max_by_key(|n| common(n))
    }

    fn get(&self, name: &str) -> Option<&Tensor> {
        self.index.get(name).map(|&i| &self.tensors[i])
    }

    /// Sizes come from a file, so a refusal of the allocator must not end the process.
    fn reserve(&self, name: &str, elements: usize) -> Result<Vec<f32>> {
        let mut out = Vec::new();
        out.try_reserve_exact(elements).map_err(|source| {
            Error::new(ErrorKind::Memory, "no memory for a tensor").file(&self.file).at(name).cause(source)
        })?;
        Ok(out)
    }

    /// Appends the elements of `range` to `out`.
    fn decode(&self, tensor: &Tensor, range: Range<usize>, out: &mut Vec<f32>) -> Result<()> {
        let stored = match &self.source {
            Source::Mapped(map, file) => {
                // A file that was cut short meanwhile (a download begun again) would end the
                // program with a signal at the first page that is gone.
                let length = file.metadata().map_or(0, |m| m.len());
                if length < map.len() as u64 {
                    return Err(Error::new(ErrorKind::File, "the file became shorter while it was in use")
                        .file(&self.file)
                        .expected(format!("{} bytes", map.len()))
                        .found(format!("{length} bytes"))
                        .hint("open it again when it is complete"));
                }
                &map[tensor.bytes.clone()]
            }
            Source::Embedded(bytes) => &bytes[tensor.bytes.clone()],
            Source::Synthetic { seed } => {
                synthetic::extend(out, &tensor.name, &tensor.info, *seed, range);
                return Ok(());
            }
        };
        let (start, first) = (out.len(), range.start);
        if !dtype::extend(out, tensor.info.dtype, stored, range) {
            return Err(self
                .fault("a weight is not stored as floating point")
                .at(&tensor.name)
                .expected("F32, F16, BF16, F64, F8_E4M3 or F8_E5M2")
                .found(tensor.info.dtype.to_string())
                .hint("pass the checkpoint before it was quantised"));
        }
        match dtype::first_non_finite(&out[start..]) {
            None => Ok(()),
            Some((offset, value)) => Err(self
                .fault("a weight is not a finite number")
                .at(format!("{} element {}", tensor.name, first + offset))
                .found(format!("{value}"))
                .hint("the file is damaged or was converted beyond its number range: use another copy")),
        }
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checkpoint({}, {} tensors)", self.file.display(), self.tensors.len())
    }
}
