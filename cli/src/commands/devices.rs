//! `sagittal devices`: the adapters, the features that decide which kernels run (f16, subgroups, cooperative
//! matrices), and the limits that decide how large pictures and chunks can become.

use std::collections::BTreeSet;

use sagittal::gpu::{self, Adapter, Gpu, OpenOptions};
use sagittal::wgpu::{DeviceType, Features};
use sagittal::{Error, ErrorKind, Result};
use serde_json::{Value, json};

use crate::support::{device, terminal};

/// List the GPUs and what they can do.
///
/// --device takes the number or a part of the name; without it, the one marked * is used.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print one JSON object per line for each
    #[arg(long)]
    pub json: bool,
}

/// Prints every adapter on stdout.
///
/// # Errors
/// [`ErrorKind::Device`] if there is none.
pub fn run(args: &Args) -> Result<()> {
    let adapters = gpu::adapters();
    if adapters.is_empty() {
        return Err(Error::new(ErrorKind::Device, "no GPU adapter found").hint(
            "install the GPU's Vulkan driver; on Debian and Ubuntu `apt-get install mesa-vulkan-drivers` \
             brings one that runs on the CPU",
        ));
    }
    // The default when --device is not given.
    let chosen = adapters.iter().position(|a| !a.is_cpu()).unwrap_or(0);
    for adapter in &adapters {
        let chosen = adapter.index == chosen;
        let kernels = Kernels::of(adapter);
        if args.json {
            terminal::event("device", as_json(adapter, chosen, &kernels));
        } else {
            as_text(adapter, chosen, &kernels).iter().for_each(terminal::result);
        }
    }
    Ok(())
}

/// The kernels that an adapter's device takes.
struct Kernels {
    /// Of which kind they are.
    path: String,
    /// Those that were checked: name, what was found, whether they are used.
    checked: Vec<(String, String, bool)>,
}

impl Kernels {
    fn of(adapter: &Adapter) -> Self {
        let index = adapter.index.to_string();
        let cache = device::cache_folder();
        let options =
            OpenOptions { adapter: Some(&index), cache: cache.as_deref(), ..OpenOptions::default() };
        match Gpu::open_with(&options) {
            Ok(gpu) => Self { path: gpu.profile().to_string(), checked: gpu.checked_kernels() },
            Err(e) => Self { path: e.to_string(), checked: Vec::new() },
        }
    }

    /// What was found, a line each.
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, found, used) in &self.checked {
            let label = if lines.is_empty() { "checked" } else { "" };
            let fate = if *used { "" } else { ", not used" };
            lines.push(format!("     {label:<21} {name}: {found}{fate}"));
        }
        if lines.is_empty() {
            lines.push(format!("     {:<21} nothing yet: at the first start with it", "checked"));
        }
        lines
    }
}

/// A paragraph of text; `*` marks the adapter that is used without `--device`.
fn as_text(adapter: &Adapter, chosen: bool, kernels: &Kernels) -> Vec<String> {
    let Adapter { index, info, limits, .. } = adapter;
    let yes = |feature| if adapter.features.contains(feature) { "yes" } else { "no" };
    let mib = |bytes: u64| bytes >> 20;
    let mut lines = vec![
        format!("{}{index}: {}", if chosen { "*" } else { " " }, info.name),
        format!("     type                  {}", type_name(adapter)),
        format!("     driver                {} {} ({:?})", info.driver, info.driver_info, info.backend),
        format!("     f16 arithmetic        {}", yes(Features::SHADER_F16)),
        format!("     subgroups             {}", subgroups(adapter)),
        format!("     cooperative matrices  {}", or_no(&matrices(adapter))),
        format!(
            "     limits                buffer {} MiB, binding {} MiB, {} storage buffers",
            mib(limits.max_buffer_size),
            mib(limits.max_storage_buffer_binding_size),
            limits.max_storage_buffers_per_shader_stage
        ),
        format!(
            "     workgroups            {} invocations, {} KiB memory",
            limits.max_compute_invocations_per_workgroup,
            limits.max_compute_workgroup_storage_size >> 10
        ),
        format!("     memory                {}", memory(adapter).map_or("unknown".into(), terminal::size)),
        format!("     kernels               {}", kernels.path),
    ];
    lines.extend(kernels.lines());
    lines
}

/// The same facts as JSON, sizes in bytes; null if unknown.
fn as_json(adapter: &Adapter, chosen: bool, kernels: &Kernels) -> Value {
    let Adapter { index, info, limits, features, .. } = adapter;
    json!({
        "index": index,
        "default": chosen,
        "name": info.name,
        "type": type_name(adapter),
        "backend": format!("{:?}", info.backend).to_lowercase(),
        "driver": info.driver,
        "driver_info": info.driver_info,
        "f16": features.contains(Features::SHADER_F16),
        "subgroups": features.contains(Features::SUBGROUP),
        "subgroup_min_size": info.subgroup_min_size,
        "subgroup_max_size": info.subgroup_max_size,
        "cooperative_matrices": matrices(adapter),
        "cooperative_matrix": features.contains(Features::EXPERIMENTAL_COOPERATIVE_MATRIX),
        "max_buffer_bytes": limits.max_buffer_size,
        "max_binding_bytes": limits.max_storage_buffer_binding_size,
        "max_storage_buffers": limits.max_storage_buffers_per_shader_stage,
        "max_workgroup_invocations": limits.max_compute_invocations_per_workgroup,
        "max_workgroup_memory_bytes": limits.max_compute_workgroup_storage_size,
        "memory_bytes": memory(adapter),
        "kernels": kernels.path,
        "checked_kernels": kernels.checked.iter().map(|(name, found, used)| {
            json!({ "name": name, "found": found, "used": used })
        }).collect::<Vec<_>>(),
    })
}

/// The kind of hardware, in words that do not change with wgpu.
fn type_name(adapter: &Adapter) -> &'static str {
    match adapter.info.device_type {
        DeviceType::DiscreteGpu => "discrete GPU",
        DeviceType::IntegratedGpu => "integrated GPU",
        DeviceType::VirtualGpu => "virtual GPU",
        DeviceType::Cpu => "CPU",
        DeviceType::Other => "other",
    }
}

/// Whether there are subgroup operations, and the subgroup sizes.
fn subgroups(adapter: &Adapter) -> String {
    let (least, most) = (adapter.info.subgroup_min_size, adapter.info.subgroup_max_size);
    match adapter.features.contains(Features::SUBGROUP) {
        true if least == most => format!("yes, of {least} invocations"),
        true => format!("yes, of {least} to {most} invocations"),
        false => "no".into(),
    }
}

/// The kinds of cooperative matrices, such as `16x16x16 f16 to f32`.
fn matrices(adapter: &Adapter) -> Vec<String> {
    let kinds = adapter.matrices.iter().map(|m| {
        let [from, to] = [m.ab_type, m.cr_type].map(|of| format!("{of:?}").to_lowercase());
        format!("{}x{}x{} {from} to {to}", m.m_size, m.n_size, m.k_size)
    });
    kinds.collect::<BTreeSet<String>>().into_iter().collect()
}

fn or_no(list: &[String]) -> String {
    if list.is_empty() { "no".to_owned() } else { list.join(", ") }
}

/// Bytes an adapter may use, if known: wgpu does not report it, but a driver that runs on the CPU uses the
/// system's memory.
fn memory(adapter: &Adapter) -> Option<u64> {
    if !adapter.is_cpu() {
        return None;
    }
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}
