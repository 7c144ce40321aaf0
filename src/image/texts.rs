//! The text chunks of a PNG, where programs leave what made the picture.

use std::io::Cursor;

use crate::{Error, ErrorKind, Result};

/// Room for what compressed chunks come to: a small file may hold a text of gigabytes.
const MOST_BYTES: usize = 64 << 20;

/// The text chunks (keyword, text) of the PNG `bytes`, before its pixels and behind them: `tEXt`,
/// then `zTXt` and `iTXt`. Pixels that are damaged take nothing away.
///
/// # Errors
/// [`ErrorKind::File`] if it is no PNG, or a damaged one, or a compressed text is far too long.
pub fn texts(bytes: &[u8]) -> Result<Vec<(String, String)>> {
    let damaged = |e: png::DecodingError| {
        Error::new(ErrorKind::File, "the PNG is damaged").cause(e).hint("fetch it again")
    };
    let mut reader = png::Decoder::new(Cursor::new(bytes)).read_info().map_err(damaged)?;
    // Pixels are looked at only for what is behind them; a fault there takes nothing away.
    let _ = reader.finish();
    let info = reader.info();
    let mut all: Vec<(String, String)> =
        info.uncompressed_latin1_text.iter().map(|t| (t.keyword.clone(), t.text.clone())).collect();
    for chunk in &info.compressed_latin1_text {
        let mut chunk = chunk.clone();
        chunk.decompress_text_with_limit(MOST_BYTES).map_err(damaged)?;
        all.push((chunk.keyword.clone(), chunk.get_text().map_err(damaged)?));
    }
    for chunk in &info.utf8_text {
        let mut chunk = chunk.clone();
        chunk.decompress_text_with_limit(MOST_BYTES).map_err(damaged)?;
        all.push((chunk.keyword.clone(), chunk.get_text().map_err(damaged)?));
    }
    Ok(all)
}
