//! A folder of files that prompts name: LoRAs and embeddings. A name never leads out of it.

use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::sampler::names::nearest_to;
use crate::{Error, ErrorKind, Result};

/// Most files that are looked at for a similar name.
const MOST_FILES: usize = 10_000;
/// Formats that can hold the same things, but as Python pickles.
const PICKLES: [&str; 4] = ["pt", "bin", "ckpt", "pth"];

/// A folder of `.safetensors` files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder(PathBuf);

impl Folder {
    /// The folder at `path`.
    ///
    /// # Errors
    /// [`ErrorKind::File`] if there is no folder of that name.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let meta = fs::metadata(path).map_err(|e| Error::io(path, "cannot open the folder", e))?;
        match meta.is_dir() {
            true => Ok(Self(path.into())),
            false => Err(Error::new(ErrorKind::File, "not a folder").file(path)),
        }
    }

    /// The folder at `path`, which need not be there.
    pub(crate) fn at(path: &Path) -> Self {
        Self(path.into())
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The file `name.safetensors`, or None if there is none; the extension may be in the name, and
    /// folders below this one (`styles/ink`).
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for a name that would lead out of the folder; [`ErrorKind::File`] if
    /// there is a file of that name in a format that is not read.
    pub fn find(&self, name: &str) -> Result<Option<PathBuf>> {
        let path = self.inside(name)?;
        let with = |extension: &str| {
            // Not `with_extension`: the name may hold dots of its own.
            let mut whole = path.clone().into_os_string();
            whole.push(format!(".{extension}"));
            PathBuf::from(whole)
        };
        let named = Path::new(name).extension().is_some_and(|e| e.eq_ignore_ascii_case("safetensors"));
        let found = [with("safetensors"), path.clone()].into_iter().find(|p| p.is_file());
        if let Some(found) = found.filter(|found| named || *found != path) {
            return Ok(Some(found));
        }
        let is_pickle = |p: &PathBuf| {
            let extension = p.extension().unwrap_or_default().to_string_lossy().to_lowercase();
            PICKLES.contains(&extension.as_str()) && p.is_file()
        };
        match PICKLES.map(with).into_iter().chain([path.clone()]).find(is_pickle) {
            None => Ok(None),
            Some(pickle) => Err(Error::new(ErrorKind::File, "a pickle is not read, for it can run code")
                .file(pickle)
                .expected("a .safetensors file")
                .hint(
                    "convert it in Python: safetensors.torch.save_file(tensors, \"NAME.safetensors\") with \
                     the tensors of torch.load(FILE, weights_only=True); for an embedding \
                     {\"emb_params\": the tensor in string_to_param}",
                )),
        }
    }

    /// `name` below this folder.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] if it would lead out of it.
    pub(crate) fn inside(&self, name: &str) -> Result<PathBuf> {
        let plain = |c: Component<'_>| matches!(c, Component::Normal(_));
        let path = Path::new(name);
        // On Windows a colon makes a drive or a hidden stream of a file.
        let odd = name.is_empty() || name.contains('\0') || (cfg!(windows) && name.contains(':'));
        if odd || !path.components().all(plain) {
            return Err(Error::usage("not a name in the folder")
                .file(&self.0)
                .expected("a file's name, at most with folders below")
                .found(format!("{name:?}")));
        }
        Ok(self.0.join(path))
    }

    /// The error for a name that is not here; it lists those that are like it. `what` is "LoRA".
    pub fn missing(&self, what: &str, name: &str) -> Error {
        let mut names: Vec<String> = fs::read_dir(&self.0)
            .into_iter()
            .flat_map(|entries| entries.take(MOST_FILES).flatten())
            .filter_map(|e| e.file_name().to_string_lossy().strip_suffix(".safetensors").map(str::to_owned))
            .collect();
        names.sort();
        let error = Error::usage(format!("there is no such {what} in the folder"))
            .file(&self.0)
            .expected(format!("{name}.safetensors"));
        match nearest_to(name, names.iter().map(String::as_str)) {
            near if !near.is_empty() => error.hint(format!("did you mean {}?", near.join(" or "))),
            _ if names.is_empty() => error.found("no .safetensors files"),
            _ => {
                names.truncate(5);
                error.found(format!("others, such as {}", names.join(", ")))
            }
        }
    }
}
