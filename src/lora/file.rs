//! An opened LoRA file, and how strongly it acts.
#![warn(clippy::indexing_slicing, clippy::string_slice)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::networks::TargetNetwork;
use super::weight_change::{Change, shape_of};
use super::{family, module_names};
use crate::Result;
use crate::checkpoint::Checkpoint;
use crate::folder::Folder;

/// Before the name of an embedding in a LoRA's file.
pub(crate) const BUNDLED: &str = "bundle_emb.";

/// An opened LoRA file: names and shapes; the matrices are read when they are added to a model.
#[derive(Debug)]
pub struct Lora {
    pub(super) tensors: Checkpoint,
    pub(super) changes: Vec<Change>,
    /// Tensors that belong to no change.
    pub(super) others: Vec<String>,
    /// Names of embeddings that it holds.
    pub(super) embeddings: BTreeSet<String>,
    pub(super) warnings: Vec<String>,
}

impl Lora {
    /// The path of the file.
    pub fn file(&self) -> &Path {
        self.tensors.file()
    }

    /// The file's name without folder and extension, as prompts name it.
    pub fn name(&self) -> String {
        self.file().file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Number of weights and biases that it changes.
    #[doc(hidden)]
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether it changes nothing; never so, as such a file is refused when it is opened.
    #[doc(hidden)]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The file's tensors.
    #[doc(hidden)]
    pub fn tensors(&self) -> &Checkpoint {
        &self.tensors
    }

    /// Ranks of the changes, and how many modules have each.
    #[doc(hidden)]
    pub fn ranks(&self) -> BTreeMap<usize, usize> {
        let mut ranks = BTreeMap::new();
        for rank in self.changes.iter().filter_map(|change| change.kind.rank(&self.tensors)) {
            *ranks.entry(rank).or_default() += 1;
        }
        ranks
    }

    /// Kinds of changes (`LoRA`, `LoHa`, …), and how many weights have each.
    pub fn kinds(&self) -> BTreeMap<&'static str, usize> {
        let mut kinds = BTreeMap::new();
        for change in &self.changes {
            let name = if change.magnitude.is_some() { "DoRA" } else { change.kind.name() };
            *kinds.entry(name).or_default() += 1;
        }
        kinds
    }

    /// Whether it changes the UNet, and whether text encoders, by the names of its modules.
    #[doc(hidden)]
    pub fn parts(&self) -> (bool, bool) {
        let of_text = |module: &str| match module_names::network_of(module) {
            Some(place) => place != module_names::NamedNetwork::Unet,
            None => module.contains("text_model"),
        };
        let any = |text: bool| self.changes.iter().any(|change| of_text(&change.module) == text);
        (any(false), any(true))
    }

    /// The family that it seems to be made for, by its metadata or by what it changes.
    pub fn family(&self) -> Option<&'static str> {
        family::made_for(&self.tensors, &self.changes)
    }

    /// Names of the embeddings that it was trained with and holds, for `embedding:name` in prompts.
    pub fn embeddings(&self) -> impl Iterator<Item = &str> {
        self.embeddings.iter().map(String::as_str)
    }

    /// The file of the LoRA called `name` in `folder`: by the file's name, as [`Folder::find`], or by the name that it
    /// was trained under, which A1111 knows too (`ss_output_name` in its header).
    ///
    /// # Errors
    /// As [`Folder::find`].
    #[doc(hidden)]
    pub fn find(folder: &Folder, name: &str) -> Result<Option<PathBuf>> {
        if let Some(found) = folder.find(name)? {
            return Ok(Some(found));
        }
        let path_of = |file: &String| folder.path().join(format!("{file}.safetensors"));
        let trained_as = |path: &PathBuf| {
            // A file that cannot be opened is not the one.
            Checkpoint::open(path)
                .is_ok_and(|file| file.metadata().get("ss_output_name").is_some_and(|n| n == name))
        };
        Ok(folder.names().iter().map(path_of).find(trained_as))
    }

    /// What in the file contradicts itself or was left out, a sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    pub(super) fn shape(&self, name: &str) -> &[usize] {
        shape_of(&self.tensors, name)
    }

    pub(super) fn read(&self, name: &str) -> Result<Vec<f32>> {
        self.tensors.read_f32(name, self.shape(name))
    }
}

/// Two uses are equal if they are of the same [`Lora`] in memory, with the same factors.
impl PartialEq for LoraUse {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.lora, &other.lora) && (self.unet, self.text) == (other.unet, other.text)
    }
}

/// A LoRA and how strongly it acts.
#[derive(Debug, Clone)]
pub struct LoraUse {
    /// The file.
    pub lora: Arc<Lora>,
    /// Factor on its change of the UNet; 1 is as trained, 0 none, negative the opposite.
    pub unet: f32,
    /// Factor on its change of the text encoders.
    pub text: f32,
}

impl LoraUse {
    /// `lora` with the same weight everywhere.
    pub fn new(lora: impl Into<Arc<Lora>>, weight: f32) -> Self {
        Self { lora: lora.into(), unet: weight, text: weight }
    }

    pub(super) fn weight(&self, part: TargetNetwork) -> f32 {
        match part {
            TargetNetwork::Unet => self.unet,
            TargetNetwork::Text(_) => self.text,
        }
    }
}
