//! Whether the networks of a workflow fit the device's memory, by the planner's arithmetic: nothing is loaded.

use super::super::graph::Node;
use super::super::nodes::images;
use super::super::run::{Options, named};
use super::{Known, Latents, Sampling, Seen};
use crate::families::LATENT_CELL;
use crate::guidance::Guidance;
use crate::pipeline::{Autoencoder, Wish};
use crate::{Error, ErrorKind, Remedy, Result};

/// Of the errors about memory the one that needs the most of it: with so much there is none.
#[derive(Default)]
pub(super) struct Largest(Option<(u64, Error)>);

impl Largest {
    pub fn add(&mut self, node: &Node, error: Error) {
        let needs = error.remedies().iter().find_map(|remedy| match remedy {
            Remedy::RaiseMemoryLimit(bytes) => *bytes,
            _ => None,
        });
        // What no memory helps against comes first.
        let needs = needs.unwrap_or(u64::MAX);
        if self.0.as_ref().is_none_or(|(most, _)| needs > *most) {
            self.0 = Some((needs, named(node, error)));
        }
    }

    /// # Errors
    /// That one, if there was any.
    pub fn refused(self) -> Result<()> {
        self.0.map_or(Ok(()), |(_, error)| Err(error))
    }
}

/// What of a step does not fit, as far as its networks and sizes are known.
///
/// # Errors
/// [`ErrorKind::Memory`] with how much would do.
pub(super) fn look(seen: &Seen<'_>, options: &Options) -> Result<()> {
    let looked = match seen.step.class.name {
        "CLIPTextEncode" | "CLIPTextEncodeSDXL" => match seen.clip().and_then(|clip| clip.text.as_ref()) {
            Some(text) => text.fits(options.limits.memory),
            None => Ok(()),
        },
        "VAEDecode" => decoded(seen, None, options),
        "VAEDecodeTiled" => decoded(seen, tile(seen), options),
        "VAEEncode" | "VAEEncodeForInpaint" => encoded(seen, None, options),
        "VAEEncodeTiled" => encoded(seen, tile(seen), options),
        _ => match seen.sampling() {
            Ok(Some(sampling)) => sampled(&sampling, options),
            _ => Ok(()),
        },
    };
    match looked {
        Err(e) if e.kind() != ErrorKind::Memory => Ok(()),
        looked => looked,
    }
}

fn sampled(sampling: &Sampling, options: &Options) -> Result<()> {
    let Sampling { guider, solver, sigmas, latents } = sampling;
    let (Some(diffusion), Some(Latents { size: [batch, height, width], masked })) =
        (&guider.model.diffusion, *latents)
    else {
        return Ok(());
    };
    let Some(steps) = sigmas.len().checked_sub(1) else { return Ok(()) };
    diffusion.fits(&Wish {
        conditioning: &guider.conditioning((height, width)),
        shape: [batch, guider.model.config.unet.out_channels, height, width],
        guidance: &Guidance { cfg: guider.cfg, ..guider.model.guidance.clone() },
        solver: *solver,
        steps,
        masked,
        limits: options.limits,
    })
}

/// The side of the tiles that a node tells, pixels.
fn tile(seen: &Seen<'_>) -> Option<usize> {
    seen.args.size(images::TILE_SIZE).ok()
}

fn vae(seen: &Seen<'_>, tile: Option<usize>) -> Option<Autoencoder> {
    let Some(Known::Vae(vae)) = seen.input("vae") else { return None };
    Some(match tile {
        Some(pixels) => images::with_tiles(vae, pixels),
        None => vae.clone(),
    })
}

fn decoded(seen: &Seen<'_>, tile: Option<usize>, options: &Options) -> Result<()> {
    match (vae(seen, tile), seen.input("samples")) {
        (Some(vae), Some(Known::Latent(Latents { size: [_, height, width], .. }))) => {
            vae.fits_decoder((*height, *width), options.limits.memory)
        }
        _ => Ok(()),
    }
}

fn encoded(seen: &Seen<'_>, tile: Option<usize>, options: &Options) -> Result<()> {
    match (vae(seen, tile), seen.input("pixels")) {
        (Some(vae), Some(Known::Image([_, height, width]))) => {
            vae.fits_encoder((height / LATENT_CELL, width / LATENT_CELL), options.limits.memory)
        }
        _ => Ok(()),
    }
}
