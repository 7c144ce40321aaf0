//! Latents as the feature `serde` writes them.

use serde::{Deserialize, Serialize};

use super::Latent;
use crate::{Error, Result};

/// A latent's shape and values, which are not known to fit when they are read.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenLatent {
    shape: [usize; 4],
    values: Vec<f32>,
}

impl TryFrom<WrittenLatent> for Latent {
    type Error = Error;

    fn try_from(written: WrittenLatent) -> Result<Self> {
        Self::from_vec(written.shape, written.values)
    }
}

impl From<Latent> for WrittenLatent {
    fn from(latent: Latent) -> Self {
        Self { shape: latent.shape(), values: latent.data }
    }
}
