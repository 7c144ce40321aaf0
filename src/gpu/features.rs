//! The features and limits that a device should be made with, and those that an app's device lacks.

use std::sync::Arc;

use super::subgroup_width;
use crate::kernels::{LEAST_MEMORY, Matrices};

/// The features with which the invocations of a subgroup share what they load, in kernels for CPU drivers.
pub const SHARED_LOADS: wgpu::Features = wgpu::Features::SUBGROUP.union(wgpu::Features::SHADER_INT64);

/// The features that kernels with cooperative matrices of f16 need.
pub const COOPERATIVE: wgpu::Features = wgpu::Features::SHADER_F16
    .union(wgpu::Features::SUBGROUP)
    .union(wgpu::Features::SUBGROUP_BARRIER)
    .union(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX);

/// The features that help without matrices too: these, and timestamps for profiles.
const USEFUL: wgpu::Features =
    SHARED_LOADS.union(wgpu::Features::SHADER_F16).union(wgpu::Features::TIMESTAMP_QUERY);

/// A descriptor with the features of `adapter` that help, and its limits; with cooperative matrices if `with_matrices`.
pub fn descriptor(adapter: &wgpu::Adapter, with_matrices: bool) -> wgpu::DeviceDescriptor<'static> {
    let (features, experimental) = match with_matrices && offers_cooperative(adapter) {
        // SAFETY: experimental means that wgpu may change the interface, or may not check all of its use. The kernels'
        // use of it is compared with references on odd shapes.
        true => (COOPERATIVE, unsafe { wgpu::ExperimentalFeatures::enabled() }),
        false => (wgpu::Features::empty(), wgpu::ExperimentalFeatures::disabled()),
    };
    wgpu::DeviceDescriptor {
        label: Some("sagittal"),
        required_limits: adapter.limits(),
        required_features: features | (adapter.features() & USEFUL),
        experimental_features: experimental,
        ..Default::default()
    }
}

/// Whether `adapter` has cooperative matrices that there are kernels for.
pub fn offers_cooperative(adapter: &wgpu::Adapter) -> bool {
    !matrices(adapter).is_empty()
}

/// The cooperative matrices of `adapter` that there are kernels for. Where the width of its subgroups is the driver's
/// choice, those of all widths.
pub fn matrices(adapter: &wgpu::Adapter) -> Vec<Matrices> {
    use wgpu::CooperativeScalarType as S;
    let (info, limits) = (adapter.get_info(), adapter.limits());
    if !adapter.features().contains(COOPERATIVE) || limits.max_compute_workgroup_storage_size < LEAST_MEMORY {
        return Vec::new();
    }
    let widths = info.subgroup_min_size..=info.subgroup_max_size;
    let offered = adapter.cooperative_matrix_properties();
    let has = |matrices: &Matrices| {
        let Matrices { side, lanes } = *matrices;
        widths.contains(&lanes)
            // Eight subgroups, of which most tiles have fewer.
            && limits.max_compute_invocations_per_workgroup >= 8 * lanes
            && offered.iter().any(|m| {
                (m.m_size, m.n_size, m.k_size) == (side, side, side)
                    && (m.ab_type, m.cr_type) == (S::F16, S::F32)
            })
    };
    Matrices::ALL.into_iter().filter(has).collect()
}

/// Those of `kinds` that fit the width of the device's subgroups.
pub fn of_width(device: &wgpu::Device, queue: &wgpu::Queue, kinds: &[Matrices]) -> Arc<[Matrices]> {
    let Some(first) = kinds.first() else { return Arc::default() };
    if kinds.iter().all(|kind| kind.lanes == first.lanes) {
        return kinds.into();
    }
    // Workgroups of the kernels have two to eight subgroups. A driver that mixes widths gets kernels without matrices.
    let sizes = [64, 128, 256, 512];
    let most = device.limits().max_compute_invocations_per_workgroup;
    let sizes: Vec<u32> = sizes.into_iter().filter(|size| *size <= most).collect();
    match subgroup_width::of_workgroups(device, queue, &sizes) {
        Ok(widths) => {
            kinds.iter().copied().filter(|kind| widths.iter().all(|width| *width == kind.lanes)).collect()
        }
        Err(e) => {
            log::warn!("{e}; cooperative matrices are not used");
            Arc::default()
        }
    }
}

/// What `device` lacks that would make it faster, a line of text for each. Without the adapter it is not known what
/// that has.
pub fn left_unused(device: &wgpu::Device, adapter: Option<&wgpu::Adapter>) -> Vec<String> {
    let (features, limits) = (device.features(), device.limits());
    let perhaps = if adapter.is_none() { ", if the adapter has them" } else { "" };
    let mut unused = Vec::new();
    let mut lacks = |wanted: wgpu::Features, what: &str, gain: &str| {
        let missing: Vec<&str> = (wanted - features).iter_names().map(|(name, _)| name).collect();
        if !missing.is_empty() {
            unused.push(format!("{what}{perhaps}: {gain} (made without {})", missing.join(", ")));
        }
    };
    if device.adapter_info().device_type == wgpu::DeviceType::Cpu {
        if adapter.is_none_or(|a| a.features().contains(SHARED_LOADS)) {
            lacks(
                SHARED_LOADS,
                "subgroups and 64-bit integers",
                "a CPU computes several times faster with them",
            );
        }
    } else if adapter.is_none_or(offers_cooperative) {
        lacks(COOPERATIVE, "cooperative matrices", "f16 is computed several times faster with them");
    }
    // Without the adapter: a limit that is not above the default was most likely not raised.
    let usual = wgpu::Limits::default();
    let most = adapter.map(wgpu::Adapter::limits);
    let mut smaller = |what: &str, own: u64, usual: u64, most: Option<u64>, gain: &str| {
        if most.map_or(own <= usual, |most| own < most) {
            let there = most.map_or(String::new(), |most| format!(" of {} that the adapter has", size(most)));
            unused.push(format!("{what} of more than {}{there}: {gain}", size(own)));
        }
    };
    smaller(
        "bindings",
        limits.max_storage_buffer_binding_size,
        usual.max_storage_buffer_binding_size,
        most.as_ref().map(|m| m.max_storage_buffer_binding_size),
        "large pictures and batches take fewer dispatches",
    );
    smaller(
        "buffers",
        limits.max_buffer_size,
        usual.max_buffer_size,
        most.as_ref().map(|m| m.max_buffer_size),
        "weights and activations lie in fewer of them",
    );
    // Without the adapter this limit does not matter: kernels with matrices are not chosen then.
    let [own, most] =
        [Some(&limits), most.as_ref()].map(|l| l.map_or(0, |l| l.max_compute_workgroup_storage_size));
    if adapter.is_some_and(offers_cooperative) && own < most {
        unused.push(format!(
            "workgroup memory of more than {own} bytes of {most}: kernels with cooperative matrices take it"
        ));
    }
    unused
}

fn size(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}
