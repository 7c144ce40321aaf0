//! Pictures into and out of a model.

use std::sync::atomic::AtomicBool;

use super::model::Model;
use super::progress::Progress;
use super::request::{Request, Start};
use crate::image::Picture;
use crate::latent::{Latent, VaeLatent};
use crate::{Result, Size};

impl Model {
    /// Turns latents into pictures, one at a time. A decoder whose f16
    /// activations overflow is run again in f32, which is reported to `observe`.
    ///
    /// # Errors
    /// [`ErrorKind::NonFinite`](crate::ErrorKind::NonFinite) if a picture is not finite in f32 either.
    pub fn decode(
        &self,
        latent: &VaeLatent,
        observe: &mut dyn FnMut(Progress),
        cancel: &AtomicBool,
    ) -> Result<Vec<Picture>> {
        self.decode_within(None, latent, observe, cancel)
    }

    /// The same in at most `limit` bytes of device memory, all weights of the model counted: in
    /// tiles if necessary, which is reported to `observe`, too.
    ///
    /// # Errors
    /// As [`decode`](Self::decode); [`ErrorKind::Memory`](crate::ErrorKind::Memory) if the smallest
    /// tile does not fit.
    #[doc(hidden)]
    pub fn decode_within(
        &self,
        limit: Option<u64>,
        latent: &VaeLatent,
        observe: &mut dyn FnMut(Progress),
        cancel: &AtomicBool,
    ) -> Result<Vec<Picture>> {
        let cell = self.vae.cell();
        let size = Size::new(latent.width() * cell, latent.height() * cell);
        let values = self.vae.decode(limit, latent, observe, cancel)?;
        values.iter().map(|v| Picture::from_decoded(size, v)).collect()
    }

    /// The VAE decoder's own result for one latent: `[8·height, 8·width, 3]`, about -1..1.
    #[doc(hidden)]
    pub fn decode_values(&self, z: &Latent, cancel: &AtomicBool) -> Result<Vec<f32>> {
        self.vae.decode_values(z, cancel)
    }

    /// The latent that `request` starts from.
    pub(super) fn start(
        &self,
        request: &Request,
        observe: &mut dyn FnMut(Progress),
        cancel: &AtomicBool,
    ) -> Result<Option<VaeLatent>> {
        match &request.start {
            None => Ok(None),
            Some(Start::Latent(latent)) => Ok(Some(latent.clone())),
            Some(Start::Picture(picture)) => {
                observe(Progress::EncodingPicture);
                self.encode_picture_within(request.limits.memory, picture, observe, cancel).map(Some)
            }
        }
    }

    /// The latent of a picture: see [`Autoencoder::encode`](super::Autoencoder::encode).
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if a side is no multiple of 8;
    /// [`ErrorKind::NonFinite`](crate::ErrorKind::NonFinite) if the latent is not finite in f32 either.
    pub fn encode_picture(&self, picture: &Picture, cancel: &AtomicBool) -> Result<VaeLatent> {
        self.encode_picture_within(None, picture, &mut |_| {}, cancel)
    }

    /// The same in at most `limit` bytes of device memory, in tiles if necessary.
    ///
    /// # Errors
    /// As [`encode_picture`](Self::encode_picture); [`ErrorKind::Memory`](crate::ErrorKind::Memory) if
    /// the smallest tile does not fit.
    #[doc(hidden)]
    pub fn encode_picture_within(
        &self,
        limit: Option<u64>,
        picture: &Picture,
        observe: &mut dyn FnMut(Progress),
        cancel: &AtomicBool,
    ) -> Result<VaeLatent> {
        self.vae.encode(
            limit,
            Size::new(picture.width, picture.height),
            &picture.to_values(),
            observe,
            cancel,
        )
    }

    /// The VAE encoder's mean for one picture `[height, width, 3]` in -1..1: a latent in the VAE's
    /// scale. Sides must be multiples of 8.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if the size or the number of values does not fit.
    #[doc(hidden)]
    pub fn encode_values(
        &self,
        height: usize,
        width: usize,
        values: &[f32],
        cancel: &AtomicBool,
    ) -> Result<Latent> {
        self.vae.encode_values(height, width, values, cancel)
    }
}
