//! Whatever bytes are passed as a PNG: pixels of the size that it tells, and texts that are a workflow,
//! or errors. Checksums are not looked at here (the `png` crate has a switch for fuzzing).
#![no_main]

use libfuzzer_sys::fuzz_target;
use sagittal::image::read;
use sagittal::workflow::Workflow;

fuzz_target!(|data: &[u8]| {
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    file.extend(data);
    let _ = Workflow::parse("fuzz", &file);
    if let Ok(picture) = read::rgba_of("fuzz", file) {
        assert_eq!(picture.rgba.len(), picture.width * picture.height * 4);
    }
    // Without the signature.
    let _ = read::rgba_of("fuzz", data.to_vec());
});
