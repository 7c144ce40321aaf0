//! Names of the files that a run writes. Whether they can be written is checked before the work, so that an hour
//! of sampling does not fail at a missing folder.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use sagittal::image::png;
use sagittal::{Error, Remedy, Result};

use crate::support::terminal;

/// A series of files of one kind.
#[derive(Debug, Clone)]
pub struct Series {
    pattern: PathBuf,
    count: usize,
    force: bool,
}

impl Series {
    /// `count` files named by `pattern`: its `%d` or `%03d` becomes their number; without one, a
    /// single file has the name as it is, several are numbered `name-1.ext`, `name-2.ext`, …
    pub fn new(pattern: impl Into<PathBuf>, count: usize, force: bool) -> Self {
        Self { pattern: pattern.into(), count, force }
    }

    /// The path of file `index`, from 0.
    pub fn path(&self, index: usize) -> PathBuf {
        let number = index + 1;
        let name = self.pattern.file_name().unwrap_or_default();
        if let Some(name) = name.to_str().and_then(|n| numbered(n, number)) {
            return self.pattern.with_file_name(name);
        }
        if self.count == 1 {
            return self.pattern.clone();
        }
        let mut name = self.pattern.file_stem().unwrap_or_default().to_owned();
        name.push(format!("-{number}"));
        if let Some(extension) = self.pattern.extension() {
            name.push(".");
            name.push(extension);
        }
        self.pattern.with_file_name(name)
    }

    /// All paths.
    pub fn paths(&self) -> impl Iterator<Item = PathBuf> {
        (0..self.count).map(|i| self.path(i))
    }

    /// Checks that every file can be written.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](sagittal::ErrorKind::Usage), naming the path and what to do.
    pub fn check(&self) -> Result<()> {
        let first = self.path(0);
        check_no_folder(&self.pattern)?;
        check_no_folder(&first)?;
        check_folder(&first)?;
        if self.force { Ok(()) } else { refuse_taken(self.paths()) }
    }

    /// Writes file `index` atomically; a missing folder is created.
    ///
    /// # Errors
    /// [`ErrorKind::File`](sagittal::ErrorKind::File), also if the file has been created meanwhile.
    pub fn write(&self, index: usize, bytes: &[u8]) -> Result<PathBuf> {
        let path = self.path(index);
        make_folder(&path)?;
        png::write(&path, bytes, self.force)?;
        Ok(path)
    }
}

/// Checks that `path` ends in `.png`: the only kind of picture written here.
pub fn check_png(path: &Path) -> Result<()> {
    check_no_folder(path)?;
    if path.extension().and_then(OsStr::to_str).is_some_and(|e| e.eq_ignore_ascii_case("png")) {
        return Ok(());
    }
    let found = path.file_name().map_or_else(|| "no file name".into(), OsStr::to_string_lossy).into_owned();
    Err(Error::usage("pictures are written as PNG")
        .at("-o")
        .expected("a name that ends in .png")
        .found(found)
        .hint(format!("try -o {}", path.with_extension("png").display())))
}

/// Checks that `path` ends as a latent's file does.
pub fn check_latent(path: &Path) -> Result<()> {
    check_no_folder(path)?;
    let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default().to_ascii_lowercase();
    if ["latent", "safetensors"].contains(&extension.as_str()) {
        return Ok(());
    }
    Err(Error::usage("latents are written as ComfyUI does, in the safetensors format")
        .at("--save-latent")
        .expected("a name that ends in .latent or .safetensors")
        .found(path.display().to_string())
        .hint(format!("try --save-latent {}", path.with_extension("latent").display())))
}

/// Warns of a `%` in the name of `path` that becomes no number.
pub fn warn_of_percent(path: &Path, json: bool) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name.contains('%') && numbered(&name, 1).is_none() {
        terminal::warning(
            json,
            &format!("{name}: only %d and %03d become a number; the name is taken as it is"),
        );
    }
}

fn check_no_folder(path: &Path) -> Result<()> {
    if path.file_name().is_some() && !path.is_dir() {
        return Ok(());
    }
    Err(Error::usage("the output is a folder")
        .file(path)
        .hint(format!("name a file in it, such as {}", path.join("out.png").display())))
}

/// An error for the first of `paths` that exists already.
///
/// # Errors
/// [`ErrorKind::Usage`](sagittal::ErrorKind::Usage).
pub fn refuse_taken(mut paths: impl Iterator<Item = PathBuf>) -> Result<()> {
    let Some(taken) = paths.find(|path| fs::symlink_metadata(path).is_ok()) else { return Ok(()) };
    Err(Error::usage("the file exists already")
        .file(taken)
        .remedy(Remedy::Overwrite)
        .hint("choose another name"))
}

/// The folder of `path`.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Creates the folder of the file `path` and its parents if they are missing.
///
/// # Errors
/// [`ErrorKind::File`](sagittal::ErrorKind::File).
pub fn make_folder(path: &Path) -> Result<()> {
    let folder = folder_of(path);
    fs::create_dir_all(folder).map_err(|e| Error::io(folder, "the output folder cannot be created", e))
}

/// Checks that files can be created beside `path`, by creating one; if the folder is missing, in its nearest
/// existing parent.
fn check_folder(path: &Path) -> Result<()> {
    let folder = folder_of(path);
    let fault = |what: &str| Error::usage(what.to_owned()).file(folder);
    let mut probed = path.to_owned();
    for above in folder.ancestors() {
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        match fs::metadata(above) {
            // A dangling link is not missing: no folder can be created under its name.
            Err(e)
                if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
                    && fs::symlink_metadata(above).is_err() =>
            {
                probed = above.to_owned();
            }
            Err(e) => return Err(fault("the output folder cannot be used").cause(e).hint("choose another")),
            Ok(meta) if !meta.is_dir() => {
                return Err(fault("the output folder is not a folder").found(above.display().to_string()));
            }
            Ok(_) => break,
        }
    }
    png::probe(&probed)
        .map_err(|e| fault("no file can be written to the output folder").cause(e).hint("choose another"))
}

/// `name` with each `%d` (or `%03d`) replaced by `number`; None if it has none.
fn numbered(name: &str, number: usize) -> Option<String> {
    let mut out = String::new();
    let mut rest = name;
    let mut found = false;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (width, tail) = after.split_at(digits);
        match (tail.strip_prefix('d'), width.parse::<usize>()) {
            // A width larger than any file name is not meant as one.
            (Some(tail), width) if digits == 0 || width.as_ref().is_ok_and(|w| *w <= 20) => {
                out.push_str(&format!("{number:0w$}", w = width.unwrap_or(0)));
                rest = tail;
                found = true;
            }
            _ => {
                out.push('%');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    found.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let name = |pattern: &str, count, index| {
            Series::new(pattern, count, false).path(index).display().to_string()
        };
        assert_eq!(name("a/x.png", 1, 0), "a/x.png");
        assert_eq!(name("a/x.png", 3, 2), "a/x-3.png");
        assert_eq!(name("a/x%d.png", 1, 0), "a/x1.png");
        assert_eq!(name("x_%03d.png", 12, 11), "x_012.png");
        assert_eq!(name("100%.png", 1, 0), "100%.png");
        assert_eq!(name("50%-%d.png", 2, 1), "50%-2.png");
        assert_eq!(name("%999999d.png", 1, 0), "%999999d.png");
        assert_eq!(name("x.latent", 2, 0), "x-1.latent");
    }

    #[test]
    fn only_png() {
        assert!(check_png(Path::new("a.PNG")).is_ok());
        for bad in ["a.jpg", "a", "", "png"] {
            assert!(check_png(Path::new(bad)).is_err(), "{bad}");
        }
    }
}
