//! A folder of files that prompts name: LoRAs and embeddings. A name never leads out of it.

use std::collections::HashSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::nearest_name::nearest_to;
use crate::{Error, ErrorKind, Remedy, Result};

/// Most files that are looked at.
const MOST_FILES: usize = 10_000;
/// Folders within folders that are looked into.
const DEEPEST: usize = 16;
/// Formats that can hold the same things, but as Python pickles.
const PICKLES: [&str; 4] = ["pt", "bin", "ckpt", "pth"];
const EXTENSION: &str = ".safetensors";
/// Most names that a message suggests.
const MOST_SUGGESTED: usize = 3;

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

    /// The file `name.safetensors`, or None if there is none. The extension may be in the name, and folders below
    /// this one (`styles/ink`). A name without its folder finds the file in any folder below, as in A1111.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for a name that would lead out of the folder, or that several folders below have;
    /// [`ErrorKind::File`] if there is a file of that name in a format that is not read, or a link to nowhere.
    pub fn find(&self, name: &str) -> Result<Option<PathBuf>> {
        let path = self.inside(name)?;
        let with = |extension: &str| {
            // Not `with_extension`: the name may hold dots of its own.
            let mut whole = path.clone().into_os_string();
            whole.push(extension);
            PathBuf::from(whole)
        };
        let named = Path::new(name).extension().is_some_and(|e| e.eq_ignore_ascii_case("safetensors"));
        for found in [with(EXTENSION), path.clone()] {
            if found.is_file() && (named || found != path) {
                return Ok(Some(found));
            }
            if found.is_symlink() && !found.exists() {
                return Err(Error::io(&found, "cannot open the file", std::io::ErrorKind::NotFound.into()));
            }
        }
        if let Some(found) = self.below(name)? {
            return Ok(Some(found));
        }
        let is_pickle = |p: &PathBuf| {
            let extension = p.extension().unwrap_or_default().to_string_lossy().to_lowercase();
            PICKLES.contains(&extension.as_str()) && p.is_file()
        };
        match PICKLES.map(|e| with(&format!(".{e}"))).into_iter().chain([path.clone()]).find(is_pickle) {
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

    /// The one file in the folders below whose path ends with `name`.
    fn below(&self, name: &str) -> Result<Option<PathBuf>> {
        let name = portable(name);
        let name = name.strip_suffix(EXTENSION).unwrap_or(&name);
        let mut found = self.names();
        found.retain(|all| {
            all.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('/'))
        });
        match &found[..] {
            [] => Ok(None),
            [one] => Ok(Some(self.0.join(format!("{one}{EXTENSION}")))),
            several => Err(Error::usage("several files in the folder have that name")
                .file(&self.0)
                .at(name)
                .found(several.join(", "))
                .hint("write it with its folder")),
        }
    }

    /// The `.safetensors` files here and in the folders below: paths in this folder with `/`, without the extension,
    /// sorted.
    pub fn names(&self) -> Vec<String> {
        let files = files_below(&self.0);
        files.iter().filter_map(|name| name.strip_suffix(EXTENSION).map(str::to_owned)).collect()
    }

    /// `name` below this folder.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] if it would lead out of it.
    pub(crate) fn inside(&self, name: &str) -> Result<PathBuf> {
        let plain = |c: Component<'_>| matches!(c, Component::Normal(_));
        let portable = portable(name);
        let path = Path::new(&portable);
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
        let mut names = self.names();
        let error = Error::new(ErrorKind::File, format!("there is no such {what} in the folder"))
            .file(&self.0)
            .expected(format!("{name}{EXTENSION}"));
        match nearest_file(name, &names) {
            near if !near.is_empty() => error.remedy(Remedy::DidYouMean(near)),
            _ if names.is_empty() => error.found("no .safetensors files"),
            _ => {
                names.truncate(5);
                error.found(format!("others, such as {}", names.join(", ")))
            }
        }
    }
}

/// Names of files that are like `name`, which may lack the folder that they are in.
pub(crate) fn nearest_file(name: &str, files: &[String]) -> Vec<String> {
    // An extension that all have would make all alike, and so would a folder.
    let stem = |file: &str| {
        let last = file.rsplit('/').next().unwrap_or_default();
        last.strip_suffix(EXTENSION).unwrap_or(last).to_owned()
    };
    let stems: Vec<String> = files.iter().map(|file| stem(file)).collect();
    let near = nearest_to(&stem(name), stems.iter().map(String::as_str));
    let mut found = Vec::new();
    for name in near {
        let of_name =
            files.iter().zip(&stems).filter(|(_, stem)| *stem == name).map(|(file, _)| file.clone());
        found.extend(of_name);
    }
    found.dedup();
    found.truncate(MOST_SUGGESTED);
    found
}

/// `name` with `/` between folders: on other systems files from Windows have `\` there.
fn portable(name: &str) -> String {
    if cfg!(windows) { name.to_owned() } else { name.replace('\\', "/") }
}

/// Files below `folder`, links followed: paths in it with `/`, sorted.
pub(crate) fn files_below(folder: &Path) -> Vec<String> {
    let mut walk = Walk { files: Vec::new(), left: MOST_FILES, seen: HashSet::new() };
    walk.enter(folder, "", 0);
    walk.files.sort();
    walk.files
}

struct Walk {
    files: Vec<String>,
    /// Entries that may still be looked at.
    left: usize,
    /// Folders that were entered, by their real paths: links may lead in a circle.
    seen: HashSet<PathBuf>,
}

impl Walk {
    fn enter(&mut self, folder: &Path, prefix: &str, depth: usize) {
        if depth > DEEPEST || !folder.canonicalize().is_ok_and(|real| self.seen.insert(real)) {
            return;
        }
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut entries: Vec<_> =
            entries.take(self.left).map(|entry| (entry.file_name(), entry.path())).collect();
        entries.sort();
        self.left -= entries.len();
        for (name, path) in entries {
            let name = format!("{prefix}{}", name.to_string_lossy());
            match path.is_dir() {
                true => self.enter(&path, &format!("{name}/"), depth + 1),
                // A link to nowhere is no file.
                false if path.exists() => self.files.push(name),
                false => {}
            }
        }
    }
}
