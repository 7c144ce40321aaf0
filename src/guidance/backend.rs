//! The operations of guidance that are more than sums of latents: predictions of rows, rescaled guidance, and the
//! mask and blur of SAG. There is one implementation on the host and one on the device.

use super::{Columns, Entry};
use crate::Result;
use crate::graph::Perturbation;
use crate::latent::value::Slot;
use crate::latent::{Latents, Value};

/// Rows whose predictions are averaged: some entries of the conditioning, each for every image of the batch.
#[derive(Debug, Clone, Copy)]
pub struct Group<'e> {
    /// In canonical order. The prediction of an empty list is 0.
    pub entries: &'e [&'e Entry],
    /// Whether the column sums of the middle block's self-attention are recorded.
    pub record: bool,
    /// How the self-attention of the middle block is perturbed.
    pub perturbation: Perturbation,
}

/// The prediction for a [`Group`].
#[derive(Debug, Clone)]
pub struct GroupPrediction {
    /// The mean over the entries by their weights; stored.
    pub denoised: Value,
    /// The attention, if it was recorded.
    pub attention: Option<Attention>,
}

/// The column sums of a group's rows.
#[derive(Debug, Clone)]
pub struct Attention {
    /// Where they are stored, entry by entry, image by image.
    pub slot: Slot,
    /// Height and width of the map of each entry, positions.
    pub maps: Vec<(usize, usize)>,
}

/// A mask of SAG, `[batch, height, width]`: 1 where the prediction is blurred.
#[derive(Debug, Clone)]
pub struct Mask(pub Slot);

/// How SAG blurs a prediction.
#[derive(Debug, Clone, Copy)]
pub struct Degrade<'a> {
    /// The recorded group's entries.
    pub entries: &'a [&'a Entry],
    /// Standard deviation of the blur, latent cells.
    pub blur_sigma: f32,
    /// Cells whose score is above this are blurred.
    pub threshold: f32,
    /// A mask to use instead of the scores, `[batch, height, width]`.
    pub mask: Option<&'a [u8]>,
}

/// The blurred prediction of SAG, from which the input of its additional row is made.
#[derive(Debug, Clone)]
pub struct Degraded {
    /// Where the prediction is blurred.
    pub mask: Mask,
    /// The prediction with those parts blurred.
    pub degraded: Value,
    /// The same under the noise of the step, `degraded + x - prediction`.
    pub input: Value,
}

/// The operations of guidance. Those on the host are the reference for those on the device.
pub trait Backend: Latents {
    /// The predictions for `x`, which is stored, one for each of `groups`. The result of a row depends on that row
    /// alone.
    ///
    /// # Errors
    /// Any error of the network.
    fn predict(&mut self, x: &Value, sigma: f32, groups: &[Group<'_>]) -> Result<Vec<GroupPrediction>>;

    /// Rescaled classifier-free guidance; see [`Guidance::rescale`](super::Guidance::rescale). `sides` are the
    /// predictions with the prompt and with the negative prompt; the last argument is the CFG scale and the share of
    /// contrast that is removed.
    ///
    /// # Errors
    /// As [`Latents::store`].
    fn rescale(
        &mut self,
        sides: (&Value, &Value),
        x: &Value,
        sigma: f32,
        scale_and_share: (f32, f32),
    ) -> Result<Value>;

    /// Blurs `base`, the prediction for `x` of the group whose attention is `attention`, as SAG does.
    ///
    /// # Errors
    /// As [`Latents::store`].
    fn degrade(
        &mut self,
        attention: &Attention,
        base: &Value,
        x: &Value,
        how: &Degrade<'_>,
    ) -> Result<Degraded>;

    /// Reads the column sums of `images` images, entry by entry, image by image.
    ///
    /// # Errors
    /// As [`Latents::read`].
    fn read_attention(&mut self, attention: &Attention, images: usize) -> Result<Vec<Columns>>;

    /// Reads a mask.
    ///
    /// # Errors
    /// As [`Latents::read`].
    fn read_mask(&mut self, mask: &Mask) -> Result<Vec<u8>>;
}
