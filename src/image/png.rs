//! PNG files with text chunks: pictures, long ones row by row, and animations.
#![warn(clippy::indexing_slicing, clippy::string_slice)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::string_slice))]

use super::Picture;
pub use crate::atomic_file::{probe, write};
use crate::{Error, Result};

/// The bytes of a PNG of `picture` with `texts` (keyword, text) in its header.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for a picture without pixels or whose bytes do not fit its size, for
/// sides that no PNG has, and for invalid keywords.
pub fn encode(picture: &Picture, texts: &[(&str, &str)]) -> Result<Vec<u8>> {
    picture.check()?;
    let mut bytes = Vec::new();
    let mut writer =
        encoder(&mut bytes, (picture.width, picture.height), texts)?.write_header().map_err(failed)?;
    writer.write_image_data(&picture.rgb).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(bytes)
}

/// Most pixels of a PNG's side.
const MOST_SIDE: u32 = (1 << 31) - 1;

/// A PNG numbers the chunks of its frames in 31 bits, two for each frame.
const MOST_FRAMES: u32 = 1 << 30;

/// Takes the next rows of a picture, RGB.
#[doc(hidden)]
pub type WriteRows<'a> = dyn FnMut(&[u8]) -> Result<()> + 'a;

/// The same for a picture of this width and height that is made row by row: `rows` hands over its
/// pixels in portions of any size.
///
/// # Errors
/// Those of `rows`; [`ErrorKind::Usage`](crate::ErrorKind::Usage) if it hands over too few or too many, and as
/// [`encode`].
#[doc(hidden)]
pub fn encode_rows(
    size: (usize, usize),
    texts: &[(&str, &str)],
    rows: &mut dyn FnMut(&mut WriteRows<'_>) -> Result<()>,
) -> Result<Vec<u8>> {
    use std::io::Write;
    let mut bytes = Vec::new();
    let mut writer = encoder(&mut bytes, size, texts)?.write_header().map_err(failed)?;
    let mut stream = writer.stream_writer().map_err(failed)?;
    let broken = |e: std::io::Error| Error::usage("there are more pixels than the picture has").cause(e);
    rows(&mut |pixels| stream.write_all(pixels).map_err(broken))?;
    let short = |e: png::EncodingError| Error::usage("there are fewer pixels than the picture has").cause(e);
    stream.finish().map_err(short)?;
    writer.finish().map_err(short)?;
    Ok(bytes)
}

/// An animation in an endless loop: `count` frames, each for `milliseconds`, the last four
/// times as long. Programs without animations show the last frame. `frame` gives a frame by its
/// number, and is asked for the last one twice.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for no frames or more than a PNG can count, for frames of different
/// sizes, and as [`encode`]; those of `frame`.
#[doc(hidden)]
pub fn animation(
    count: usize,
    frame: &mut dyn FnMut(usize) -> Result<Picture>,
    milliseconds: u16,
    texts: &[(&str, &str)],
) -> Result<Vec<u8>> {
    let Some(end) = count.checked_sub(1) else { return Err(Error::usage("an animation without frames")) };
    let frames = u32::try_from(count).ok().filter(|count| *count < MOST_FRAMES).ok_or_else(|| {
        Error::usage("too many frames for an animation")
            .expected(format!("fewer than {MOST_FRAMES}"))
            .found(count.to_string())
    })?;
    let last = frame(end)?;
    last.check()?;
    let size = (last.width, last.height);
    let mut bytes = Vec::new();
    let mut encoder = encoder(&mut bytes, size, texts)?;
    encoder.set_animated(frames, 0).map_err(failed)?;
    // The picture in front is the one that a program without animations shows.
    encoder.set_sep_def_img(true).map_err(failed)?;
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(&last.rgb).map_err(failed)?;
    for i in 0..count {
        let picture = frame(i)?;
        picture.check()?;
        if (picture.width, picture.height) != size {
            return Err(Error::usage("frames of an animation differ in size")
                .expected(format!("{}x{}", size.0, size.1))
                .found(format!("{}x{}", picture.width, picture.height)));
        }
        let long = if i == end { milliseconds.saturating_mul(4) } else { milliseconds };
        writer.set_frame_delay(long, 1000).map_err(failed)?;
        writer.write_image_data(&picture.rgb).map_err(failed)?;
    }
    writer.finish().map_err(failed)?;
    Ok(bytes)
}

fn encoder<'b>(
    bytes: &'b mut Vec<u8>,
    (width, height): (usize, usize),
    texts: &[(&str, &str)],
) -> Result<png::Encoder<'static, &'b mut Vec<u8>>> {
    let side = |pixels: usize| u32::try_from(pixels).ok().filter(|side| (1..=MOST_SIDE).contains(side));
    let Some((across, down)) = side(width).zip(side(height)) else {
        return Err(Error::usage("no PNG has such sides")
            .expected(format!("1 to {MOST_SIDE} pixels"))
            .found(format!("{width}x{height}")));
    };
    let mut encoder = png::Encoder::new(bytes, across, down);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    for (keyword, text) in texts {
        let is_letter = |c: char| matches!(u32::from(c), 32..=126 | 161..=255);
        if !(1..=79).contains(&keyword.chars().count()) || !keyword.chars().all(is_letter) {
            return Err(Error::usage("a PNG's text has no such keyword")
                .expected("1 to 79 letters of Latin-1")
                .found(format!("{keyword:?}")));
        }
        // Latin-1 text goes into tEXt, which every reader knows; the rest needs iTXt, and so does what would be
        // taken for UTF-8.
        let latin: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
        if latin.is_some_and(|bytes| text.is_ascii() || std::str::from_utf8(&bytes).is_err()) {
            encoder.add_text_chunk((*keyword).to_owned(), (*text).to_owned()).map_err(failed)?;
        } else {
            encoder.add_itxt_chunk((*keyword).to_owned(), (*text).to_owned()).map_err(failed)?;
        }
    }
    Ok(encoder)
}

fn failed(e: png::EncodingError) -> Error {
    Error::internal("a picture could not be encoded").cause(e)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_animation_holds_all_frames_and_begins_with_the_last() {
        let frame = |grey: u8| Picture { width: 2, height: 1, rgb: vec![grey; 6] };
        let bytes = animation(3, &mut |i| Ok(frame(i as u8 + 1)), 100, &[("parameters", "x")]).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(&bytes)).read_info().unwrap();
        let told = *reader.info().animation_control().unwrap();
        assert_eq!((told.num_frames, told.num_plays), (3, 0));
        let mut shown = Vec::new();
        for _ in 0..4 {
            let mut pixels = vec![0; 6];
            reader.next_frame(&mut pixels).unwrap();
            shown.push((pixels[0], reader.info().frame_control().map(|f| f.delay_num)));
        }
        assert_eq!(shown, [(3, None), (1, Some(100)), (2, Some(100)), (3, Some(400))]);
        let uneven = |i: usize| Picture { width: 1 + i, height: 1, rgb: vec![0; 3 + 3 * i] };
        assert!(
            animation(0, &mut |_| Ok(frame(0)), 1, &[]).is_err()
                && animation(2, &mut |i| Ok(uneven(i)), 1, &[]).is_err()
        );
    }

    #[test]
    fn rows_are_the_picture() {
        let picture = Picture { width: 3, height: 4, rgb: (0..36).collect() };
        let by_rows =
            encode_rows((3, 4), &[("a", "b")], &mut |write| picture.rgb.chunks(7).try_for_each(&mut *write));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), by_rows.unwrap()).unwrap();
        assert_eq!(super::super::read::picture(file.path()).unwrap(), picture);
        assert!(encode_rows((3, 4), &[], &mut |write| write(&[0; 9])).is_err());
    }
}
