//! Lists of kernels. Those with a plain alternative are checked at the first start. Those that no network's graph leads
//! to (what a sampling step does with latents, and weights on their way to the device) make samples for tests, which know
//! the others by the plans of networks.

use super::sag_degrade;
use super::{
    Call, attention, cfg_rescale, combine, entries_mean, error_norm, gemm, group_norm, network_input,
    network_output, repack,
};

/// For each such kernel what makes calls of it in every variant.
const SAMPLES: &[fn() -> Vec<Call>] = &[
    cfg_rescale::samples,
    combine::samples,
    entries_mean::samples,
    error_norm::samples,
    network_input::samples,
    network_output::samples,
    repack::samples,
    sag_degrade::samples,
];

/// Calls, for tests, in every variant that no network's graph leads to.
pub fn samples() -> impl Iterator<Item = Call> {
    SAMPLES.iter().flat_map(|of_kernel| of_kernel())
}

/// The shaders of kernels and cores that a device may not have, or not compute right: there is a plain kernel for the
/// same.
pub(crate) fn alternatives() -> impl Iterator<Item = crate::shader::File> {
    let cores = gemm::ALTERNATIVES.iter().map(|core| core.file);
    let kernels = attention::ALTERNATIVES.iter().map(|kernel| kernel.file);
    cores.chain(kernels).chain([group_norm::SIMD_STATS.file])
}

/// Digits that change when the text of one of them does.
pub(crate) fn fingerprint() -> String {
    let mut sum = crc32fast::Hasher::new();
    alternatives().chain(crate::shader::SHARED.iter().copied()).for_each(|f| sum.update(f.text.as_bytes()));
    format!("{:08x}", sum.finalize())
}
