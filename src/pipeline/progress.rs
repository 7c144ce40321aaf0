//! What a run reports while it works.

use std::sync::Arc;

use crate::guidance::Evaluation;
use crate::image::Picture;

/// An event of a run. It owns its data: an app may store it or send it to another thread.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Progress {
    /// Weights are uploaded to the device.
    Loading {
        /// Name of the network.
        part: &'static str,
    },
    /// Prompts go through the text encoder.
    Encoding,
    /// The picture to start from goes through the VAE's encoder.
    EncodingPicture,
    /// A step of the sampling is done; step 0 comes before the first one. On a device later steps may already be
    /// running by then.
    Sampling {
        /// From 0, which is the noise, to `total`.
        step: usize,
        /// Number of steps.
        total: usize,
        /// Noise level of the step.
        sigma: f32,
        /// A small picture of what the step predicts for the first picture, one pixel per latent cell, if
        /// [`Request::preview_every`](crate::Request::preview_every) is set.
        preview: Option<Picture>,
    },
    /// The network was evaluated under guidance; reported if [`Request::evaluations`](crate::Request::evaluations) is
    /// set. Samplers of a higher order evaluate several times per step, before the step's event.
    Evaluated {
        /// Noise level σ; `model.diffusion_model().discrete().timestep(sigma)` is its timestep.
        sigma: f32,
        /// The result with all intermediate latents, in the UNet's scale.
        evaluation: Arc<Evaluation>,
        /// A small picture of the result, as that of [`Sampling`](Self::Sampling).
        preview: Picture,
    },
    /// The autoencoder works in overlapping tiles, because the picture does not fit the memory in one piece.
    Tiles {
        /// `"encoder"` or `"decoder"`.
        part: &'static str,
        /// Number of tiles.
        tiles: usize,
        /// Side of a tile in latent cells.
        side: usize,
    },
    /// A picture goes through the VAE's decoder.
    Decoding {
        /// From 0.
        picture: usize,
        /// Number of pictures.
        total: usize,
    },
    /// A picture was not finite in f16 and goes through the VAE's decoder again, in f32.
    DecodingAgain {
        /// From 0.
        picture: usize,
    },
}
