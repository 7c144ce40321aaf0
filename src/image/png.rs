//! PNG files with text chunks.

use super::Picture;
pub use crate::whole::{probe, write};
use crate::{Error, Result};

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
