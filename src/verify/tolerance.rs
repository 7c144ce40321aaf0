//! The tolerances that belong to the golden sets.
//!
//! ComfyUI's own f32 results differ from f64 by about 2e-6 of the spread in a UNet's output; these
//! limits leave ten times that and more for another order of summation.

use crate::kernels::Precision;
use crate::model::ModelConfig;

/// Networks narrower than this are the small families made for tests.
const FULL_WIDTH: usize = 320;

/// Absolute, for initial noise and ancestral draws.
pub(super) const NOISE: f64 = 2e-6;
/// Absolute, for Brownian increments, which are sums of tens of draws.
pub(super) const BROWNIAN: f64 = 1e-5;
/// Relative, for sigmas.
pub(super) const SIGMAS: f64 = 2e-6;
/// Absolute, for a degraded prediction from given attention.
pub(super) const DEGRADED: f64 = 1e-5;
/// Absolute, for column sums: of given probabilities on the host, and of a network in f32.
pub(super) const COLUMNS: f64 = 1e-4;

/// d/s of a weight with adapters merged into it, which is made in f32 whatever the storage.
pub(super) const MERGED: f64 = 1e-5;

/// Limits of d/s for the parts of a model, and what goes with them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tolerances {
    /// A UNet's output.
    pub unet: f64,
    /// A text encoder's and an autoencoder's results.
    pub text_and_vae: f64,
    /// The tensors of a guided step.
    pub step: f64,
    /// Column sums, absolute.
    pub columns: f64,
    /// Column sums nearer to the threshold may fall on either side.
    pub mask_margin: f64,
    precision: Precision,
}

impl Tolerances {
    pub(super) fn of(precision: Precision, config: &ModelConfig) -> Self {
        let full = config.unet.model_channels >= FULL_WIDTH;
        match precision {
            Precision::F32 => Self {
                unet: if full { 1e-4 } else { 3e-5 },
                text_and_vae: 1e-4,
                step: 1e-4,
                columns: COLUMNS,
                mask_margin: 0.0,
                precision,
            },
            Precision::F16 => Self {
                unet: if full { 3e-2 } else { 2e-2 },
                text_and_vae: 2e-2,
                step: 3e-2,
                columns: 2e-2,
                mask_margin: 2e-2,
                precision,
            },
        }
    }

    /// Whether a mask bit may differ from the set's, so that what follows from the mask has to be
    /// computed from the set's own.
    pub(super) fn masks_may_flip(&self) -> bool {
        self.precision == Precision::F16
    }

    /// d/s of a whole run's samples with a standard deviation of `s`, whose samples change by
    /// `sensitivity` when every UNet output changes by a millionth. None: no pointwise limit makes
    /// sense, because guidance amplifies f16's rounding until mask bits flip.
    pub(super) fn run(&self, cfg: f64, s: f64, sensitivity: f64) -> Option<f64> {
        let table: f64 = match (self.precision, cfg == 1.0) {
            (Precision::F32, true) => 3e-4,
            (Precision::F32, false) => 1e-3,
            (Precision::F16, true) => 3e-2,
            (Precision::F16, false) => return None,
        };
        let measured = 100.0 * sensitivity / s;
        Some(if measured.is_finite() { table.max(measured) } else { table })
    }
}
