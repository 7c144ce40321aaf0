//! Files that a workflow reads, each opened once. All are opened before anything runs, so that none
//! turns out to be missing or damaged after minutes of sampling.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::folders::{Folders, input_file};
use super::model_folders::ModelLocation;
use super::spec::FileKind;
use crate::checkpoint::Checkpoint;
use crate::image::read::{self, Rgba};
use crate::latent::{self, Latent};
use crate::lora::Lora;
use crate::model::config::{TextConfig, VaeConfig};
use crate::model::{DiffusionConfig, ModelConfig};
use crate::{Error, ErrorKind, Result, embedded, families};

/// Latent files are small; what is larger is something else.
const MOST_LATENT_BYTES: u64 = 1 << 30;

/// What is open.
pub(super) struct Files<'a> {
    folders: &'a Folders,
    checkpoints: HashMap<(FileKind, ModelLocation), Arc<Checkpoint>>,
    /// By the files of their loader, in its order.
    encoders: HashMap<Vec<PathBuf>, Arc<Checkpoint>>,
    loras: HashMap<ModelLocation, Arc<Lora>>,
    pictures: HashMap<PathBuf, Arc<Rgba>>,
    latents: HashMap<PathBuf, Arc<Latent>>,
}

impl<'a> Files<'a> {
    pub fn new(folders: &'a Folders) -> Self {
        let (checkpoints, encoders, loras) = Default::default();
        Self { folders, checkpoints, encoders, loras, pictures: HashMap::new(), latents: HashMap::new() }
    }

    pub fn folders(&self) -> &'a Folders {
        self.folders
    }

    /// Opens what `name` means, and checks that it is of its kind.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`], [`ErrorKind::File`] or [`ErrorKind::Model`], naming the file.
    pub fn look(&mut self, kind: FileKind, name: &str) -> Result<()> {
        match kind {
            FileKind::Lora => self.lora(name).map(drop),
            FileKind::Image => self.picture(name).map(drop),
            FileKind::Latent => self.latent(name).map(drop),
            _ => self.checkpoint(kind, name).map(drop),
        }
    }

    /// A file of weights, and where it is.
    pub fn checkpoint(&mut self, kind: FileKind, name: &str) -> Result<(ModelLocation, Arc<Checkpoint>)> {
        let found = self.folders.models.find(kind, name)?;
        let key = (kind, found.clone());
        if let Some(open) = self.checkpoints.get(&key) {
            return Ok((found, open.clone()));
        }
        let open = match &found {
            ModelLocation::File(path) => self.folders.models.open(path)?,
            ModelLocation::Embedded => embedded::checkpoint()?,
        };
        let open = match kind {
            FileKind::Checkpoint => {
                ModelConfig::infer(&open)?.runnable(open.file())?;
                open
            }
            FileKind::DiffusionModel => {
                DiffusionConfig::infer(&open)?.runnable(open.file())?;
                open
            }
            FileKind::Vae => {
                VaeConfig::infer(&open)?;
                if let Some(scale) = open.latent_scale().filter(|scale| !families::is_latent_scale(*scale)) {
                    open.warn(format_args!(
                        "its settings give a scaling_factor of {scale}: in a workflow that of the model counts"
                    ));
                }
                open
            }
            // What an encoder alone is called depends on the encoder beside it: see `text_encoders`.
            _ => open,
        };
        let open = Arc::new(open);
        self.checkpoints.insert(key, open.clone());
        Ok((found, open))
    }

    /// Text encoders out of one or two files, under the names that they have in checkpoints.
    pub fn text_encoders(&mut self, names: &[&str]) -> Result<Arc<Checkpoint>> {
        let path = |name: &&str| match self.folders.models.find(FileKind::TextEncoder, name)? {
            ModelLocation::File(path) => Ok(path),
            ModelLocation::Embedded => Err(Error::internal("no text encoder is embedded by itself")),
        };
        let paths: Vec<PathBuf> = names.iter().map(path).collect::<Result<_>>()?;
        if let Some(open) = self.encoders.get(&paths) {
            return Ok(open.clone());
        }
        // Tensors are renamed for their place, so each loader opens its files for itself.
        let open = paths.iter().map(|path| self.folders.models.open(path)).collect::<Result<_>>()?;
        let encoders = Checkpoint::text_encoders(open)?;
        TextConfig::infer_all(&encoders)?;
        let encoders = Arc::new(encoders);
        self.encoders.insert(paths, encoders.clone());
        Ok(encoders)
    }

    pub fn lora(&mut self, name: &str) -> Result<Arc<Lora>> {
        let found = self.folders.models.find(FileKind::Lora, name)?;
        if let Some(open) = self.loras.get(&found) {
            return Ok(open.clone());
        }
        let ModelLocation::File(path) = &found else { return Err(Error::internal("no LoRA is embedded")) };
        let open = Arc::new(Lora::open(path)?);
        self.loras.insert(found, open.clone());
        Ok(open)
    }

    pub fn picture(&mut self, name: &str) -> Result<Arc<Rgba>> {
        let path = self.input(FileKind::Image, name)?;
        if let Some(open) = self.pictures.get(&path) {
            return Ok(open.clone());
        }
        let open = Arc::new(read::rgba(&path)?);
        self.pictures.insert(path, open.clone());
        Ok(open)
    }

    pub fn latent(&mut self, name: &str) -> Result<Arc<Latent>> {
        let path = self.input(FileKind::Latent, name)?;
        if let Some(open) = self.latents.get(&path) {
            return Ok(open.clone());
        }
        let open = Arc::new(read_latent(&path)?);
        self.latents.insert(path, open.clone());
        Ok(open)
    }

    fn input(&self, kind: FileKind, name: &str) -> Result<PathBuf> {
        input_file(&self.folders.input, &self.folders.output, kind, name)
    }
}

fn read_latent(path: &Path) -> Result<Latent> {
    let cannot = |e| Error::io(path, "the latent cannot be read", e);
    let bytes = std::fs::metadata(path).map_err(cannot)?.len();
    if bytes > MOST_LATENT_BYTES {
        return Err(Error::new(ErrorKind::File, "not a latent file")
            .file(path)
            .expected(format!("at most {} MiB", MOST_LATENT_BYTES >> 20))
            .found(format!("{} MiB", bytes >> 20)));
    }
    let latent = latent::file::decode(&std::fs::read(path).map_err(cannot)?).map_err(|e| e.file(path))?;
    Ok(latent.into_inner())
}
