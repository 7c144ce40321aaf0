//! Which kernels a device takes, for tools: to check each kind, to look at what was found, and to measure costs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Gpu;
use crate::kernels::{Asked, CostTable, DeviceProfile, Precision};

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

    /// The same device with other costs of its kernels.
    #[doc(hidden)]
    pub fn with_costs(mut self, costs: CostTable) -> Self {
        self.profile.costs = Arc::new(costs);
        self
    }

    /// The same device, which notes what is asked of the chooser of kernels, and chooses by the compiled-in costs.
    #[doc(hidden)]
    pub fn with_notes(mut self, asked: Arc<Asked>) -> Self {
        self.profile.costs = self.profile.compiled_in_costs();
        self.profile.asked = Some(asked);
        self
    }

    /// The file in `folder` of what kernels cost on this adapter, if they were measured.
    #[doc(hidden)]
    pub fn costs_file(&self, folder: &Path) -> PathBuf {
        let key = super::adapter_key(&self.device().adapter_info());
        folder.join(format!("{key}-{}.costs.json", env!("CARGO_PKG_VERSION")))
    }

    /// What the kernels were found to do that were checked, by name: in words, and whether they are used.
    #[doc(hidden)]
    pub fn checked_kernels(&self) -> Vec<(String, String, bool)> {
        let verdicts = self.verdicts().unwrap_or_default();
        let used = |name: &str| !self.profile().distrusted.contains(name);
        verdicts.kernels.iter().map(|(name, v)| (name.clone(), v.words(), used(name))).collect()
    }
}
