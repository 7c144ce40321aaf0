//! The texts in picture files, where programs leave what made the picture: text chunks of PNGs; EXIF data,
//! comments and XMP of JPEGs and WebPs.
#![warn(clippy::indexing_slicing, clippy::string_slice)]

use std::io::Cursor;

use super::infotext::KEYWORD;
use super::{Format, exif};
use crate::{Error, ErrorKind, Result};

/// Most bytes of decompressed chunks: a small file may hold a text of gigabytes.
const MOST_BYTES: usize = 64 << 20;

/// The keyword of XMP in PNGs.
pub(super) const XMP: &str = "XML:com.adobe.xmp";

/// The texts (keyword, text) of the picture `bytes`, in whatever of the formats it is.
///
/// Of a PNG, those before its pixels and behind them: `tEXt`, then `zTXt` and `iTXt`. Latin-1, as the format says,
/// but bytes that are valid UTF-8 are read as that, which stable-diffusion.cpp writes: no Latin-1 text looks like it.
/// Damaged pixels do not matter.
///
/// Of a JPEG and a WebP, the fields under the keywords that PNGs have for the same: a user comment is
/// `parameters`, and a text such as `workflow:{…}`, which ComfyUI puts into other fields, is cut at its colon.
///
/// # Errors
/// [`ErrorKind::File`] if it is no such picture, or a damaged one, or a compressed text is far too long.
pub fn texts(bytes: &[u8]) -> Result<Vec<(String, String)>> {
    match Format::of(bytes) {
        Some(Format::Jpeg) => Ok(of_segments(jpeg(bytes))),
        Some(Format::WebP) => Ok(of_segments(webp(bytes))),
        _ => png(bytes),
    }
}

fn png(bytes: &[u8]) -> Result<Vec<(String, String)>> {
    let damaged = |e: png::DecodingError| match e {
        png::DecodingError::LimitsExceeded => Error::new(ErrorKind::File, "a text in the PNG is too long")
            .expected(format!("at most {} MiB", MOST_BYTES >> 20)),
        e => Error::new(ErrorKind::File, "the PNG is damaged").cause(e).hint("fetch it again"),
    };
    let mut reader = png::Decoder::new(Cursor::new(bytes)).read_info().map_err(damaged)?;
    // Pixels are looked at only for what is behind them; a fault there takes nothing away.
    let _ = reader.finish();
    let info = reader.info();
    let mut all: Vec<(String, String)> = info
        .uncompressed_latin1_text
        .iter()
        .map(|t| (t.keyword.clone(), unmangled(t.text.clone())))
        .collect();
    for chunk in &info.compressed_latin1_text {
        let mut chunk = chunk.clone();
        chunk.decompress_text_with_limit(MOST_BYTES).map_err(damaged)?;
        all.push((chunk.keyword.clone(), unmangled(chunk.get_text().map_err(damaged)?)));
    }
    for chunk in &info.utf8_text {
        let mut chunk = chunk.clone();
        chunk.decompress_text_with_limit(MOST_BYTES).map_err(damaged)?;
        all.push((chunk.keyword.clone(), chunk.get_text().map_err(damaged)?));
    }
    if let Some(exif) = &info.exif_metadata {
        all.extend(of_segments(vec![Segment::Exif(exif)]));
    }
    Ok(all)
}

/// UTF-8 that was read as Latin-1, put right.
fn unmangled(text: String) -> String {
    if text.is_ascii() {
        return text;
    }
    let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or(text)
}

/// A part of a JPEG or a WebP that may hold texts.
enum Segment<'b> {
    Exif(&'b [u8]),
    Comment(&'b [u8]),
    Xmp(&'b [u8]),
}

fn of_segments(segments: Vec<Segment<'_>>) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for segment in segments {
        match segment {
            Segment::Exif(bytes) => all.extend(exif::texts(bytes).into_iter().flat_map(as_in_png)),
            Segment::Comment(bytes) => {
                let text = String::from_utf8_lossy(bytes);
                // stable-diffusion.cpp writes a PNG's chunk there, keyword and zero included.
                all.push(match text.trim_end_matches('\0').split_once('\0') {
                    Some((keyword, text)) => (keyword.to_owned(), text.to_owned()),
                    None => (KEYWORD.to_owned(), text.trim_end_matches('\0').to_owned()),
                });
            }
            Segment::Xmp(bytes) => all.push((XMP.to_owned(), String::from_utf8_lossy(bytes).into_owned())),
        }
    }
    // A field without a text says nothing.
    all.retain(|(_, text)| !text.trim().is_empty());
    all
}

/// A field of EXIF data as the texts that a PNG would have.
fn as_in_png((keyword, text): (String, String)) -> Vec<(String, String)> {
    // ComfyUI, and nodes for it that save pictures.
    for name in ["prompt", "workflow"] {
        let (start, rest) = text.split_at_checked(name.len()).unwrap_or_default();
        if let Some(json) = rest.strip_prefix(':').filter(|_| start.eq_ignore_ascii_case(name)) {
            return vec![(name.to_owned(), json.trim().to_owned())];
        }
    }
    if keyword != "UserComment" {
        // Fooocus says there in which of two ways it wrote the comment.
        return vec![(if keyword == "MakerNote" { "fooocus_scheme".into() } else { keyword }, text)];
    }
    // NovelAI puts all of a PNG's texts there as one JSON object.
    match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text) {
        Ok(object) if object.get("Comment").is_some_and(serde_json::Value::is_string) => {
            let texts = object.into_iter().filter_map(|(key, value)| Some((key, value.as_str()?.to_owned())));
            texts.collect()
        }
        _ => vec![(KEYWORD.to_owned(), text)],
    }
}

/// The segments of a JPEG before its pixels.
fn jpeg(bytes: &[u8]) -> Vec<Segment<'_>> {
    const XMP_MARK: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";
    let (mut found, mut rest) = (Vec::new(), bytes.get(2..).unwrap_or_default());
    while let [0xff, marker, after @ ..] = rest {
        match marker {
            // Filling, and markers without data.
            0xff => rest = rest.get(1..).unwrap_or_default(),
            0x01 | 0xd0..=0xd8 => rest = after,
            // The pixels begin, or all ends.
            0xd9 | 0xda => break,
            _ => {
                let [high, low, ..] = after else { break };
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                let Some(data) = after.get(2..length) else { break };
                match marker {
                    0xe1 if data.starts_with(b"Exif\0\0") => found.push(Segment::Exif(data)),
                    0xe1 => found.extend(data.strip_prefix(XMP_MARK).map(Segment::Xmp)),
                    0xfe => found.push(Segment::Comment(data)),
                    _ => {}
                }
                rest = after.get(length..).unwrap_or_default();
            }
        }
    }
    found
}

/// The chunks of a WebP.
fn webp(bytes: &[u8]) -> Vec<Segment<'_>> {
    let (mut found, mut rest) = (Vec::new(), bytes.get(12..).unwrap_or_default());
    while let Some((head, after)) = rest.split_at_checked(8) {
        let length =
            head.get(4..).and_then(|four| four.try_into().ok()).map_or(0, u32::from_le_bytes) as usize;
        let Some(data) = after.get(..length) else { break };
        match head.get(..4) {
            Some(b"EXIF") => found.push(Segment::Exif(data)),
            Some(b"XMP ") => found.push(Segment::Xmp(data)),
            _ => {}
        }
        // Chunks begin at even places.
        rest = after.get(length + length % 2..).unwrap_or_default();
    }
    found
}
