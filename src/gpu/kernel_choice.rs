//! Which kernels a device takes, for tools: to check each kind, to look at what was found, and to measure costs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Gpu;
use super::pipeline_cache::write_private;
use crate::Result;
use crate::kernels::{CostTable, DeviceProfile, Precision};

impl Gpu {
    /// The same device with each kind of kernels that it can run, and the precisions that these compute in: plain ones
    /// first, then those for a CPU's SIMD lanes, and those with each of its cooperative matrices.
    #[doc(hidden)]
    pub fn paths(&self) -> Vec<(Precision, Self)> {
        let own = DeviceProfile { distrusted: Arc::default(), ..self.profile().clone() };
        let without = DeviceProfile { matrices: Arc::default(), prefers_matrices: false, ..own.clone() };
        let plain = own.plain();
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

    /// Keeps in `folder` what kernels cost on this adapter, where [`keep_pipelines_in`](Self::keep_pipelines_in) finds
    /// it; the path of the file.
    #[doc(hidden)]
    pub fn keep_costs_in(&self, folder: &Path, costs: &CostTable) -> Result<PathBuf> {
        let path = self.kept_file(folder, "costs");
        write_private(&path, costs.to_text().as_bytes())?;
        Ok(path)
    }

    /// What the kernels were found to do that were checked, by name: in words, and whether they are used.
    #[doc(hidden)]
    pub fn checked_kernels(&self) -> Vec<(String, String, bool)> {
        let verdicts = self.verdicts().unwrap_or_default();
        let used = |name: &str| !self.profile().distrusted.contains(name);
        verdicts.kernels.iter().map(|(name, v)| (name.clone(), v.words(), used(name))).collect()
    }
}
