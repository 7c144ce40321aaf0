//! Latents to pictures and back.

use std::sync::atomic::AtomicBool;

use super::{Event, Model, Request, Start};
use crate::image::Picture;
use crate::kernels::Precision;
use crate::latent::Latent;
use crate::model::vae;
use crate::{Error, ErrorKind, Result};

impl Model {
    /// Turns latents (in the VAE's scale) into pictures, one at a time. A decoder whose f16
    /// activations overflow is run again in f32, and `observe` hears of it.
    ///
    /// # Errors
    /// [`ErrorKind::NonFinite`] if a picture is not finite in f32 either.
    pub fn decode(
        &self,
        latent: &Latent,
        observe: &mut dyn FnMut(Event<'_>),
        cancel: &AtomicBool,
    ) -> Result<Vec<Picture>> {
        let cell = self.config.latent_cell();
        (0..latent.batch())
            .map(|picture| {
                observe(Event::Decoding { picture, total: latent.batch() });
                let z = latent.row(picture);
                let draw = |precision| {
                    let values = self.decode_in(precision, &z, cancel)?;
                    Picture::from_decoded(latent.height() * cell, latent.width() * cell, &values)
                };
                match draw(self.vae_precision) {
                    Err(e) if e.kind() == ErrorKind::NonFinite && self.vae_precision == Precision::F16 => {
                        observe(Event::DecodingAgain { picture });
                        draw(Precision::F32)
                    }
                    done => done,
                }
            })
            .collect()
    }

    /// The VAE decoder's own result for one latent: `[8·height, 8·width, 3]`, about -1..1.
    pub fn decode_values(&self, z: &Latent, cancel: &AtomicBool) -> Result<Vec<f32>> {
        self.decode_in(self.vae_precision, z, cancel)
    }

    fn decode_in(&self, precision: Precision, z: &Latent, cancel: &AtomicBool) -> Result<Vec<f32>> {
        let [batch, channels, height, width] = z.shape();
        if batch != 1 || channels != self.config.vae.latent_channels || height * width == 0 {
            return Err(Error::usage("the latent does not fit the autoencoder")
                .expected(format!("[1, {}, height, width]", self.config.vae.latent_channels))
                .found(format!("{:?}", z.shape())));
        }
        let graph = vae::decoder(&self.config.vae, height, width)?;
        let weights = self.parts.decoder(precision, || self.upload(graph.weights(), precision, cancel))?;
        self.run_once(&graph, &weights, precision, ("z", &to_positions(z.image(0), channels)), cancel)
    }

    /// The latent that `request` starts from.
    pub(super) fn start(
        &self,
        request: &Request,
        observe: &mut dyn FnMut(Event<'_>),
        cancel: &AtomicBool,
    ) -> Result<Option<Latent>> {
        match &request.start {
            None => Ok(None),
            Some(Start::Latent(latent)) => Ok(Some(latent.clone())),
            Some(Start::Picture(picture)) => {
                observe(Event::EncodingPicture);
                self.encode_picture(picture, cancel).map(Some)
            }
        }
    }

    /// The latent of a picture, in the VAE's scale. Of the distribution that the encoder gives the
    /// mean is taken, as in ComfyUI, and not a sample. An encoder that overflows f16 is run again in
    /// f32.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] if a side is no multiple of 8; [`ErrorKind::NonFinite`] if the latent is
    /// not finite in f32 either.
    pub fn encode_picture(&self, picture: &Picture, cancel: &AtomicBool) -> Result<Latent> {
        let (size, values) = ((picture.height, picture.width), picture.to_values());
        let mut latent = self.encode_in(self.vae_precision, size, &values, cancel)?;
        if !latent.is_finite() && self.vae_precision == Precision::F16 {
            log::warn!("the picture overflowed the encoder's f16: encoding it again in f32");
            latent = self.encode_in(Precision::F32, size, &values, cancel)?;
        }
        if latent.is_finite() {
            return Ok(latent);
        }
        Err(Error::new(ErrorKind::NonFinite, "the encoded picture is not finite"))
    }

    /// The VAE encoder's mean for one picture `[height, width, 3]` in -1..1: a latent in the VAE's
    /// scale. Sides must be multiples of 8.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] if the size or the number of values does not fit.
    pub fn encode_values(
        &self,
        height: usize,
        width: usize,
        values: &[f32],
        cancel: &AtomicBool,
    ) -> Result<Latent> {
        self.encode_in(self.vae_precision, (height, width), values, cancel)
    }

    fn encode_in(
        &self,
        precision: Precision,
        (height, width): (usize, usize),
        values: &[f32],
        cancel: &AtomicBool,
    ) -> Result<Latent> {
        let cell = self.config.latent_cell();
        let fits = height.is_multiple_of(cell) && width.is_multiple_of(cell) && height * width > 0;
        if !fits || values.len() != height * width * self.config.vae.image_channels {
            return Err(Error::usage("the picture does not fit the autoencoder")
                .expected(format!("sides in multiples of {cell} and a value for each channel"))
                .found(format!("{width}x{height} with {} values", values.len())));
        }
        let graph = vae::encoder(&self.config.vae, height, width)?;
        let weights = self.parts.encoder(precision, || self.upload(graph.weights(), precision, cancel))?;
        let moments = self.run_once(&graph, &weights, precision, ("image", values), cancel)?;
        let channels = self.config.vae.latent_channels;
        let (h, w) = (height / cell, width / cell);
        let mut latent = Latent::zeros(1, channels, h, w);
        for (i, v) in latent.data_mut().iter_mut().enumerate() {
            // The log variance in the second half of the channels is left out.
            *v = moments[i % (h * w) * 2 * channels + i / (h * w)];
        }
        Ok(latent)
    }
}

/// `[channel, position]` to `[position, channel]`, the order of the device.
fn to_positions(planes: &[f32], channels: usize) -> Vec<f32> {
    let positions = planes.len() / channels;
    (0..positions).flat_map(|at| (0..channels).map(move |c| planes[c * positions + at])).collect()
}
