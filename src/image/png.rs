//! PNG files with text chunks: pictures, long ones row by row, and animations.

use super::Picture;
pub use crate::whole::{probe, write};
use crate::{Error, Result};

/// The bytes of a PNG of `picture` with `texts` (keyword, text) in its header.
pub fn encode(picture: &Picture, texts: &[(&str, &str)]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut writer =
        encoder(&mut bytes, (picture.width, picture.height), texts)?.write_header().map_err(failed)?;
    writer.write_image_data(&picture.rgb).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(bytes)
}

/// Takes the next rows of a picture, RGB.
pub type WriteRows<'a> = dyn FnMut(&[u8]) -> Result<()> + 'a;

/// The same for a picture of this width and height that is made row by row: `rows` hands over its
/// pixels in portions of any size.
///
/// # Errors
/// Those of `rows`; [`ErrorKind::Internal`](crate::ErrorKind::Internal) if it hands over too few or
/// too many.
pub fn encode_rows(
    size: (usize, usize),
    texts: &[(&str, &str)],
    rows: &mut dyn FnMut(&mut WriteRows<'_>) -> Result<()>,
) -> Result<Vec<u8>> {
    use std::io::Write;
    let mut bytes = Vec::new();
    let mut writer = encoder(&mut bytes, size, texts)?.write_header().map_err(failed)?;
    let mut stream = writer.stream_writer().map_err(failed)?;
    let broken = |e: std::io::Error| Error::internal("a picture could not be encoded").cause(e);
    rows(&mut |pixels| stream.write_all(pixels).map_err(broken))?;
    stream.finish().map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(bytes)
}

/// An animation that is shown over and over: `count` frames, each for `milliseconds`, the last four
/// times as long. Programs that know no animations show the last alone. `frame` gives a frame by its
/// number, and is asked for the last one twice.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for no frames, or frames of different sizes.
pub fn animation(
    count: usize,
    frame: &mut dyn FnMut(usize) -> Picture,
    milliseconds: u16,
    texts: &[(&str, &str)],
) -> Result<Vec<u8>> {
    let Some(end) = count.checked_sub(1) else { return Err(Error::usage("an animation without frames")) };
    let last = frame(end);
    let size = (last.width, last.height);
    let mut bytes = Vec::new();
    let mut encoder = encoder(&mut bytes, size, texts)?;
    encoder.set_animated(count as u32, 0).map_err(failed)?;
    // The picture in front is the one that a program without animations shows.
    encoder.set_sep_def_img(true).map_err(failed)?;
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(&last.rgb).map_err(failed)?;
    for i in 0..count {
        let picture = frame(i);
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
    let mut encoder = png::Encoder::new(bytes, width as u32, height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    for (keyword, text) in texts {
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
        let bytes = animation(3, &mut |i| frame(i as u8 + 1), 100, &[("parameters", "x")]).unwrap();
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
            animation(0, &mut |_| frame(0), 1, &[]).is_err()
                && animation(2, &mut |i| uneven(i), 1, &[]).is_err()
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
