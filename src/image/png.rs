//! PNG files with text chunks.

use std::io::{BufWriter, Write};
use std::path::Path;

use super::Picture;
use crate::{Error, ErrorKind, Result};

/// The bytes of a PNG of `picture` with `texts` (keyword, text) in its header.
pub fn encode(picture: &Picture, texts: &[(&str, &str)]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let failed = |e: png::EncodingError| Error::internal("a picture could not be encoded").cause(e);
    let mut encoder = png::Encoder::new(&mut bytes, picture.width as u32, picture.height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    for (keyword, text) in texts {
        // Latin-1 text goes into tEXt, which every reader knows; the rest needs iTXt.
        if text.chars().all(|c| u32::from(c) < 256) {
            encoder.add_text_chunk((*keyword).to_owned(), (*text).to_owned()).map_err(failed)?;
        } else {
            encoder.add_itxt_chunk((*keyword).to_owned(), (*text).to_owned()).map_err(failed)?;
        }
    }
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(&picture.rgb).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(bytes)
}

/// Writes `bytes` to `path` whole or not at all: to a file beside it first, which then takes its
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
            .hint("pass --force to replace it, or another name with -o"),
        _ => Error::io(path, "the file cannot be written", e),
    })
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
