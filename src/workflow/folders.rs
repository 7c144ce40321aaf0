//! The folders of a workflow's files, and the pictures and latents in them. A name never leads out of its folder.

use std::path::{Path, PathBuf};

use super::model_folders::ModelFolders;
use super::output_folder::TEMP;
use super::spec::FileKind;
use crate::folder::{Folder, files_below, nearest_file};
use crate::{Error, ErrorKind, Remedy, Resource, Result};

/// Where a workflow finds and leaves its files.
#[derive(Debug, Clone)]
pub struct Folders {
    /// Models.
    pub models: ModelFolders,
    /// Pictures and latents to load.
    pub input: PathBuf,
    /// What is saved; it is made if it is not there. Nothing is written anywhere else.
    pub output: PathBuf,
}

impl Folders {
    /// The folders as ComfyUI has them.
    pub fn new(models: impl AsRef<Path>, input: impl Into<PathBuf>, output: impl Into<PathBuf>) -> Self {
        Self { models: ModelFolders::below(models.as_ref()), input: input.into(), output: output.into() }
    }
}

/// A file that a workflow reads as input: in `input`, or where the name says so (`x.png [output]`) in
/// `output`, `x.png [temp]` in `output/temp`. Links that lead out of the folder are not followed.
///
/// # Errors
/// [`ErrorKind::Usage`] for a name that leads out of its folder; [`ErrorKind::File`] if there is no
/// such file.
pub(super) fn input_file(input: &Path, output: &Path, kind: FileKind, name: &str) -> Result<PathBuf> {
    let (name, folder) = match name.trim_end().rsplit_once(" [") {
        Some((name, "output]")) => (name, output.to_owned()),
        Some((name, "temp]")) => (name, output.join(TEMP)),
        Some((name, "input]")) => (name, input.to_owned()),
        _ => (name, input.to_owned()),
    };
    let path = Folder::at(&folder).inside(name)?;
    if path.exists() && !path.is_file() {
        let what = format!("a {}'s file", kind.what());
        return Err(Error::new(ErrorKind::File, "not a regular file").file(&path).expected(what));
    }
    if !path.is_file() {
        let mut files = files_below(&folder);
        // What lies behind a link out of the folder could not be read.
        let inside = |file: &str, real_folder: &Path| {
            let real = folder.join(file).canonicalize();
            real.is_ok_and(|real| real.starts_with(real_folder) && real.is_file())
        };
        let real_folder = folder.canonicalize().ok();
        files.retain(|file| real_folder.as_deref().is_some_and(|real| inside(file, real)));
        let error = Error::new(ErrorKind::File, format!("there is no such {}", kind.what()))
            .expected(format!("{name} in {}", folder.display()));
        return Err(match nearest_file(name, &files) {
            near if !near.is_empty() => error.remedy(Remedy::DidYouMean(near)),
            _ => error.hint("put it there").remedy(Remedy::Pass(Resource::InputFolder)),
        });
    }
    let real = |path: &Path| path.canonicalize().map_err(|e| Error::io(path, "the file cannot be read", e));
    if !real(&path)?.starts_with(real(&folder)?) {
        return Err(Error::new(ErrorKind::File, "a link that leads out of its folder")
            .file(&path)
            .expected(format!("a file in {}", folder.display()))
            .hint("put the file itself there"));
    }
    Ok(path)
}
