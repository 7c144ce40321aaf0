//! In which precision the values of a network are stored on the device.

use std::collections::HashSet;
use std::sync::Arc;

use crate::graph::{Layout, Weight};
use crate::kernels::{DeviceProfile, Precision, gemm};

/// In which precision the values of a network are stored: activations and weights in its precision, except vectors,
/// which are f32, and some weights of a network in f32, which are f16. Plans are made for a storage, and weights are
/// uploaded in it. `Storage::from(precision)` has no weights in f16 in a network of f32.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    precision: Precision,
    /// Weights in f16 in a network of f32.
    halved: Arc<HashSet<Weight>>,
}

impl Storage {
    /// That of `weights` in a network of `precision` on `device`. `fits_f16` says whether f16 can
    /// represent all values of a tensor exactly: on CPU drivers, where a load costs more than a hundred multiplications,
    /// such weights are stored in f16. Weights of upsampled convolutions are sums of taps, which would be rounded.
    pub fn of(
        weights: &[Weight],
        precision: Precision,
        device: &DeviceProfile,
        fits_f16: impl Fn(&str) -> bool,
    ) -> Self {
        let halved = |w: &&Weight| {
            matches!(w.layout, Layout::Linear | Layout::Conv3x3) && w.sources.iter().all(|s| fits_f16(s))
        };
        let may = gemm::takes_f16_weights(device) && precision == Precision::F32;
        let weights = if may { weights } else { &[] };
        Self { precision, halved: Arc::new(weights.iter().filter(halved).cloned().collect()) }
    }

    /// The precision of activations.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The precision of a weight.
    pub fn of_weight(&self, weight: &Weight) -> Precision {
        match weight.layout {
            Layout::Vector => Precision::F32,
            _ if self.halved.contains(weight) => Precision::F16,
            Layout::Linear | Layout::Conv3x3 | Layout::Conv3x3Doubled => self.precision,
        }
    }
}

impl From<Precision> for Storage {
    fn from(precision: Precision) -> Self {
        Self { precision, halved: Arc::default() }
    }
}
