//! A golden set: FILE.json lists the cases, FILE.safetensors beside it holds the tensors.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::case::Case;
use super::tensor::{self, Tensor};
use crate::latent::Latent;
use crate::{Error, ErrorKind, Result};

/// What a set is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A family's model: text encoder, UNet, autoencoder, guided steps, whole runs.
    Model,
    /// SAG's mask and blur alone.
    SagNode,
    /// Initial and ancestral noise.
    Noise,
    /// Noise levels and schedulers. All is in the JSON file.
    Schedules,
    /// Prompts as token ids and weights. All is in the JSON file.
    Tokens,
    /// Batches in portions.
    Chunk,
    /// Adapters of every kind (LoRA, LoHa, LoKr, DoRA, …), merged into weights.
    Adapters,
}

impl Kind {
    const NAMES: [(&'static str, Kind); 7] = [
        ("model", Kind::Model),
        ("sag_node", Kind::SagNode),
        ("noise", Kind::Noise),
        ("schedules", Kind::Schedules),
        ("tokens", Kind::Tokens),
        ("chunk", Kind::Chunk),
        ("adapters", Kind::Adapters),
    ];
}

/// A golden set in memory.
pub struct Set {
    file: PathBuf,
    kind: Kind,
    json: Value,
    tensors: BTreeMap<String, Tensor>,
    parts: Option<Vec<String>>,
}

impl Set {
    /// Opens `FILE.json` and, unless its kind has none, `FILE.safetensors`.
    ///
    /// # Errors
    /// [`ErrorKind::File`] if one of them is missing or damaged.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let cannot = |path: &Path, e| Error::io(path, "cannot read the golden set", e);
        let json = fs::read_to_string(path).map_err(|e| {
            cannot(path, e).hint("pass the .json file of a set; its .safetensors file is found beside it")
        })?;
        let mut set = Self::parse(path, &json, None)?;
        if !matches!(set.kind, Kind::Schedules | Kind::Tokens) {
            let beside = path.with_extension("safetensors");
            let bytes = fs::read(&beside).map_err(|e| cannot(&beside, e))?;
            set.tensors = tensor::read_all(&bytes).map_err(|e| e.file(&beside))?;
        }
        Ok(set)
    }

    /// A set that is in memory already; messages call the file `name`.
    ///
    /// # Errors
    /// [`ErrorKind::File`] if the text is not JSON, the kind is unknown or the tensors are damaged.
    pub fn parse(name: impl AsRef<Path>, json: &str, tensors: Option<&[u8]>) -> Result<Self> {
        let file = name.as_ref().to_path_buf();
        let json: Value = serde_json::from_str(json).map_err(|e| {
            Error::new(ErrorKind::File, "the golden set is not valid JSON").file(&file).cause(e)
        })?;
        let case = Case::new(&file, &json);
        if case.get("kind").is_none() {
            return Err(Error::new(ErrorKind::File, "not a golden set")
                .file(&file)
                .expected("a JSON object with the member \"kind\"")
                .hint("pass the .json file of a golden set"));
        }
        let name = case.text("kind")?;
        let kind = Kind::NAMES.iter().find(|(n, _)| *n == name).ok_or_else(|| {
            Error::new(ErrorKind::File, "a golden set of an unknown kind")
                .file(&file)
                .expected(format!("one of {}", Kind::NAMES.map(|(n, _)| n).join(", ")))
                .found(name)
        })?;
        let kind = kind.1;
        let tensors = match tensors {
            Some(bytes) => tensor::read_all(bytes).map_err(|e| e.file(&file))?,
            None => BTreeMap::new(),
        };
        Ok(Self { file, kind, json, tensors, parts: None })
    }

    /// Only these parts of a set of kind `model`: some of `text`, `unet`, `vae`, `step`, `run`.
    pub fn only(mut self, parts: &[&str]) -> Self {
        self.parts = Some(parts.iter().map(|p| (*p).to_owned()).collect());
        self
    }

    /// The file, or the name that it was given.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// What the set is about.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) fn wants(&self, part: &str) -> bool {
        self.parts.as_ref().is_none_or(|parts| parts.iter().any(|p| p == part))
    }

    /// All of the JSON.
    pub(super) fn root(&self) -> Case<'_> {
        Case::new(&self.file, &self.json)
    }

    pub(super) fn find(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    pub(super) fn tensor(&self, name: &str) -> Result<&Tensor> {
        self.find(name).ok_or_else(|| {
            Error::new(ErrorKind::File, "a tensor of the golden set is missing").file(&self.file).at(name)
        })
    }

    pub(super) fn numbers(&self, name: &str) -> Result<Vec<f32>> {
        Ok(self.tensor(name)?.numbers())
    }

    /// A tensor of four dimensions, none of them zero.
    pub(super) fn latent(&self, name: &str) -> Result<Latent> {
        let tensor = self.tensor(name)?;
        let shape = <[usize; 4]>::try_from(tensor.shape.as_slice()).ok().filter(|s| !s.contains(&0));
        let shape = shape.ok_or_else(|| self.misshapen(name, "four dimensions, none of them 0"))?;
        Latent::from_vec(shape, tensor.numbers())
    }

    /// The error for a tensor that does not fit its part.
    pub(super) fn misshapen(&self, name: &str, expected: impl Into<String>) -> Error {
        let error = Error::new(ErrorKind::File, "a tensor of the golden set has the wrong shape")
            .file(&self.file)
            .at(name)
            .expected(expected);
        match self.find(name) {
            Some(tensor) => error.found(format!("{:?}", tensor.shape)),
            None => error,
        }
    }

    /// Names and tensors below `prefix`, without it.
    pub(super) fn under<'s>(&'s self, prefix: &'s str) -> impl Iterator<Item = (&'s str, &'s Tensor)> {
        let all = self.tensors.range(prefix.to_owned()..);
        all.map_while(move |(name, tensor)| Some((name.strip_prefix(prefix)?, tensor)))
    }

    /// Names of cases that have a tensor `prefix.NAME.suffix`, sorted. Names may hold dots.
    pub(super) fn cases_with(&self, prefix: &str, suffix: &str) -> Vec<&str> {
        self.tensors
            .keys()
            .filter_map(|name| {
                name.strip_prefix(prefix)?.strip_prefix('.')?.strip_suffix(suffix)?.strip_suffix('.')
            })
            .collect()
    }
}
