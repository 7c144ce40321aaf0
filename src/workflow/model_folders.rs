//! Where the files are that workflows name: models laid out as ComfyUI's `models/`, pictures and
//! latents in an input folder. A name never leads out of its folder.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::extra_paths;
use super::spec::FileKind;
use crate::checkpoint::Checkpoint;
use crate::folder::{Folder, files_below, nearest_file};
use crate::{Error, ErrorKind, Remedy, Resource, Result, embedded};

/// Folders of models, by kind; several may serve one kind.
#[derive(Debug, Clone, Default)]
pub struct ModelFolders {
    by_kind: HashMap<FileKind, Vec<PathBuf>>,
    embeddings: Vec<PathBuf>,
    ignores_extra: bool,
}

/// ComfyUI's names of folders below `models/`, which are also the keys of `extra_model_paths.yaml`.
const KINDS: [(&str, FileKind); 7] = [
    ("checkpoints", FileKind::Checkpoint),
    ("loras", FileKind::Lora),
    ("vae", FileKind::Vae),
    ("text_encoders", FileKind::TextEncoder),
    ("clip", FileKind::TextEncoder),
    ("unet", FileKind::DiffusionModel),
    ("diffusion_models", FileKind::DiffusionModel),
];
const EMBEDDINGS: &str = "embeddings";

/// What a workflow calls the model inside the program, unless a file has that name.
const EMBEDDED: [&str; 3] = ["tiny-emoji.safetensors", "tiny-emoji", "tiny-emoji/tiny-emoji.safetensors"];

/// Where a model is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum ModelLocation {
    File(PathBuf),
    /// Inside the program.
    Embedded,
}

impl ModelFolders {
    /// The folders below `models`, as far as there are any: `checkpoints`, `loras`, `vae`,
    /// `text_encoders` and `clip`, `diffusion_models` and `unet`, `embeddings`.
    pub fn below(models: &Path) -> Self {
        let mut folders = Self::default();
        for (name, _) in KINDS {
            folders.add(name, models.join(name));
        }
        folders.add(EMBEDDINGS, models.join(EMBEDDINGS));
        folders
    }

    /// Adds the folders that an `extra_model_paths.yaml` lists. Paths in it are relative to its
    /// `base_path`, and that to the file.
    ///
    /// # Errors
    /// [`ErrorKind::File`] if it cannot be read or is more than lists of folders.
    pub fn add_extra(&mut self, file: &Path) -> Result<()> {
        let text =
            fs::read_to_string(file).map_err(|e| Error::io(file, "the list of folders cannot be read", e))?;
        let beside = file.parent().unwrap_or(Path::new("."));
        for section in extra_paths::parse(&text).map_err(|e| e.file(file))? {
            let base = section.base.map_or_else(|| beside.to_owned(), |base| beside.join(at_home(&base)));
            for (kind, path) in section.folders {
                self.add(&kind, base.join(at_home(&path)));
            }
        }
        Ok(())
    }

    /// Leaves out tensors that no layer of a model takes, whatever they would do: see
    /// [`Checkpoint::ignoring_extra`].
    pub fn ignore_extra(&mut self) {
        self.ignores_extra = true;
    }

    /// Opens a file or folder of weights.
    pub(super) fn open(&self, path: &Path) -> Result<Checkpoint> {
        let open = Checkpoint::open(path)?;
        Ok(if self.ignores_extra { open.ignoring_extra() } else { open })
    }

    /// Adds a folder for a kind by ComfyUI's name of it; other kinds are of no use here.
    fn add(&mut self, kind: &str, folder: PathBuf) {
        let list = match KINDS.iter().find(|(name, _)| *name == kind) {
            Some((_, kind)) => self.by_kind.entry(*kind).or_default(),
            None if kind == EMBEDDINGS => &mut self.embeddings,
            None => return,
        };
        if !list.contains(&folder) {
            list.push(folder);
        }
    }

    /// The folders of embeddings that there are.
    pub(super) fn embeddings(&self) -> Vec<Folder> {
        self.embeddings.iter().filter_map(|path| Folder::open(path).ok()).collect()
    }

    /// The file or diffusers folder of a kind called `name`.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for a name that leads out of the folder; [`ErrorKind::File`] if there is
    /// none, with the nearest names.
    pub(super) fn find(&self, kind: FileKind, name: &str) -> Result<ModelLocation> {
        let folders = self.by_kind.get(&kind).map_or(&[][..], Vec::as_slice);
        for folder in folders {
            let path = plain(folder, name)?;
            if path.exists() {
                return Ok(ModelLocation::File(path));
            }
            if path.is_symlink() {
                return Err(Error::io(&path, "cannot open the file", std::io::ErrorKind::NotFound.into()));
            }
        }
        if kind == FileKind::Checkpoint && EMBEDDED.contains(&name) && embedded::checkpoint().is_ok() {
            return Ok(ModelLocation::Embedded);
        }
        plain(Path::new("models"), name)?;
        match below(folders, name) {
            Some(path) => {
                log::warn!("there is no {} {name}: {} is taken", kind.what(), path.display());
                Ok(ModelLocation::File(path))
            }
            None => Err(self.missing(kind, name, folders)),
        }
    }

    fn missing(&self, kind: FileKind, name: &str, folders: &[PathBuf]) -> Error {
        let mut files: Vec<String> = folders.iter().flat_map(|folder| files_below(folder)).collect();
        files.sort();
        let looked: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
        let error = Error::new(ErrorKind::File, format!("there is no such {}", kind.what()))
            .expected(format!("{name} in {}", looked.join(" or ")));
        let embedded = |error: Error| match kind {
            FileKind::Checkpoint if embedded::checkpoint().is_ok() => {
                error.hint(format!("name {}, the model inside the program", EMBEDDED[0]))
            }
            _ => error,
        };
        match nearest_file(name, &files) {
            near if !near.is_empty() => embedded(error.remedy(Remedy::DidYouMean(near))),
            _ if files.is_empty() => {
                embedded(error.found("no files there").remedy(Remedy::Pass(Resource::ModelFolders)))
            }
            _ => {
                files.truncate(5);
                let error = error.found(format!("others, such as {}", files.join(", ")));
                embedded(error.remedy(Remedy::SetNodeInput))
            }
        }
    }
}

/// The one file below the folders whose path ends with `name`: it was moved since the workflow was made.
fn below(folders: &[PathBuf], name: &str) -> Option<PathBuf> {
    let name = name.replace('\\', "/");
    let ends = |file: &String| file.strip_suffix(&name).is_some_and(|before| before.ends_with('/'));
    let mut files = folders.iter().flat_map(|folder| {
        files_below(folder).into_iter().filter(ends).map(|file| folder.join(file)).collect::<Vec<_>>()
    });
    let first = files.next()?;
    files.next().is_none().then_some(first)
}

/// `name` below `folder`.
fn plain(folder: &Path, name: &str) -> Result<PathBuf> {
    Folder::at(folder).inside(name)
}

/// `~` is the user's folder.
fn at_home(path: &str) -> PathBuf {
    match (path.strip_prefix('~'), std::env::var_os("HOME").or_else(|| std::env::var_os("USERPROFILE"))) {
        (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with(['/', '\\']) => {
            Path::new(&home).join(rest.trim_start_matches(['/', '\\']))
        }
        _ => path.into(),
    }
}
