//! The ways to open a checkpoint: a file, a folder, bytes in memory, a list of shapes.

use std::borrow::Cow;
use std::path::Path;

use ::safetensors::Dtype;

use super::folder;
use super::manifest::Manifest;
use super::named_tensors::Checkpoint;
use super::weight_file::WeightFile;
use crate::{Error, Result};

impl Checkpoint {
    /// Opens a `.safetensors` file, or a folder in the diffusers layout (`model_index.json`, `unet`,
    /// `vae`, `text_encoder`, `text_encoder_2`; files of a part may be sharded, or have a variant in
    /// their names such as `.fp16`). A folder of one part, such as `vae`, opens as that part. Files
    /// are mapped, not read: memory is used only for what is decoded.
    ///
    /// # Errors
    /// [`ErrorKind::File`](crate::ErrorKind::File) if the path cannot be read or holds no valid
    /// safetensors files; the message says what it looks like and what to pass instead.
    /// [`ErrorKind::Model`](crate::ErrorKind::Model) if a part in the diffusers layout has tensors that no network here has.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if path.is_dir() {
            return folder::open(path);
        }
        let opened = Self::open_file(path)?.in_original_layout()?;
        // diffusers' name for the file of a part, whose settings are in a file beside it.
        let named = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("diffusion_pytorch_model"));
        if named && path.with_file_name("config.json").is_file() {
            opened.warn("the config.json beside it is not read: pass its folder");
        }
        Ok(opened)
    }

    /// A safetensors file in memory or part of the program; errors call it `name`.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_bytes(name: &str, bytes: impl Into<Cow<'static, [u8]>>) -> Result<Self> {
        let (store, header) = WeightFile::embedded(name, bytes.into())?;
        Self::from_header(name.into(), header, store)?.in_original_layout()
    }

    /// A checkpoint whose weights are given by a formula and rounded to `dtype` (`F16` or `F32`):
    /// tests and benchmarks of any model without its weights. Nothing is stored.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for another dtype; [`ErrorKind::File`](crate::ErrorKind::File) for a manifest with a repeated
    /// name or an impossible shape.
    #[doc(hidden)]
    pub fn synthetic(manifest: &Manifest, seed: u64, dtype: Dtype) -> Result<Self> {
        if !matches!(dtype, Dtype::F16 | Dtype::F32) {
            return Err(Error::usage("this dtype cannot hold synthetic weights")
                .expected("F16 or F32")
                .found(dtype.to_string()));
        }
        let header = manifest.header(seed, dtype)?;
        let name = format!("{} (synthetic, seed {seed})", manifest.family);
        Self::from_header(name.clone().into(), header, WeightFile::synthetic(name, seed))?
            .in_original_layout()
    }
}
