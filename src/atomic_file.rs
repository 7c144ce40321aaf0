//! Files that are written completely or not at all.

use std::io::{BufWriter, Write};
use std::path::Path;

use crate::{Error, ErrorKind, Remedy, Result};

/// Writes `bytes` to `path` completely or not at all: to a file beside it first, which then takes its
/// name. Without `replace` an existing file is left alone.
///
/// # Errors
/// [`ErrorKind::File`]; the directory is then as it was.
pub fn write(path: &Path, bytes: &[u8], replace: bool) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(name);
    let written = (|| {
        let mut file = BufWriter::new(std::fs::File::create_new(&part)?);
        file.write_all(bytes)?;
        file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
        // A hard link fails if the name is taken, where a rename would replace it silently.
        if replace { std::fs::rename(&part, path) } else { link(&part, path) }
    })();
    // The part is left over after a link and after a failure.
    let _ = std::fs::remove_file(&part);
    written.map_err(|e: std::io::Error| match e.kind() {
        std::io::ErrorKind::AlreadyExists => Error::new(ErrorKind::File, "the file exists already")
            .file(path)
            .remedy(Remedy::Overwrite)
            .hint("choose another name"),
        _ => Error::io(path, "the file cannot be written", e),
    })
}

/// Finds out by trying whether a file can be made at `path`: permissions do not show it, for a file system
/// may be read-only, full, or not take the name. Nothing is left behind.
///
/// # Errors
/// The system's.
pub fn probe(path: &Path) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.probe", std::process::id()));
    let probe = path.with_file_name(name);
    let made = std::fs::File::create_new(&probe).map(drop);
    // Whatever came of it.
    let _ = std::fs::remove_file(&probe);
    made
}

/// Gives the file `part` the name `path` if that is free.
fn link(part: &Path, path: &Path) -> std::io::Result<()> {
    match std::fs::hard_link(part, path) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            // FAT and some network drives know no links: take the name with an empty file first.
            drop(std::fs::File::create_new(path)?);
            std::fs::rename(part, path).inspect_err(|_| drop(std::fs::remove_file(path)))
        }
        done => done,
    }
}
