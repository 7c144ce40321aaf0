//! The checkpoint inside the binary, with the feature `embedded-model`: tiny-emoji, 15 million parameters, 256×256
//! pictures of emoji.

use crate::checkpoint::Checkpoint;
use crate::families::{Family, PreviewFactors};
use crate::{Error, ErrorKind, Remedy, Resource, Result};

/// Its native width and height in pixels, the only size that it was trained for: smaller pictures are blobs.
pub const SIZE: usize = 256;

/// The CFG scale that suits it.
pub const CFG: f32 = 3.5;

/// What its file's header calls it, by which a copy of the file is known too.
#[doc(hidden)]
pub const TITLE: &str = "tiny-emoji";

/// The colours of a latent's channels: its autoencoder is its own. Fitted by `examples/fit_preview.rs`.
#[doc(hidden)]
pub const PREVIEW: PreviewFactors = [
    [-0.1267, -0.2464, 0.2135],
    [-0.4590, 0.3540, -0.0003],
    [0.0019, 0.0075, 0.3054],
    [-0.7488, -0.1473, -0.3515],
    [0.5730, 0.4543, 0.3453],
];

/// The preview factors for `model`: those of its family's autoencoder, but for a file whose header has the
/// [title](TITLE) of the embedded model, which has an autoencoder of its own.
#[doc(hidden)]
pub fn preview_factors(model: &Checkpoint, family: Family) -> PreviewFactors {
    match model.metadata().get("title") {
        Some(title) if title == TITLE => PREVIEW,
        _ => family.facts().preview,
    }
}

/// The name it has in messages.
#[doc(hidden)]
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
#[doc(hidden)]
pub fn digest() -> Option<String> {
    BYTES.map(crate::checkpoint::digest::bytes)
}
