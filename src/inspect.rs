//! What is in a file: a model, a LoRA, an embedding, a picture, a latent. Headers and text chunks are
//! looked at, weights are not.
//!
//! ```no_run
//! use sagittal::inspect::{Inspected, inspect};
//! if let Inspected::Picture(picture) = inspect("out.png")? {
//!     let seed = picture.settings.as_ref().and_then(|s| s.get("Seed"));
//!     println!("{}x{}, seed {seed:?}", picture.width, picture.height);
//! }
//! # Ok::<(), sagittal::Error>(())
//! ```

mod facts;
mod model;
mod picture;

use std::fs::File;
use std::io::Read;
use std::path::Path;

pub use facts::{EmbeddingFacts, Inspected, LatentFacts, LoraFacts, ModelFacts, Part, Spread, Tally};
pub use picture::{NodeFacts, PictureFacts, WorkflowFacts};

use crate::checkpoint::Checkpoint;
use crate::latent::{self, Latent};
use crate::{Error, ErrorKind, Result};

/// Looks at the file or folder at `path`.
///
/// # Errors
/// [`ErrorKind::File`] if it cannot be read or is damaged; [`ErrorKind::Model`] if it is sound, but
/// nothing that is known here; both say what it seems to be.
pub fn inspect(path: impl AsRef<Path>) -> Result<Inspected> {
    let path = path.as_ref();
    if path.is_dir() {
        return model::inspect(path);
    }
    let head = head(path)?;
    let a_picture = |path| picture(path).map(|facts| Inspected::Picture(Box::new(facts)));
    match head.as_slice() {
        // GIF too: the reader of pictures says best what to do with it.
        [0x89, b'P', b'N', b'G', ..] | [0xff, 0xd8, 0xff, ..] | [b'G', b'I', b'F', b'8', ..] => {
            a_picture(path)
        }
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => a_picture(path),
        head if latent::file::is_one(head) => latents(path),
        _ => model::inspect(path),
    }
}

/// Looks at a checkpoint that is open already.
///
/// # Errors
/// As [`inspect`], if it holds no network known here.
pub fn checkpoint(checkpoint: Checkpoint) -> Result<Inspected> {
    model::of_checkpoint(checkpoint)
}

/// Looks at the PNG, JPEG or WebP at `path`.
///
/// # Errors
/// [`ErrorKind::File`] if it is none, saying what it seems to be, or is damaged.
pub fn picture(path: impl AsRef<Path>) -> Result<PictureFacts> {
    picture::inspect(path.as_ref())
}

/// The beginning of a file.
fn head(path: &Path) -> Result<Vec<u8>> {
    let cannot = |e| Error::io(path, "the file cannot be read", e);
    // Opening a pipe would wait for a writer for ever.
    if !std::fs::metadata(path).map_err(cannot)?.is_file() {
        return Err(Error::new(ErrorKind::File, "not a regular file").file(path));
    }
    let mut head = Vec::new();
    File::open(path).map_err(cannot)?.take(1 << 16).read_to_end(&mut head).map_err(cannot)?;
    Ok(head)
}

fn latents(path: &Path) -> Result<Inspected> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, "the latent cannot be read", e))?;
    let latent = latent::file::decode(&bytes).map_err(|e| e.file(path))?;
    let channels = (0..latent.shape()[1]).map(|channel| spread(&latent, channel)).collect();
    Ok(Inspected::Latent(LatentFacts { shape: latent.shape(), channels, texts: latent::file::texts(&bytes) }))
}

fn spread(latent: &Latent, channel: usize) -> Spread {
    let plane = latent.height() * latent.width();
    let values = || {
        (0..latent.batch()).flat_map(|image| latent.image(image)[channel * plane..][..plane].iter().copied())
    };
    let count = (latent.batch() * plane) as f64;
    let mean = values().map(f64::from).sum::<f64>() / count;
    let variance = values().map(|v| (f64::from(v) - mean).powi(2)).sum::<f64>() / count;
    Spread {
        least: values().fold(f32::INFINITY, f32::min),
        most: values().fold(f32::NEG_INFINITY, f32::max),
        mean,
        deviation: variance.sqrt(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::VaeLatent;

    #[test]
    fn latents_are_told_with_their_spread() {
        let latent = Latent::from_vec([2, 1, 1, 2], vec![1.0, 3.0, 1.0, 3.0]).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            latent::file::encode(&VaeLatent::new(latent), &[("parameters", "a fox")]).unwrap(),
        )
        .unwrap();
        let Inspected::Latent(facts) = inspect(file.path()).unwrap() else { panic!("a latent") };
        let spread = Spread { least: 1.0, most: 3.0, mean: 2.0, deviation: 1.0 };
        assert_eq!((facts.shape, facts.channels), ([2, 1, 1, 2], vec![spread]));
        assert_eq!(facts.texts["parameters"], "a fox");
    }
}
