//! Weights on the device, by part of the model, brought over when first asked for.

use std::sync::{Arc, Mutex, PoisonError};

use crate::Result;
use crate::engine::Weights;
use crate::kernels::Precision;

#[derive(Default)]
struct Part(Mutex<Option<Arc<Weights>>>);

impl Part {
    fn get(&self, load: impl FnOnce() -> Result<Weights>) -> Result<Arc<Weights>> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(weights) = &*held {
            return Ok(weights.clone());
        }
        let weights = Arc::new(load()?);
        *held = Some(weights.clone());
        Ok(weights)
    }

    fn bytes(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map_or(0, |w| w.bytes())
    }
}

/// The networks of a model.
#[derive(Default)]
pub struct Parts {
    text: [Part; 2],
    unet: Part,
    /// In f32 and in f16: a decoder that overflows is run again.
    decoder: [Part; 2],
    encoder: Part,
}

impl Parts {
    /// Those of text encoder `i`; no model has more than two.
    pub fn text(&self, i: usize, load: impl FnOnce() -> Result<Weights>) -> Result<Arc<Weights>> {
        self.text[i.min(1)].get(load)
    }

    /// The UNet's.
    pub fn unet(&self, load: impl FnOnce() -> Result<Weights>) -> Result<Arc<Weights>> {
        self.unet.get(load)
    }

    /// The VAE decoder's.
    pub fn decoder(
        &self,
        precision: Precision,
        load: impl FnOnce() -> Result<Weights>,
    ) -> Result<Arc<Weights>> {
        self.decoder[usize::from(precision == Precision::F16)].get(load)
    }

    /// The VAE encoder's.
    pub fn encoder(&self, load: impl FnOnce() -> Result<Weights>) -> Result<Arc<Weights>> {
        self.encoder.get(load)
    }

    /// Bytes held on the device.
    pub fn bytes(&self) -> u64 {
        let single = [&self.unet, &self.encoder];
        self.text.iter().chain(&self.decoder).chain(single).map(Part::bytes).sum()
    }
}
