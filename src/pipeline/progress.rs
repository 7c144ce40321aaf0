//! What a run reports while it works.

use std::sync::Arc;

use crate::guidance::Evaluation;
use crate::image::Picture;

/// An event of a run. It is a value of its own: an app may keep it, or send it to another thread.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Progress {
    /// Weights are brought to the device.
    Loading {
        /// Of which network.
        part: &'static str,
    },
    /// Prompts go through the text encoder.
    Encoding,
    /// The picture to start from goes through the VAE's encoder.
    EncodingPicture,
    /// A step of the sampling is done; step 0 comes before the first one. On a device the next steps may be under
    /// way by then.
    Sampling {
        /// From 0, which is the noise, to `total`.
        step: usize,
        /// Number of steps.
        total: usize,
        /// Noise level of the step.
        sigma: f32,
        /// A small picture of what the step predicts for the first picture, one pixel a latent cell, where
        /// [`Request::preview_every`](crate::Request::preview_every) asks for it.
        preview: Option<Picture>,
    },
    /// The network was evaluated under guidance, where [`Request::evaluations`](crate::Request::evaluations) asks
    /// for it. Samplers of a higher order evaluate several times a step, before the step's own event.
    Evaluated {
        /// Noise level.
        sigma: f32,
        /// The result with all that led to it, in the UNet's scale.
        evaluation: Arc<Evaluation>,
        /// A small picture of the result, as that of [`Sampling`](Self::Sampling).
        preview: Picture,
    },
    /// The autoencoder works in overlapping tiles, because the picture does not fit the memory at once.
    Tiles {
        /// `"encoder"` or `"decoder"`.
        part: &'static str,
        /// How many.
        tiles: usize,
        /// Latent cells of a side.
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
