//! The kinds of kernels that a device can run, to check each of them.

use std::sync::Arc;

use super::Gpu;
use crate::kernels::{CostTable, DeviceProfile, Precision};

impl Gpu {
    /// The same device with each kind of kernels that it can run, and the precisions that these compute in: plain ones
    /// first, then those for a CPU's SIMD lanes, and those with each of its cooperative matrices.
    #[doc(hidden)]
    pub fn paths(&self) -> Vec<(Precision, Self)> {
        let own = DeviceProfile { distrusted: Arc::default(), ..self.profile().clone() };
        let without = DeviceProfile { matrices: Arc::default(), prefers_matrices: false, ..own.clone() };
        let plain = DeviceProfile { cpu: false, costs: CostTable::of_gpus(), ..without.clone() };
        let mut all = vec![(Precision::F32, plain.clone()), (Precision::F16, plain)];
        if own.has_simd() {
            all.extend([(Precision::F32, without.clone()), (Precision::F16, without)]);
        }
        all.extend(own.matrices.iter().map(|kind| {
            let matrices = Arc::new([*kind]);
            (Precision::F16, DeviceProfile { matrices, prefers_matrices: true, ..own.clone() })
        }));
        all.into_iter().map(|(precision, profile)| (precision, Self { profile, ..self.clone() })).collect()
    }

    /// What the kernels were found to do that were checked, by name: in words, and whether they are used.
    #[doc(hidden)]
    pub fn checked_kernels(&self) -> Vec<(String, String, bool)> {
        let verdicts = self.verdicts().unwrap_or_default();
        let used = |name: &str| !self.profile().distrusted.contains(name);
        verdicts.kernels.iter().map(|(name, v)| (name.clone(), v.words(), used(name))).collect()
    }
}
