//! Picture files to pictures and masks: PNG, JPEG and WebP, by their first bytes, whatever their names.
#![warn(clippy::indexing_slicing, clippy::string_slice)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::string_slice))]

use std::io::{BufRead, Cursor, Read, Seek};
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, GrayAlphaImage, GrayImage, ImageDecoder as _, ImageError, ImageFormat};
use image::{ImageReader, RgbImage, RgbaImage};

use super::format::Format;
use super::{Mask, Picture};
use crate::Size;
use crate::{Error, ErrorKind, Result};

/// Longer sides than any picture that can be drawn are refused before memory is taken for them.
const LONGEST: u32 = 16_384;

/// Reads a PNG of any bit depth and colour type, a JPEG or a WebP as 8-bit RGB. Of 16 bits the upper 8
/// are taken, transparency is dropped, a photograph is turned as its EXIF data says, and of an animation
/// the first frame is read. This is what ComfyUI's *Load Image* does, except for animations.
///
/// # Errors
/// [`ErrorKind::File`] if the file cannot be read, is none of these or damaged, or has a side
/// of more than 16384 pixels.
pub fn picture(path: &Path) -> Result<Picture> {
    let pixels = pixels(path)?;
    let rgb = |p: &[u8]| match *p {
        [r, g, b, ..] => [r, g, b],
        [grey, ..] => [grey; 3],
        [] => [0; 3],
    };
    let rgb = pixels.values.chunks_exact(pixels.samples).flat_map(rgb).collect();
    Ok(Picture { width: pixels.width, height: pixels.height, rgb })
}

/// Reads a picture as a mask: white is 1, black and transparent are 0, colours count by their
/// brightness (0.299 R + 0.587 G + 0.114 B).
///
/// # Errors
/// As [`picture`].
pub fn mask(path: &Path) -> Result<Mask> {
    let pixels = pixels(path)?;
    let weight = |p: &[u8]| {
        let grey = match p {
            [r, g, b, ..] => (f32::from(*r) * 299.0 + f32::from(*g) * 587.0 + f32::from(*b) * 114.0) / 1000.0,
            [grey, ..] => f32::from(*grey),
            [] => 0.0,
        };
        // Samples of two and four end in alpha.
        let alpha = p.last().filter(|_| p.len().is_multiple_of(2)).map_or(1.0, |a| f32::from(*a) / 255.0);
        grey / 255.0 * alpha
    };
    let weights = pixels.values.chunks_exact(pixels.samples).map(weight).collect();
    Mask::new(Size::new(pixels.width, pixels.height), weights)
}

/// A picture with its transparency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rgba {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `[height, width, 4]`; where nothing is transparent the fourth is 255.
    pub rgba: Vec<u8>,
    /// Whether the file has an alpha channel, or a palette with one. A single transparent colour of a
    /// picture without a palette does not count, as in ComfyUI.
    pub has_alpha: bool,
}

/// Reads a picture with its alpha channel.
///
/// # Errors
/// As [`picture`].
pub fn rgba(path: &Path) -> Result<Rgba> {
    rgba_of(path, bytes(path)?)
}

/// The same for bytes that are in memory; messages call the file `name`.
///
/// # Errors
/// As [`picture`].
pub fn rgba_of(name: impl AsRef<Path>, bytes: Vec<u8>) -> Result<Rgba> {
    let pixels = decoded(name.as_ref(), bytes)?;
    let four = |p: &[u8]| match *p {
        [r, g, b, a] => [r, g, b, a],
        [r, g, b] => [r, g, b, 255],
        [grey, a] => [grey, grey, grey, a],
        [grey, ..] => [grey, grey, grey, 255],
        [] => [0, 0, 0, 255],
    };
    let rgba = pixels.values.chunks_exact(pixels.samples).flat_map(four).collect();
    Ok(Rgba { width: pixels.width, height: pixels.height, rgba, has_alpha: pixels.has_alpha })
}

/// 8-bit samples: grey, grey and alpha, RGB or RGBA.
struct Pixels {
    width: usize,
    height: usize,
    samples: usize,
    has_alpha: bool,
    values: Vec<u8>,
}

/// How the `image` crate calls what it reads here.
fn photo_format(format: Format) -> ImageFormat {
    match format {
        Format::Png => ImageFormat::Png,
        Format::Jpeg => ImageFormat::Jpeg,
        Format::WebP => ImageFormat::WebP,
    }
}

/// A file that begins as a picture does, or the beginning of another: other files may be larger
/// than the memory, or endless.
///
/// # Errors
/// [`ErrorKind::File`] if it cannot be read.
pub(crate) fn bytes(path: &Path) -> Result<Vec<u8>> {
    let cannot = |e| Error::io(path, "the picture cannot be read", e);
    // Opening a pipe would wait for a writer for ever.
    let meta = std::fs::metadata(path).map_err(cannot)?;
    if !meta.is_file() && !meta.is_dir() {
        return Err(Error::new(ErrorKind::File, "not a regular file")
            .file(path)
            .expected("a picture's file"));
    }
    let mut file = std::fs::File::open(path).map_err(cannot)?;
    let mut bytes = Vec::new();
    file.by_ref().take(64).read_to_end(&mut bytes).map_err(cannot)?;
    if Format::of(&bytes).is_some() {
        file.read_to_end(&mut bytes).map_err(cannot)?;
    }
    Ok(bytes)
}

/// What a file says of its pixels before they come.
pub(crate) struct Head {
    pub width: usize,
    pub height: usize,
    /// Of a sample.
    pub bits: u8,
    /// Of a pixel.
    pub samples: usize,
    /// Pictures of an animation, where the file says so; else 1.
    pub frames: u32,
}

/// The size of the picture `bytes`, which are all of the file `path`.
///
/// # Errors
/// [`ErrorKind::File`] if it is no picture that can be read, saying what it seems to be, or a damaged one.
pub(crate) fn head(path: &Path, bytes: &[u8]) -> Result<Head> {
    match Format::of(bytes) {
        Some(Format::Png) => {
            let damaged =
                |e: png::DecodingError| Error::new(ErrorKind::File, "the PNG is damaged").file(path).cause(e);
            let reader = png::Decoder::new(Cursor::new(bytes)).read_info().map_err(damaged)?;
            let info = reader.info();
            Ok(Head {
                width: info.width as usize,
                height: info.height as usize,
                bits: info.bit_depth as u8,
                samples: info.color_type.samples(),
                frames: info.animation_control.map_or(1, |a| a.num_frames),
            })
        }
        Some(format) => {
            let decoder = ImageReader::with_format(Cursor::new(bytes), photo_format(format))
                .into_decoder()
                .map_err(|e| broken(path, format, e))?;
            let (width, height) = decoder.dimensions();
            let samples = usize::from(decoder.color_type().channel_count());
            Ok(Head { width: width as usize, height: height as usize, bits: 8, samples, frames: 1 })
        }
        None => Err(no_picture(path, bytes)),
    }
}

fn no_picture(path: &Path, bytes: &[u8]) -> Error {
    Error::new(ErrorKind::File, "no picture that can be read")
        .file(path)
        .expected("a PNG, JPEG or WebP file")
        .found(kind_of(bytes))
        .hint("convert it to PNG first")
}

fn broken(path: &Path, format: Format, e: ImageError) -> Error {
    let kind = if format == Format::Jpeg { "JPEG" } else { "WebP" };
    Error::new(ErrorKind::File, format!("the {kind} is damaged")).file(path).cause(e).hint("save it anew")
}

fn pixels(path: &Path) -> Result<Pixels> {
    decoded(path, bytes(path)?)
}

fn decoded(path: &Path, bytes: Vec<u8>) -> Result<Pixels> {
    match Format::of(&bytes) {
        Some(Format::Png) => png(path, bytes),
        Some(format) => photograph(path, &bytes, format),
        None => Err(no_picture(path, &bytes)),
    }
}

fn check_sides(path: &Path, width: u32, height: u32) -> Result<()> {
    if width.max(height) <= LONGEST {
        return Ok(());
    }
    Err(Error::new(ErrorKind::File, "the picture is too large")
        .file(path)
        .expected(format!("sides of at most {LONGEST} pixels"))
        .found(format!("{width}x{height}"))
        .hint("scale it down first"))
}

/// A JPEG or a WebP, the right way up.
fn photograph(path: &Path, bytes: &[u8], format: Format) -> Result<Pixels> {
    let damaged = |e: ImageError| broken(path, format, e);
    let mut decoder =
        ImageReader::with_format(Cursor::new(bytes), photo_format(format)).into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    check_sides(path, width, height)?;
    let orientation = decoder.orientation().map_err(damaged)?;
    Ok(turned(DynamicImage::from_decoder(decoder).map_err(damaged)?, orientation))
}

/// Cameras store what the sensor saw, and how it was held.
fn turned(mut picture: DynamicImage, orientation: Orientation) -> Pixels {
    picture.apply_orientation(orientation);
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let has_alpha = picture.color().has_alpha();
    let (samples, values) = match has_alpha {
        true => (4, picture.into_rgba8().into_raw()),
        false => (3, picture.into_rgb8().into_raw()),
    };
    Pixels { width, height, samples, has_alpha, values }
}

fn png(path: &Path, bytes: Vec<u8>) -> Result<Pixels> {
    let damaged = |e: png::DecodingError| {
        Error::new(ErrorKind::File, "the PNG is damaged").file(path).cause(e).hint("save it anew")
    };
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let header = decoder.read_header_info().map_err(damaged)?;
    check_sides(path, header.width, header.height)?;
    let (pixels, orientation) = decode(decoder.read_info().map_err(damaged)?).map_err(damaged)?;
    match orientation {
        Some(orientation) if orientation != Orientation::NoTransforms => Ok(turned(
            pixels.into_image().ok_or_else(|| Error::internal("a picture of another size"))?,
            orientation,
        )),
        _ => Ok(pixels),
    }
}

impl Pixels {
    fn into_image(self) -> Option<DynamicImage> {
        let (w, h) = (u32::try_from(self.width).ok()?, u32::try_from(self.height).ok()?);
        match self.samples {
            1 => GrayImage::from_raw(w, h, self.values).map(DynamicImage::from),
            2 => GrayAlphaImage::from_raw(w, h, self.values).map(DynamicImage::from),
            3 => RgbImage::from_raw(w, h, self.values).map(DynamicImage::from),
            _ => RgbaImage::from_raw(w, h, self.values).map(DynamicImage::from),
        }
    }
}

/// The pixels, and how they are to be turned.
fn decode<R: BufRead + Seek>(
    mut reader: png::Reader<R>,
) -> Result<(Pixels, Option<Orientation>), png::DecodingError> {
    // The decoder itself panics where colours or their transparency do not fit a palette.
    let (palette, alpha) = (reader.info().palette.as_deref(), reader.info().trns.as_deref());
    let colors = palette.map_or(0, <[u8]>::len);
    let indexed = reader.info().color_type == png::ColorType::Indexed;
    if indexed && (!colors.is_multiple_of(3) || colors > 768 || alpha.map_or(0, <[u8]>::len) > colors / 3) {
        let fault = std::io::Error::new(std::io::ErrorKind::InvalidData, "its palette makes no sense");
        return Err(png::DecodingError::IoError(fault));
    }
    let size = reader.output_buffer_size().ok_or(png::DecodingError::LimitsExceeded)?;
    let mut values = vec![0; size];
    let frame = reader.next_frame(&mut values)?;
    values.truncate(frame.buffer_size());
    let (width, height) = (frame.width as usize, frame.height as usize);
    let samples = frame.color_type.samples();
    let info = reader.info();
    let by_color = info.trns.is_some() && info.color_type != png::ColorType::Indexed;
    let has_alpha = samples.is_multiple_of(2) && !by_color;
    let orientation = info.exif_metadata.as_deref().and_then(Orientation::from_exif_chunk);
    Ok((Pixels { width, height, samples, has_alpha, values }, orientation))
}

/// What a file seems to be, by its first bytes.
fn kind_of(bytes: &[u8]) -> &'static str {
    match bytes {
        [] => "an empty file",
        _ if Format::of(bytes) == Some(Format::Jpeg) => "a JPEG picture",
        _ if Format::of(bytes) == Some(Format::WebP) => "a WebP picture",
        [b'G', b'I', b'F', b'8', ..] => "a GIF picture",
        [b'B', b'M', ..] => "a BMP picture",
        _ => "something else",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A PNG of 2×1 pixels.
    fn png(color: png::ColorType, depth: png::BitDepth, palette: bool, data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 2, 1);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if palette {
            encoder.set_palette(vec![255, 0, 0, 0, 0, 255]);
            encoder.set_trns(vec![255, 0]);
        }
        encoder.write_header().unwrap().write_image_data(data).unwrap();
        bytes
    }

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    #[test]
    fn every_kind_of_png_is_read() {
        use png::BitDepth::{Eight, One, Sixteen, Two};
        use png::ColorType::{Grayscale, GrayscaleAlpha, Indexed, Rgb, Rgba};
        // Kind, data, then the two pixels and the two weights.
        type Case = (png::ColorType, png::BitDepth, &'static [u8], [u8; 6], [f32; 2]);
        let cases: [Case; 8] = [
            (Grayscale, One, &[0b0100_0000], [0, 0, 0, 255, 255, 255], [0.0, 1.0]),
            (Grayscale, Two, &[0b0110_0000], [85, 85, 85, 170, 170, 170], [85.0 / 255.0, 170.0 / 255.0]),
            (Grayscale, Sixteen, &[128, 7, 255, 255], [128, 128, 128, 255, 255, 255], [128.0 / 255.0, 1.0]),
            (GrayscaleAlpha, Eight, &[255, 51, 255, 255], [255; 6], [0.2, 1.0]),
            (Rgb, Eight, &[255, 0, 0, 0, 255, 0], [255, 0, 0, 0, 255, 0], [0.299, 0.587]),
            (Rgb, Sixteen, &[1, 255, 2, 0, 3, 9, 4, 4, 5, 5, 6, 6], [1, 2, 3, 4, 5, 6], [0.0071, 0.0192]),
            (Rgba, Eight, &[9, 9, 9, 0, 255, 255, 255, 255], [9, 9, 9, 255, 255, 255], [0.0, 1.0]),
            (Indexed, One, &[0b0100_0000], [255, 0, 0, 0, 0, 255], [0.299, 0.0]),
        ];
        for (color, depth, data, rgb, weights) in cases {
            let file = file(&png(color, depth, color == Indexed, data));
            let read = picture(file.path()).unwrap();
            assert_eq!(
                (read.width, read.height, read.rgb.as_slice()),
                (2, 1, &rgb[..]),
                "{color:?} {depth:?}"
            );
            let latent = mask(file.path()).unwrap().to_latent(Size::new(2, 1));
            let near = latent.data().iter().zip(weights).all(|(a, b)| (a - b).abs() < 1e-3);
            assert!(near, "{color:?} {depth:?}: {:?}", latent.data());
        }
    }

    /// Such files came out of fuzzing; the decoder has no answer to them but a panic.
    #[test]
    fn palettes_that_make_no_sense_are_damage() {
        let chunk = |name: &[u8; 4], data: &[u8]| {
            let mut bytes = (data.len() as u32).to_be_bytes().to_vec();
            bytes.extend(name);
            bytes.extend(data);
            bytes.extend(crc32fast::hash(&bytes[4..]).to_be_bytes());
            bytes
        };
        let sound = png(png::ColorType::Indexed, png::BitDepth::One, true, &[0b0100_0000]);
        let start = sound.windows(4).position(|w| w == b"PLTE").unwrap() - 4;
        let end = sound.windows(4).position(|w| w == b"IDAT").unwrap() - 4;
        for (colors, alpha) in [(7, 2), (8, 1), (1, 1), (6, 3), (6, 300), (771, 0), (0, 0)] {
            let middle = [chunk(b"PLTE", &vec![9; colors]), chunk(b"tRNS", &vec![9; alpha])].concat();
            let file = file(&[&sound[..start], &middle, &sound[end..]].concat());
            // Transparency that makes no sense may be left out by the decoder; parts of colours are damage.
            match picture(file.path()) {
                Ok(read) => {
                    assert!(colors % 3 == 0 && (read.width, read.height) == (2, 1), "{colors}, {alpha}")
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::File, "{colors}, {alpha}: {error}"),
            }
        }
    }

    /// Four flat quarters, so that little is lost by compression: red, green, blue, white.
    fn quarters() -> DynamicImage {
        let color =
            |x: u32, y: u32| [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255; 3]][(x / 16 + y / 8 * 2) as usize];
        DynamicImage::ImageRgb8(image::RgbImage::from_fn(32, 16, |x, y| image::Rgb(color(x, y))))
    }

    fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn photographs_are_read_the_right_way_up() {
        let jpeg = encoded(&quarters(), ImageFormat::Jpeg);
        // EXIF: big-endian, one entry, 0x0112 (orientation), a short.
        let turned = |orientation: u8| {
            let tiff =
                [b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0", &[orientation][..], &[0; 6]];
            let data = tiff.concat();
            let segment = [&[0xff, 0xe1], &(data.len() as u16 + 2).to_be_bytes()[..], &data].concat();
            [&jpeg[..2], &segment, &jpeg[2..]].concat()
        };
        let corners = |bytes: &[u8]| {
            let read = picture(file(bytes).path()).unwrap();
            let at = |x: usize, y: usize| {
                let start = (y * read.width + x) * 3;
                let bright = |i: usize| usize::from(read.rgb[start + i] > 128);
                ["black", "b", "g", "", "red", "", "", "white"][bright(0) * 4 + bright(1) * 2 + bright(2)]
            };
            let (right, below) = (read.width - 4, read.height - 4);
            ((read.width, read.height), [at(3, 3), at(right, 3), at(3, below), at(right, below)])
        };
        assert_eq!(corners(&jpeg), ((32, 16), ["red", "g", "b", "white"]));
        assert_eq!(corners(&turned(1)), ((32, 16), ["red", "g", "b", "white"]));
        assert_eq!(corners(&turned(3)), ((32, 16), ["white", "b", "g", "red"]));
        assert_eq!(corners(&turned(6)), ((16, 32), ["b", "red", "white", "g"]), "held with its left side up");
    }

    #[test]
    fn pngs_are_turned_too_and_a_transparent_colour_is_no_alpha() {
        let encoded = |exif: bool, trns: bool| {
            let mut bytes = Vec::new();
            let mut info = png::Info::with_size(2, 1);
            info.color_type = png::ColorType::Rgb;
            info.exif_metadata =
                exif.then(|| b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"[..].into());
            info.trns = trns.then(|| b"\0\x01\0\x02\0\x03"[..].into());
            let encoder = png::Encoder::with_info(&mut bytes, info).unwrap();
            encoder.write_header().unwrap().write_image_data(&[1, 2, 3, 4, 5, 6]).unwrap();
            file(&bytes)
        };
        let turned = picture(encoded(true, false).path()).unwrap();
        assert_eq!((turned.width, turned.height, turned.rgb), (1, 2, vec![1, 2, 3, 4, 5, 6]));
        let keyed = rgba(encoded(false, true).path()).unwrap();
        assert!(!keyed.has_alpha && keyed.rgba == [1, 2, 3, 0, 4, 5, 6, 255]);
    }

    #[test]
    fn webp_keeps_its_alpha_and_grey_jpegs_are_grey() {
        let mut clear = quarters().into_rgba8();
        clear.pixels_mut().enumerate().for_each(|(i, p)| p.0[3] = (i % 256) as u8);
        let webp = file(&encoded(&DynamicImage::ImageRgba8(clear.clone()), ImageFormat::WebP));
        let read = rgba(webp.path()).unwrap();
        assert_eq!((read.width, read.height, read.has_alpha), (32, 16, true));
        assert_eq!(read.rgba, clear.into_raw());
        let weights = mask(webp.path()).unwrap();
        assert_eq!(weights.size(), Size::new(32, 16));
        let opaque = rgba(file(&encoded(&quarters(), ImageFormat::WebP)).path()).unwrap();
        assert!(!opaque.has_alpha && opaque.rgba.iter().skip(3).step_by(4).all(|a| *a == 255));
        let grey = DynamicImage::ImageLuma8(image::GrayImage::from_pixel(9, 7, image::Luma([77])));
        let read = picture(file(&encoded(&grey, ImageFormat::Jpeg)).path()).unwrap();
        assert_eq!((read.width, read.height), (9, 7));
        assert!(read.rgb.iter().all(|v| v.abs_diff(77) <= 1));
    }

    #[test]
    fn other_files_are_refused_by_name() {
        let sound = png(png::ColorType::Rgb, png::BitDepth::Eight, false, &[1, 2, 3, 4, 5, 6]);
        let mut wide = sound.clone();
        // Width 2 becomes 2^24 + 2; the checksum that no longer fits must not hide it or crash.
        wide[16] = 1;
        let cases: [(&[u8], &str); 7] = [
            (b"", "empty"),
            (b"\xff\xd8\xff\xe0 JFIF", "JPEG is damaged"),
            (b"RIFF\0\0\0\0WEBPVP8 ", "WebP is damaged"),
            (b"GIF89a", "GIF"),
            (b"\x89PNG\r\n\x1a\n", "damaged"),
            (&sound[..sound.len() - 20], "damaged"),
            (&wide, "PNG"),
        ];
        for (bytes, word) in cases {
            let file = file(bytes);
            for error in [picture(file.path()).unwrap_err(), mask(file.path()).unwrap_err()] {
                assert_eq!(error.kind(), ErrorKind::File);
                assert!(error.to_string().contains(word), "{error}");
            }
        }
        let none = picture(Path::new("no such picture.png")).unwrap_err();
        assert_eq!(none.kind(), ErrorKind::File);
    }
}
