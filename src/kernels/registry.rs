//! The kernels that no network's graph leads to: what a sampling step does with latents, and weights on their way to
//! the device. Tests know the others by the plans of networks.

use super::sag_degrade;
use super::{Call, cfg_rescale, combine, entries_mean, error_norm, network_input, network_output, repack};

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
