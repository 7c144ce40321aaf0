//! A checkpoint: tensors under the names of the original layout, looked up in headers and read as `f32`.
#![warn(clippy::indexing_slicing, clippy::string_slice)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ::safetensors::Dtype;

use super::dtype;
use super::header::{Header, MAX_TENSORS, TensorInfo};
use super::key_maps::{UNET, VAE};
use super::tensor::Tensor;
use super::weight_file::WeightFile;
use crate::{Error, ErrorKind, Remedy, Resource, Result};

/// A model: names, shapes and, on demand, weights.
///
/// Whatever the layout on disk, tensors have the names of the original single-file layout:
/// `model.diffusion_model.*`, `first_stage_model.*`, and `cond_stage_model.*` or
/// `conditioner.embedders.*`. [`with_vae`](Self::with_vae) and [`with_text_encoder`](Self::with_text_encoder)
/// replace its parts by those of other files.
///
/// ```no_run
/// use sagittal::checkpoint::Checkpoint;
/// let model = Checkpoint::open("v1-5-pruned-emaonly.safetensors")?
///     .with_vae(Checkpoint::open("vae-ft-mse-840000-ema-pruned.safetensors")?)?;
/// let bias = model.read_f32("model.diffusion_model.out.2.bias", &[4])?;
/// # Ok::<(), sagittal::Error>(())
/// ```
pub struct Checkpoint {
    pub(super) file: PathBuf,
    /// In the order of the file.
    pub(super) tensors: Vec<Tensor>,
    /// Sorted, so that everything below one prefix is one range.
    index: BTreeMap<String, usize>,
    pub(super) metadata: BTreeMap<String, String>,
    /// The files that hold the bytes.
    pub(super) stores: Vec<WeightFile>,
    /// The places of text encoders that came from files of their own.
    pub(super) overlaid: Vec<&'static str>,
    /// Whether tensors that no layer takes are left out, whatever they would do.
    ignores_extra: bool,
    /// Warnings that were given: each is once, however often the file is looked at.
    warned: Mutex<BTreeSet<String>>,
}

impl Checkpoint {
    /// The tensors of one file under the names that they have there.
    pub(super) fn open_file(path: &Path) -> Result<Self> {
        let (store, header) = WeightFile::open(path)?;
        Self::from_header(path.into(), header, store)
    }

    /// This checkpoint without the tensors that no layer of its networks takes. Otherwise a file with adapters,
    /// gates or biases among them, which would change pictures, is refused.
    pub fn ignoring_extra(self) -> Self {
        Self { ignores_extra: true, ..self }
    }

    pub(crate) fn ignores_extra(&self) -> bool {
        self.ignores_extra
    }

    /// Warns of something about this file, once.
    pub(crate) fn warn(&self, what: impl fmt::Display) {
        self.warn_of(&self.file, what);
    }

    /// Warns of something about `file`, one of those that this checkpoint is made of, once.
    pub(crate) fn warn_of(&self, file: &Path, what: impl fmt::Display) {
        let text = format!("{}: {what}", file.display());
        if self.warned.lock().unwrap_or_else(PoisonError::into_inner).insert(text.clone()) {
            log::warn!("{text}");
        }
    }

    pub(super) fn from_header(file: PathBuf, header: Header, store: WeightFile) -> Result<Self> {
        for warning in &header.warnings {
            log::warn!("{}: {warning}", file.display());
        }
        let tensors = header.tensors.into_iter().map(|stored| Tensor::new(0, stored)).collect();
        Self {
            file,
            tensors,
            index: BTreeMap::new(),
            metadata: header.metadata,
            stores: vec![store],
            overlaid: Vec::new(),
            ignores_extra: false,
            warned: Mutex::default(),
        }
        .indexed()
    }

    /// Builds the index of names anew, after the tensors have changed.
    pub(super) fn indexed(mut self) -> Result<Self> {
        self.index.clear();
        for (i, tensor) in self.tensors.iter().enumerate() {
            if self.index.insert(tensor.name.clone(), i).is_some() {
                return Err(self
                    .fault("two tensors have one name in the original layout")
                    .at(&tensor.name)
                    .hint("the file mixes two layouts: use an unmodified one"));
            }
        }
        match self.tensors.len() {
            0..=MAX_TENSORS => Ok(self),
            n => Err(Error::new(ErrorKind::File, "too many tensors")
                .file(&self.file)
                .expected(format!("at most {MAX_TENSORS}"))
                .found(n.to_string())),
        }
    }

    /// The path of the file, or the name that it was given.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// All tensor names, in the order of the file.
    #[doc(hidden)]
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tensors.iter().map(|t| t.name.as_str())
    }

    /// The names that start with `prefix`, sorted.
    #[doc(hidden)]
    pub fn names_under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        self.index
            .range::<str, _>(from)
            .map(|(name, _)| name.as_str())
            .take_while(move |name| name.starts_with(prefix))
    }

    /// Shape and dtype of a tensor, or `None` if there is none of that name.
    #[doc(hidden)]
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.get(name).map(|t| &t.info)
    }

    /// Whether there is a tensor of that name.
    #[doc(hidden)]
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
    /// [`ErrorKind::Model`] if the tensor is missing, has another shape, or is not floating point.
    #[doc(hidden)]
    pub fn expect(&self, name: &str, shape: &[usize]) -> Result<()> {
        self.look(name, shape).map(|_| ())
    }

    fn look(&self, name: &str, shape: &[usize]) -> Result<&Tensor> {
        let tensor = self.get(name).ok_or_else(|| self.missing(name, format!("{shape:?}")))?;
        if tensor.info.shape != shape {
            return Err(self.misshapen(name, format!("{shape:?}"), &tensor.info.shape));
        }
        tensor.floating(&self.stores)?;
        Ok(tensor)
    }

    /// What the file itself calls a tensor.
    pub(crate) fn stored_name<'a>(&'a self, name: &'a str) -> &'a str {
        self.get(name).map_or(name, Tensor::stored_name)
    }

    /// Whether there is a tensor `name` and all of its values are numbers of f16, by its dtype.
    #[doc(hidden)]
    pub fn fits_f16(&self, name: &str) -> bool {
        self.get(name).is_some_and(Tensor::fits_f16)
    }

    /// All elements of a tensor, row-major, as `f32`.
    ///
    /// # Errors
    /// [`ErrorKind::Model`] if the tensor is missing, has another shape than `expected_shape`, is
    /// not stored as floating point, or holds NaN or infinity; [`ErrorKind::Memory`] if there is
    /// no room for the result.
    #[doc(hidden)]
    pub fn read_f32(&self, name: &str, expected_shape: &[usize]) -> Result<Vec<f32>> {
        let tensor = self.look(name, expected_shape)?;
        let elements = tensor.info.elements();
        let mut out = self.reserve(name, elements)?;
        tensor.decode(&self.stores, 0..elements, &mut out)?;
        Ok(out)
    }

    /// The one value of a tensor, which may be an integer too: alphas are.
    ///
    /// # Errors
    /// As [`read_f32`](Self::read_f32); [`ErrorKind::Model`] if there are more values, or none.
    #[doc(hidden)]
    pub fn number(&self, name: &str) -> Result<f64> {
        let tensor = self.get(name).ok_or_else(|| self.missing(name, "one number"))?;
        if tensor.info.elements() != 1 {
            return Err(self.misshapen(name, "one number", &tensor.info.shape));
        }
        let integer = tensor.raw(&self.stores)?.and_then(|bytes| dtype::integer(tensor.info.dtype, bytes));
        match integer {
            Some(value) => Ok(value),
            None => {
                let values = self.read_f32(name, &tensor.info.shape)?;
                values.first().map(|v| f64::from(*v)).ok_or_else(|| Error::internal("no value was read"))
            }
        }
    }

    /// The bytes of a tensor as the file holds them, little-endian and at any alignment, and their
    /// dtype. No bytes if they do not lie so in a file: weights made by formula, or put together
    /// from several stored tensors.
    ///
    /// # Errors
    /// [`ErrorKind::Model`] if the tensor is missing or has another shape than `expected_shape`;
    /// the values are not looked at.
    #[doc(hidden)]
    pub fn raw(&self, name: &str, expected_shape: &[usize]) -> Result<(Dtype, Option<&[u8]>)> {
        let tensor = self.look(name, expected_shape)?;
        Ok((tensor.info.dtype, tensor.raw(&self.stores)?))
    }

    /// Some rows of a matrix `[rows, columns]` as `f32`, one after the other; the rest is not
    /// decoded. For token embeddings, of which a prompt needs 77 rows of 49,408.
    ///
    /// # Errors
    /// As [`read_f32`](Self::read_f32); [`ErrorKind::Usage`] for a row beyond the last.
    #[doc(hidden)]
    pub fn rows_f32(&self, name: &str, rows: &[usize]) -> Result<Vec<f32>> {
        let [height, width] = self.dims(name)?;
        let tensor = self.look(name, &[height, width])?;
        let mut out = self.reserve(name, rows.len().saturating_mul(width))?;
        for &row in rows {
            if row >= height {
                return Err(Error::usage("row out of range")
                    .file(&self.file)
                    .at(name)
                    .expected(format!("a row below {height}"))
                    .found(row.to_string()));
            }
            tensor.decode(&self.stores, row * width..(row + 1) * width, &mut out)?;
        }
        Ok(out)
    }

    /// The sizes of a tensor of `N` dimensions, none of them zero.
    ///
    /// # Errors
    /// [`ErrorKind::Model`] if the tensor is missing, has another number of dimensions, or is empty.
    #[doc(hidden)]
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
    #[doc(hidden)]
    pub fn count(&self, prefix: &str) -> Result<usize> {
        let number =
            |name: &str| name.strip_prefix(prefix)?.split('.').next().and_then(|n| n.parse::<usize>().ok());
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

    /// The file that holds a tensor, or the rest of its network; the checkpoint's own if none does.
    pub(crate) fn file_of(&self, name: &str) -> &Path {
        let network = name.split('.').next().unwrap_or(name);
        let beside = self.names_under(network).find_map(|n| self.get(n));
        let tensor = self.get(name).or(beside);
        tensor.and_then(|t| self.stores.get(t.store())).map_or(&self.file, WeightFile::file)
    }

    /// An [`ErrorKind::Model`] error about this file.
    pub(crate) fn fault(&self, what: impl Into<String>) -> Error {
        Error::new(ErrorKind::Model, what).file(&self.file)
    }

    /// The error for a tensor of another shape than the network needs.
    pub(crate) fn misshapen(&self, name: &str, expected: impl Into<String>, found: &[usize]) -> Error {
        self.fault("a tensor has the wrong shape")
            .file(self.file_of(name))
            .at(name)
            .expected(expected)
            .found(format!("{found:?}"))
            .hint("the file is damaged, or made for another network: use an unmodified checkpoint")
    }

    /// The error for a tensor that the network needs and the file lacks.
    pub(crate) fn missing(&self, name: &str, expected: impl Into<String>) -> Error {
        let nearest = self.nearest(name).map_or("no tensors".into(), |n| format!("{n} as the nearest name"));
        let fault = self.fault("a tensor is missing").file(self.file_of(name));
        let error = fault.at(name).expected(expected).found(nearest).hint("pass a complete checkpoint");
        match name {
            _ if name.starts_with(UNET) => error,
            _ if name.starts_with(VAE) => error.remedy(Remedy::Pass(Resource::Vae)),
            _ => error.remedy(Remedy::Pass(Resource::TextEncoder)),
        }
    }

    /// In sorted order the name with the longest common prefix is next to where `name` would be.
    fn nearest(&self, name: &str) -> Option<&str> {
        let common = |other: &str| name.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
        let before = self.index.range::<str, _>((Bound::Unbounded, Bound::Excluded(name))).next_back();
        let after = self.index.range::<str, _>((Bound::Included(name), Bound::Unbounded)).next();
        before.into_iter().chain(after).map(|(n, _)| n.as_str()).max_by_key(|n| common(n))
    }

    pub(super) fn get(&self, name: &str) -> Option<&Tensor> {
        self.index.get(name).and_then(|&i| self.tensors.get(i))
    }

    /// Sizes come from a file, so a refusal of the allocator must not end the process.
    fn reserve(&self, name: &str, elements: usize) -> Result<Vec<f32>> {
        let mut out = Vec::new();
        out.try_reserve_exact(elements).map_err(|source| {
            Error::new(ErrorKind::Memory, "no memory for a tensor").file(&self.file).at(name).cause(source)
        })?;
        Ok(out)
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checkpoint({}, {} tensors)", self.file.display(), self.tensors.len())
    }
}
