//! What guidance asks of an implementation beside the arithmetic of latents: predictions of rows, and the
//! operations that are no sums.

use super::{Columns, Entry};
use crate::Result;
use crate::graph::Perturbation;
use crate::latent::value::Slot;
use crate::latent::{Latents, Value};

/// Rows that are predicted together and averaged: each of some entries for every picture.
#[derive(Debug, Clone, Copy)]
pub struct Group<'e> {
    /// In canonical order. None predicts 0.
    pub entries: &'e [&'e Entry],
    /// Whether the column sums of the middle block's self-attention are wanted.
    pub record: bool,
    /// What is done to the self-attentions of the middle block.
    pub perturbation: Perturbation,
}

/// What is predicted for a [`Group`].
#[derive(Debug, Clone)]
pub struct GroupPrediction {
    /// The mean over the entries, by their weights; it is stored.
    pub denoised: Value,
    /// The attention, if it was recorded.
    pub attention: Option<Attention>,
}

/// The column sums of a group's rows.
#[derive(Debug, Clone)]
pub struct Attention {
    /// Where they are held, entry by entry, picture by picture.
    pub slot: Slot,
    /// Height and width of the map of each entry.
    pub maps: Vec<(usize, usize)>,
}

/// A mask of SAG, `[batch, height, width]`.
#[derive(Debug, Clone)]
pub struct Mask(pub Slot);

/// How SAG degrades a prediction.
#[derive(Debug, Clone, Copy)]
pub struct Degrade<'a> {
    /// The recorded group's entries.
    pub entries: &'a [&'a Entry],
    /// Standard deviation of the blur, latent cells.
    pub blur_sigma: f32,
    /// Cells whose score is above this are blurred.
    pub threshold: f32,
    /// A mask to take instead, `[batch, height, width]`.
    pub mask: Option<&'a [u8]>,
}

/// What SAG's third row is made from.
#[derive(Debug, Clone)]
pub struct Degraded {
    /// Where the prediction is blurred.
    pub mask: Mask,
    /// The prediction with those parts blurred.
    pub degraded: Value,
    /// The same under the noise of the step, `degraded + x - prediction`.
    pub input: Value,
}

/// The operations of guidance. The host's are the reference for the device's.
pub trait Backend: Latents {
    /// The predictions for `x`, which is stored, of all rows of `groups`. Each row's depends on that row alone.
    ///
    /// # Errors
    /// Whatever stops the network.
    fn predict(&mut self, x: &Value, sigma: f32, groups: &[Group<'_>]) -> Result<Vec<GroupPrediction>>;

    /// Classifier-free guidance with part of its contrast taken back; see
    /// [`Guidance::rescale`](super::Guidance::rescale). The sides are those with and without the prompt.
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

    /// SAG's degradation of `base`, the prediction of the group whose attention is `attention`, for `x`.
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

    /// Reads column sums of `images` pictures, entry by entry, picture by picture.
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
