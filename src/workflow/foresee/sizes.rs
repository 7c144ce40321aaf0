//! Sizes of latents and pictures, as far as they are known before anything runs.

use super::super::files::Files;
use super::super::nodes::{images, latents, masks};
use super::super::run;
use super::{Known, Latents, Seen};
use crate::Result;
use crate::families::{LATENT_CELL, LATENT_CHANNELS};
use crate::latent::Latent;
use crate::latent::resize::{self, Method};

/// What is known of the outputs of nodes that make, change or read latents and pictures.
///
/// # Errors
/// Those of the node, as far as its sizes are known.
pub(super) fn outputs(seen: &Seen<'_>, files: &mut Files<'_>) -> Result<Vec<Known>> {
    let args = &seen.args;
    let size = |name: &str| args.size(name).ok();
    let latent = |name: &str| match seen.input(name) {
        Some(Known::Latent(latents)) => Some(latents.size),
        _ => None,
    };
    let image = |name: &str| match seen.input(name) {
        Some(Known::Image(size)) => Some(*size),
        _ => None,
    };
    let mut made = match seen.step.class.name {
        "EmptyLatentImage" => empty(size).map(|[n, h, w]| latent_of([n, h / LATENT_CELL, w / LATENT_CELL])),
        "LoadLatent" => match args.text("latent") {
            Ok(name) => {
                let [n, _, h, w] = files.latent(name)?.shape();
                Some(latent_of([n, h, w]))
            }
            Err(_) => None,
        },
        "LatentUpscale" => scaled(latent("samples"), |own| latents::upscaled(args, own))?.map(latent_of),
        "LatentUpscaleBy" => {
            scaled(latent("samples"), |own| latents::upscaled_by(args, own).map(Some))?.map(latent_of)
        }
        "RepeatLatentBatch" => {
            let repeated = latent("samples").zip(size("amount"));
            repeated.map(|([n, h, w], amount)| latent_of([n.saturating_mul(amount), h, w]))
        }
        "LatentFromBatch" => latent("samples").zip(size("batch_index").zip(size("length"))).map(
            |([n, h, w], (first, length))| {
                let first = first.min(n.saturating_sub(1));
                latent_of([length.min(n - first), h, w])
            },
        ),
        "LatentBatch" => latent("samples1")
            .zip(latent("samples2"))
            .map(|([a, h, w], [b, ..])| latent_of([a.saturating_add(b), h, w])),
        "SetLatentNoiseMask" => latent("samples").map(latent_of),
        "EmptyImage" => empty(size).map(image_of),
        "LoadImage" => match args.text("image") {
            Ok(name) => {
                let picture = files.picture(name)?;
                Some(Known::Image([1, picture.height, picture.width]))
            }
            Err(_) => None,
        },
        "VAEDecode" | "VAEDecodeTiled" => {
            let pixels = |cells: usize| cells.saturating_mul(LATENT_CELL);
            latent("samples").map(|[n, h, w]| image_of([n, pixels(h), pixels(w)]))
        }
        "VAEEncode" | "VAEEncodeTiled" | "VAEEncodeForInpaint" => match image("pixels") {
            Some([n, h, w]) => {
                images::encodable((h, w), LATENT_CELL)?;
                Some(latent_of([n, h / LATENT_CELL, w / LATENT_CELL]))
            }
            None => None,
        },
        "ImageScale" => scaled(image("image"), |own| images::scaled_to(args, own))?.map(image_of),
        "ImageScaleBy" => {
            scaled(image("image"), |own| latents::upscaled_by(args, own).map(Some))?.map(image_of)
        }
        "ImageInvert" => image("image").map(image_of),
        "ImageBatch" => image("image1")
            .zip(image("image2"))
            .map(|([a, h, w], [b, ..])| image_of([a.saturating_add(b), h, w])),
        "ImageToMask" => masks::channel(args).map(|_| None)?,
        _ => None,
    };
    if let Some(Known::Latent(latents)) = &mut made {
        latents.masked = is_masked(seen);
    }
    if let Some(known) = &made {
        room(known)?;
    }
    Ok(made.into_iter().collect())
}

fn latent_of(size: [usize; 3]) -> Known {
    Known::Latent(Latents { size, masked: false })
}

/// Whether the latents that a node gives have a mask: one that it puts on, or that of those it takes, where the
/// first of two counts.
fn is_masked(seen: &Seen<'_>) -> bool {
    match (seen.step.class.name, seen.input("samples").or(seen.input("samples1"))) {
        ("SetLatentNoiseMask" | "VAEEncodeForInpaint", _) => true,
        (_, Some(Known::Latent(latents))) => latents.masked,
        _ => false,
    }
}

fn image_of(size: [usize; 3]) -> Known {
    Known::Image(size)
}

fn empty(size: impl Fn(&str) -> Option<usize>) -> Option<[usize; 3]> {
    Some([size("batch_size")?, size("height")?, size("width")?])
}

/// A batch at the size that `to` makes of its height and width; None there leaves it.
fn scaled(
    of: Option<[usize; 3]>,
    to: impl Fn((usize, usize)) -> Result<Option<(usize, usize)>>,
) -> Result<Option<[usize; 3]>> {
    let Some([n, h, w]) = of else { return Ok(None) };
    // A factor that comes about in the run is not known yet.
    let Ok(to) = to((h, w)) else { return Ok(None) };
    let (height, width) = to.unwrap_or((h, w));
    if height.min(width) == 0 {
        resize::resized(&Latent::zeros(1, 1, h.min(1), w.min(1)), height, width, Method::NearestExact)?;
    }
    Ok(Some([n, height, width]))
}

/// Refuses what would not fit the memory, as the run would.
fn room(known: &Known) -> Result<()> {
    match known {
        Known::Latent(Latents { size: [n, h, w], .. }) => {
            run::room("the batch", &[*n, LATENT_CHANNELS, *h, *w])
        }
        Known::Image([n, h, w]) => run::room("the batch of pictures", &[*n, *h, *w, 3]),
        _ => Ok(()),
    }
}
