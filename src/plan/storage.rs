//! How the numbers of a network are stored on the device.

use std::collections::HashSet;
use std::sync::Arc;

use crate::graph::{Layout, Weight};
use crate::kernels::{Precision, Target, gemm};

/// How the numbers of a network are stored: activations in its precision, and so weights, but for vectors, which
/// are f32, and for those of a network of f32 that are f16. Plans are made for it and weights brought to the
/// device by it. A precision by itself is the storage without exceptions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    precision: Precision,
    /// In f16 beside values in f32.
    halved: Arc<HashSet<Weight>>,
}

impl Storage {
    /// That of `weights` in a network of `precision` on a device of `target`. `fits_f16` says of a tensor whether
    /// all of its values are numbers of f16: on CPU drivers, where a load is dearer than a hundred products,
    /// those stay so. Sums of taps would be rounded.
    pub fn of(
        weights: &[Weight],
        precision: Precision,
        target: Target,
        fits_f16: impl Fn(&str) -> bool,
    ) -> Self {
        let halved = |w: &&Weight| {
            matches!(w.layout, Layout::Linear | Layout::Conv3x3) && w.sources.iter().all(|s| fits_f16(s))
        };
        let may = gemm::takes_f16_weights(target) && precision == Precision::F32;
        let weights = if may { weights } else { &[] };
        Self { precision, halved: Arc::new(weights.iter().filter(halved).cloned().collect()) }
    }

    /// The network's.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// A weight's own.
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
