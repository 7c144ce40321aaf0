//! The output folder and the names of files in it. Nothing is written outside of it, nothing is replaced, and
//! nothing is left half-written.

use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::image::png;
use crate::{Error, ErrorKind, Remedy, Resource, Result};

/// The input that holds the beginning of a file's name.
pub(super) const PREFIX: &str = "filename_prefix";
/// What in a prefix is replaced between percent signs when a file is saved: sizes, then the clock's numbers, and
/// the picture's place in its batch.
pub(super) const REPLACED: [&str; 9] =
    ["width", "height", "year", "month", "day", "hour", "minute", "second", "batch_num"];
/// Where previews go, below the output folder.
pub(super) const TEMP: &str = "temp";
/// Times that a name may be taken by another program between looking and writing.
const TRIES: usize = 100;
/// Longer names are refused by most file systems; room is left for the number.
const LONGEST: usize = 200;

/// Where files of one prefix go: `prefix_00001_.png`, counted up from what is there.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct NumberedFiles {
    folder: PathBuf,
    name: String,
    output: PathBuf,
    /// The number of the file before: those of a batch count up, whatever their names.
    last: u64,
}

impl NumberedFiles {
    /// The folder and name that `prefix` means below `output`. Links that lead out of it are not
    /// followed.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for a prefix that leaves the output folder or is no name.
    pub fn new(prefix: &str, output: &Path) -> Result<Self> {
        let wrong = |what: &str| {
            Error::usage(what.to_owned())
                .at(PREFIX)
                .expected("a name, at most with folders below the output folder")
                .found(format!("{:?}", prefix.chars().take(120).collect::<String>()))
        };
        let leaves = || wrong("the file-name prefix leaves the output folder");
        // On Windows a colon makes a drive or a hidden stream of a file.
        let odd = |c: char| c.is_control() || (cfg!(windows) && "<>:\"|?*".contains(c));
        if prefix.contains(odd) {
            return Err(wrong("the file-name prefix holds what no file name may"));
        }
        // Workflows from Windows may have its separator; elsewhere it is a letter like others, which
        // programs on the other side would take for a way out.
        let plain = prefix.replace('\\', "/");
        let mut parts: Vec<String> = Vec::new();
        for component in Path::new(&plain).components() {
            match component {
                Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
                Component::CurDir => {}
                Component::ParentDir => parts.pop().map(drop).ok_or_else(leaves)?,
                Component::RootDir | Component::Prefix(_) => return Err(leaves()),
            }
        }
        if parts.iter().any(|part| part.len() > LONGEST) {
            return Err(wrong("the file-name prefix is too long"));
        }
        let name = parts.pop().unwrap_or_default();
        let folder = parts.iter().fold(output.to_owned(), |folder, part| folder.join(part));
        let target = Self { folder, name, output: output.to_owned(), last: 0 };
        match target.inside() {
            Ok(true) => Ok(target),
            _ => Err(leaves().hint("a link in the output folder leads out of it")),
        }
    }

    /// Where its files go.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether what there is of the folder already is really below the output folder.
    fn inside(&self) -> std::io::Result<bool> {
        let mut there = self.folder.as_path();
        while there != self.output && fs::symlink_metadata(there).is_err() {
            there = there.parent().unwrap_or(&self.output);
        }
        match self.output.canonicalize() {
            Ok(output) => Ok(there.canonicalize()?.starts_with(output)),
            // Nothing is there yet, so there are no links either.
            Err(_) => Ok(there == self.output),
        }
    }

    /// Writes a file with the next free number; `%batch_num%` in the name becomes `batch`.
    ///
    /// # Errors
    /// [`ErrorKind::File`]; no part of the file is left behind.
    pub fn write(&mut self, batch: &str, extension: &str, bytes: &[u8]) -> Result<PathBuf> {
        let cannot = |e| Error::io(&self.folder, "the output folder cannot be used", e);
        fs::create_dir_all(&self.folder).map_err(cannot)?;
        // It may have been made, or changed, since the workflow was checked.
        if !self.inside().map_err(cannot)? {
            return Err(
                Error::new(ErrorKind::File, "the folder is not in the output folder").file(&self.folder)
            );
        }
        let name = self.name.replace("%batch_num%", batch);
        let taken = largest(&self.folder, &name).map_err(cannot)?;
        let mut number = taken.max(self.last).saturating_add(1);
        for _ in 0..TRIES {
            let path = self.folder.join(format!("{name}_{number:05}_.{extension}"));
            match png::write(&path, bytes, false) {
                Err(_) if fs::symlink_metadata(&path).is_ok() => number += 1,
                Err(e) => return Err(e),
                Ok(()) => {
                    self.last = number;
                    return Ok(path);
                }
            }
        }
        Err(Error::new(ErrorKind::File, "every name is taken as soon as it is free").file(&self.folder))
    }
}

/// The largest number of a file called `name` in `folder`, whatever its kind; 0 without any.
fn largest(folder: &Path, name: &str) -> std::io::Result<u64> {
    let mut largest = 0;
    for entry in fs::read_dir(folder)? {
        let file = entry?.file_name();
        let file = file.to_string_lossy();
        let rest = file.strip_prefix(name).and_then(|rest| rest.strip_prefix('_'));
        let number =
            rest.and_then(|rest| rest.split('_').next()).and_then(|digits| digits.parse::<u64>().ok());
        largest = largest.max(number.unwrap_or(0));
    }
    Ok(largest)
}

/// Sees that files can be made in `folder`, so that an hour of sampling does not end there. As long as the
/// folder is not there, the nearest above it counts. Nothing is left behind.
///
/// # Errors
/// [`ErrorKind::Usage`], saying why not.
pub(super) fn usable(folder: &Path) -> Result<()> {
    let here = Path::new(".");
    let there = folder.ancestors().find(|above| fs::symlink_metadata(above).is_ok()).unwrap_or(here);
    let found = match fs::metadata(there) {
        Err(e) => Err(e),
        Ok(meta) if !meta.is_dir() => Err(std::io::ErrorKind::NotADirectory.into()),
        Ok(_) => png::probe(&there.join(".sagittal")),
    };
    found.map_err(|e| {
        Error::usage("no file can be written to the output folder")
            .file(folder)
            .at(there.display().to_string())
            .cause(e)
            .remedy(Remedy::Pass(Resource::OutputFolder))
    })
}

/// Makes the output folder.
///
/// # Errors
/// As [`usable`].
pub(super) fn made(output: &Path) -> Result<()> {
    // What cannot be made is not usable either, and that error says why.
    let _ = fs::create_dir_all(output);
    usable(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_stay_in_the_output_folder() {
        let output = tempfile::tempdir().unwrap();
        let target = |prefix: &str| NumberedFiles::new(prefix, output.path());
        for (prefix, folder, name) in [
            ("ComfyUI", "", "ComfyUI"),
            ("a/b/c", "a/b", "c"),
            ("a\\b", "a", "b"),
            ("./a/../b/x", "b", "x"),
            ("a/", "", "a"),
            ("..a/b..", "..a", "b.."),
            ("", "", ""),
        ] {
            let got = target(prefix).unwrap();
            assert_eq!((got.folder, got.name.as_str()), (output.path().join(folder), name), "{prefix}");
        }
        for prefix in
            ["../x", "a/../../x", "/abs/x", "..", "a/../..", "..\\x", "\\x", "a\0b", "a\nb", &"x".repeat(300)]
        {
            assert_eq!(target(prefix).unwrap_err().kind(), ErrorKind::Usage, "{prefix:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_out_of_the_output_folder_are_not_followed() {
        let (output, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(other.path(), output.path().join("out")).unwrap();
        fs::create_dir(output.path().join("in")).unwrap();
        std::os::unix::fs::symlink(output.path().join("in"), output.path().join("round")).unwrap();
        for prefix in ["out/x", "out/deeper/x"] {
            assert!(NumberedFiles::new(prefix, output.path()).is_err(), "{prefix}");
        }
        assert!(NumberedFiles::new("round/x", output.path()).is_ok());
        // A link that is laid after the look is seen as well.
        let mut target = NumberedFiles::new("later/x", output.path()).unwrap();
        std::os::unix::fs::symlink(other.path(), output.path().join("later")).unwrap();
        assert!(target.write("0", "png", b"x").is_err());
        assert_eq!(fs::read_dir(other.path()).unwrap().count(), 0);
    }

    #[test]
    fn numbers_count_up_from_what_is_there() {
        let output = tempfile::tempdir().unwrap();
        let mut target = NumberedFiles::new("a/x %batch_num%", output.path()).unwrap();
        let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(name(target.write("0", "png", b"1").unwrap()), "x 0_00001_.png");
        assert_eq!(name(target.write("1", "png", b"1").unwrap()), "x 1_00002_.png");
        let mut target = NumberedFiles::new("a/x", output.path()).unwrap();
        for taken in ["x_00007_.png", "x_y_00009_.png", "x_abc_.png", "xx_00010_.png"] {
            fs::write(output.path().join("a").join(taken), b"").unwrap();
        }
        assert_eq!(name(target.write("0", "png", b"1").unwrap()), "x_00008_.png");
        assert_eq!(name(target.write("0", "latent", b"1").unwrap()), "x_00009_.latent");
        assert_eq!(fs::read(output.path().join("a/x_00008_.png")).unwrap(), b"1");
    }
}
