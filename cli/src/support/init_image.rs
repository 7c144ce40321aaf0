//! `-i`, `--strength` and `--mask`: the picture that a run starts from, in the size it is drawn in.

use sagittal::Size;
use sagittal::image::{Mask, Picture, read, resize};
use sagittal::internals::families::LATENT_CELL;
use sagittal::{Latent, Request, Result, pipeline};

use crate::support::args::Args;

/// A1111's and stable-diffusion.cpp's usual strength.
const STRENGTH: f64 = 0.75;

/// What image to image starts from.
pub struct Start {
    picture: Picture,
    mask: Option<Latent>,
    strength: f64,
    scaled: bool,
}

impl Start {
    /// Reads the files that the flags name; None without `-i`.
    ///
    /// # Errors
    /// [`ErrorKind::File`](sagittal::ErrorKind::File) if one of them is not a valid picture.
    pub fn read(args: &Args) -> Result<Option<Self>> {
        let Some(path) = &args.init_img else { return Ok(None) };
        let whole = read::picture(path)?;
        let (width, height) = size(args, &whole);
        // Before memory is allocated for it.
        Request::new("", Size::new(width, height)).check()?;
        // Without -W and -H nothing is scaled, so the picture is not softened.
        let cut = args.width.or(args.height).is_none();
        let mask = match &args.mask {
            Some(path) => {
                let mut mask = read::mask(path)?;
                if cut && mask.size() == Size::new(whole.width, whole.height) {
                    mask = mask.centre(Size::new(width, height));
                }
                Some(latent_mask(&mask, (width, height)))
            }
            None => None,
        };
        let scaled = !cut && (whole.width, whole.height) != (width, height);
        let picture = if cut { resize::centre(&whole, width, height)? } else { whole };
        Ok(Some(Self {
            // A side below 8 pixels is scaled in any case.
            picture: resize::lanczos(&picture, width, height)?,
            mask,
            strength: args.strength.unwrap_or(STRENGTH),
            scaled,
        }))
    }

    /// Width and height in pixels.
    pub fn size(&self) -> (usize, usize) {
        (self.picture.width, self.picture.height)
    }

    /// Whether it was scaled to its size, not cropped.
    pub fn scaled(&self) -> bool {
        self.scaled
    }

    /// Sets what `request` starts from.
    pub fn put_into(self, request: &mut Request) {
        request.schedule.denoise = self.strength;
        request.mask = self.mask;
        request.start = Some(pipeline::Start::Picture(self.picture));
    }
}

fn latent_mask(mask: &Mask, (width, height): (usize, usize)) -> Latent {
    mask.to_latent(Size::new(width / LATENT_CELL, height / LATENT_CELL))
}

/// The width and height to draw: those of the flags, where a missing side keeps the aspect ratio; without flags
/// the picture's own size, rounded down to latent cells.
fn size(args: &Args, picture: &Picture) -> (usize, usize) {
    let (own_width, own_height) = (picture.width, picture.height);
    let whole = |side: usize| (side / LATENT_CELL * LATENT_CELL).max(LATENT_CELL);
    // Rounded to the nearest whole cell.
    let beside = |given: usize, side: usize, other: usize| {
        let cells = given as f64 * side as f64 / other as f64 / LATENT_CELL as f64;
        (cells.round() as usize * LATENT_CELL).max(LATENT_CELL)
    };
    match (args.width, args.height) {
        (Some(width), Some(height)) => (width, height),
        (Some(width), None) => (width, beside(width, own_height, own_width)),
        (None, Some(height)) => (beside(height, own_width, own_height), height),
        (None, None) => (whole(own_width), whole(own_height)),
    }
}
