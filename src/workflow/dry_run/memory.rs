//! Whether the networks of a workflow fit the device's memory, by the planner's arithmetic: nothing is loaded.

use super::known::{KnownLatents, KnownSampling};
use crate::guidance::Guidance;
use crate::pipeline::Workload;
use crate::workflow::graph::Node;
use crate::workflow::run::context::Options;
use crate::{Error, Remedy, Result};

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
            self.0 = Some((needs, node.wrap(error)));
        }
    }

    /// # Errors
    /// That one, if there was any.
    pub fn refused(self) -> Result<()> {
        self.0.map_or(Ok(()), |(_, error)| Err(error))
    }
}

/// Whether the network of a sampler fits, as far as it and the sizes are known.
///
/// # Errors
/// [`ErrorKind::Memory`](crate::ErrorKind::Memory) with how much would do.
pub(super) fn sampled(sampling: &KnownSampling, options: &Options) -> Result<()> {
    let KnownSampling { guider, solver, sigmas, latents } = sampling;
    let (Some(diffusion), Some(KnownLatents { size: [batch, height, width], masked })) =
        (&guider.model.diffusion, *latents)
    else {
        return Ok(());
    };
    let Some(steps) = sigmas.len().checked_sub(1) else { return Ok(()) };
    diffusion.fits(&Workload {
        conditioning: &guider.conditioning((height, width)),
        shape: [batch, guider.model.config.unet.out_channels, height, width],
        guidance: &Guidance { cfg: guider.cfg, ..guider.model.guidance.clone() },
        solver: *solver,
        steps,
        masked,
        limits: options.limits,
    })
}
