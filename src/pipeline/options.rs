//! How a model is opened.

use super::tiles::Tiling;
use crate::gpu::Gpu;
use crate::kernels::Precision;
use crate::model::{Family, Prediction};

/// How a model is opened.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
pub struct ModelOptions {
    /// Storage of activations and weights; None is f16 on GPUs and f32 on CPU drivers, where most weights
    /// that a file has in f16 stay in f16.
    pub precision: Option<Precision>,
    /// The same for the autoencoder; None is the model's precision, but f32 for SDXL, whose original
    /// autoencoder overflows f16.
    pub vae_precision: Option<Precision>,
    /// What the UNet predicts, if the file does not say it or says it wrong.
    pub prediction: Option<Prediction>,
    /// Tiling of the autoencoder.
    pub tiling: Tiling,
}

impl ModelOptions {
    /// The storage on `gpu`.
    pub(super) fn precision_on(&self, gpu: &Gpu) -> Precision {
        self.precision.unwrap_or(gpu.usual_precision())
    }

    /// The storage of an autoencoder on `gpu` beside a UNet of `family`; None for an autoencoder alone.
    pub(super) fn vae_precision_on(&self, gpu: &Gpu, family: Option<Family>) -> Precision {
        let rest = self.precision_on(gpu);
        self.vae_precision.unwrap_or(family.map_or(rest, |family| family.facts().vae_precision(rest)))
    }
}
