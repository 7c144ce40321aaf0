//! Whatever bytes are passed as a picture: pixels of the size that it tells, texts that are a workflow or
//! settings, or errors. As a PNG they come without its signature, and its checksums are not looked at (the
//! `png` crate has a switch for fuzzing); what is a JPEG or a WebP says so itself.
#![no_main]

use std::io::Cursor;

use image::ImageReader;
use libfuzzer_sys::fuzz_target;
use sagittal::internals::image::infotext::Infotext;
use sagittal::internals::image::{read, settings, texts};
use sagittal::workflow::Workflow;

fuzz_target!(|data: &[u8]| {
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    file.extend(data);
    let _ = Workflow::parse("fuzz", &file);
    for bytes in [&file[..], data] {
        let all = texts::texts(bytes).unwrap_or_default();
        settings::made(&all);
        for (_, text) in all {
            Infotext::parse(&text);
        }
    }
    pixels(file);
    // A photograph that ends early is drawn to its end, which takes as long as its sides say.
    let reader = ImageReader::new(Cursor::new(data)).with_guessed_format().expect("bytes in memory");
    if reader.into_dimensions().is_ok_and(|(width, height)| u64::from(width) * u64::from(height) < 1 << 18) {
        pixels(data.to_vec());
    }
});

fn pixels(file: Vec<u8>) {
    if let Ok(picture) = read::rgba_of("fuzz", file) {
        assert_eq!(picture.rgba.len(), picture.width * picture.height * 4);
    }
}
