//! Latents and pictures of known sizes, refused where they would not fit the memory.

use super::known::{Known, KnownInputs, KnownLatents};
use crate::Result;
use crate::families::LATENT_CHANNELS;
use crate::latent::Latent;
use crate::latent::resize::{self, Method};
use crate::workflow::run::context::room;

/// A node's one output where it is latents of this size, `[batch, height, width]` in cells; none where that is not
/// known.
///
/// # Errors
/// [`ErrorKind::Memory`](crate::ErrorKind::Memory), as the run would.
pub(crate) fn latents(size: Option<[usize; 3]>, masked: bool) -> Result<Vec<Known>> {
    let Some(size @ [n, h, w]) = size else { return Ok(Vec::new()) };
    room("the batch", &[n, LATENT_CHANNELS, h, w])?;
    Ok(vec![Known::Latent(KnownLatents { size, masked })])
}

/// The same of pictures, `[batch, height, width]` in pixels.
///
/// # Errors
/// As [`latents`].
pub(crate) fn images(size: Option<[usize; 3]>) -> Result<Vec<Known>> {
    let Some(size @ [n, h, w]) = size else { return Ok(Vec::new()) };
    room("the batch of pictures", &[n, h, w, 3])?;
    Ok(vec![Known::Image(size)])
}

/// The size that a node's own inputs name, `[batch, height, width]`.
pub(crate) fn named(inputs: &KnownInputs<'_>) -> Option<[usize; 3]> {
    let size = |name: &str| inputs.args.size(name).ok();
    Some([size("batch_size")?, size("height")?, size("width")?])
}

/// A batch at the size that `to` makes of its height and width; None there leaves it.
///
/// # Errors
/// Those of a size of nothing.
pub(crate) fn scaled(
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
