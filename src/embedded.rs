//! The checkpoint inside the binary: tiny-emoji, 15 million parameters, 256×256 pictures of emoji.

use crate::checkpoint::Checkpoint;
use crate::{Error, ErrorKind, Remedy, Resource, Result};

/// Its native width and height in pixels.
pub const SIZE: usize = 256;

/// The CFG scale that suits it.
pub const CFG: f32 = 3.5;

/// The name it has in messages.
pub const NAME: &str = "tiny-emoji (embedded)";

#[cfg(all(feature = "embedded-model", model_present))]
const BYTES: Option<&[u8]> = Some(include_bytes!("../models/tiny-emoji/tiny-emoji.safetensors"));
#[cfg(not(all(feature = "embedded-model", model_present)))]
const BYTES: Option<&[u8]> = None;

/// The embedded checkpoint.
///
/// # Errors
/// [`ErrorKind::File`] in a build without it.
pub fn checkpoint() -> Result<Checkpoint> {
    let bytes = BYTES.ok_or_else(|| {
        Error::new(ErrorKind::File, "this build has no embedded model")
            .remedy(Remedy::Pass(Resource::Checkpoint))
            .hint("build from the repository with the feature `embedded-model`")
    })?;
    Checkpoint::from_bytes(NAME, bytes)
}

/// Whether this build has it.
pub fn is_there() -> bool {
    BYTES.is_some()
}

/// The SHA-256 of the embedded checkpoint's file in hexadecimal; None in a build without it.
pub fn digest() -> Option<String> {
    BYTES.map(crate::checkpoint::digest::bytes)
}
