//! The flags of every command that opens a device, and the folder of compiled pipelines.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use sagittal::Result;
use sagittal::gpu::{Gpu, OpenOptions};
use sagittal::internals::kernels::CostTable;
use sagittal::internals::model::Prediction;
use sagittal::internals::plan::chunk::ChunkPolicy;
use sagittal::pipeline::{Limits, ModelOptions, Tiling};

use crate::support::args::PrecisionChoice;
use crate::support::value;

/// Which device, and how it is used.
#[derive(Debug, clap::Args)]
pub struct Flags {
    /// GPU, by its number or a part of its name; see `sagittal devices` [default: the first that is not a CPU]
    #[arg(long, value_name = "INDEX_OR_NAME", help_heading = "Device")]
    pub device: Option<String>,
    /// Cooperative matrices in f16: `auto` uses them on GPUs that have them, `on` on CPU drivers too, `off` not at all
    #[arg(long, value_name = "auto|on|off", default_value = "auto", help_heading = "Device")]
    #[arg(hide_possible_values = true)]
    matrices: MatricesChoice,
    /// Another name of --matrices off
    #[arg(long, hide = true, conflicts_with = "matrices")]
    no_matrices: bool,
    /// What kernels cost, from `bench --tune` [default: measured on this adapter before, or built in]
    #[arg(long, value_name = "FILE.json", help_heading = "Device")]
    pub table: Option<PathBuf>,
    /// Compile all kernels anew, and do not cache them
    #[arg(long, help_heading = "Device")]
    pub no_pipeline_cache: bool,
}

/// `--matrices`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MatricesChoice {
    Auto,
    On,
    Off,
}

impl Flags {
    /// Whether to use cooperative matrices; None leaves it to the device.
    pub fn matrices(&self) -> Option<bool> {
        match self.matrices {
            _ if self.no_matrices => Some(false),
            MatricesChoice::Auto => None,
            MatricesChoice::On => Some(true),
            MatricesChoice::Off => Some(false),
        }
    }

    /// Whether a table of this hash is named, or kept for an adapter.
    pub fn has_costs(&self, hash: &str) -> bool {
        let kept = || {
            let files = cache_folder().and_then(|folder| std::fs::read_dir(folder).ok());
            let paths = files.into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
            paths.filter(|path| path.to_string_lossy().ends_with(".costs.json")).collect()
        };
        let files: Vec<PathBuf> = self.table.clone().map_or_else(kept, |file| vec![file]);
        files.iter().any(|file| CostTable::read(file).is_ok_and(|costs| costs.hash() == hash))
    }

    /// Opens the device.
    ///
    /// # Errors
    /// Those of [`Gpu::open_with`].
    pub fn open(&self) -> Result<Gpu> {
        self.open_with(self.table.as_deref())
    }

    /// Opens the device with the costs of a file.
    ///
    /// # Errors
    /// Those of [`Gpu::open_with`].
    pub fn open_with(&self, costs: Option<&Path>) -> Result<Gpu> {
        let cache = if self.no_pipeline_cache { None } else { cache_folder() };
        Gpu::open_with(&OpenOptions {
            adapter: self.device.as_deref(),
            matrices: self.matrices(),
            costs,
            cache: cache.as_deref(),
        })
    }
}

/// Which device computes pictures, in which precision and within which limits.
#[derive(Debug, clap::Args)]
pub struct Compute {
    #[command(flatten)]
    pub device: Flags,
    /// How weights and activations are stored; arithmetic is f32
    #[arg(long, value_name = "KIND", default_value = "auto", ignore_case = true, help_heading = "Device")]
    pub precision: PrecisionChoice,
    /// The same for the VAE: auto, f32 or f16; auto is as --precision, but f32 for SDXL's, which overflows f16
    #[arg(long, value_name = "KIND", default_value = "auto", ignore_case = true, help_heading = "Device")]
    #[arg(hide_possible_values = true)]
    pub vae_precision: PrecisionChoice,
    /// VAE tiling: `auto` tiles if memory is short, `off`, or the tile's side in latent cells, at least 16
    #[arg(long, value_name = "auto|off|CELLS", default_value = "auto", help_heading = "Device")]
    pub vae_tile: Tiling,
    /// Rows (picture × prompt entry) per network call: `auto` or a number; does not change the result
    #[arg(long, value_name = "auto|ROWS", default_value = "auto", help_heading = "Device")]
    pub chunk: ChunkPolicy,
    /// Limit for device memory (weights and activations), in MiB or like 4G
    #[arg(long, value_name = "SIZE", value_parser = value::memory, allow_negative_numbers = true)]
    #[arg(help_heading = "Device")]
    pub max_memory: Option<u64>,
    /// Stop at the first layer whose result is NaN or infinite and name it, to debug black pictures; slow
    #[arg(long, help_heading = "Device")]
    pub trace_nonfinite: bool,
}

impl Compute {
    /// How models are opened, if their network predicts `prediction`.
    pub fn options(&self, prediction: Option<Prediction>) -> ModelOptions {
        ModelOptions {
            precision: self.precision.precision(),
            vae_precision: self.vae_precision.precision(),
            prediction,
            tiling: self.vae_tile,
        }
    }

    /// The limits of the work.
    pub fn limits(&self) -> Limits {
        Limits { chunk: self.chunk, memory: self.max_memory }
    }
}

/// The folder of what is kept from one start to the next; None if there is none.
pub fn cache_folder() -> Option<PathBuf> {
    folder(|name| std::env::var_os(name))
}

/// `SAGITTAL_CACHE`, or a folder in the system's cache folder; None if there is none.
fn folder(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    // An empty variable counts as unset, and a relative path would depend on the working directory.
    let path = |name: &str| variable(name).map(PathBuf::from).filter(|p| !p.as_os_str().is_empty());
    let absolute = |name: &str| path(name).filter(|p| p.is_absolute());
    path("SAGITTAL_CACHE").or_else(|| {
        let caches = if cfg!(windows) {
            absolute("LOCALAPPDATA")
        } else if cfg!(target_os = "macos") {
            absolute("HOME").map(|home| home.join("Library/Caches"))
        } else {
            absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        };
        caches.map(|caches| caches.join("sagittal"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(all(unix, not(target_os = "macos")))]
    #[test]
    fn folders() {
        let of = |variables: &[(&str, &str)]| {
            let found = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| v.into());
            folder(found).map(|f| f.display().to_string())
        };
        let home = ("HOME", "/home/a");
        assert_eq!(of(&[home]).as_deref(), Some("/home/a/.cache/sagittal"));
        assert_eq!(of(&[home, ("XDG_CACHE_HOME", "/c")]).as_deref(), Some("/c/sagittal"));
        assert_eq!(of(&[home, ("XDG_CACHE_HOME", "relative")]).as_deref(), Some("/home/a/.cache/sagittal"));
        assert_eq!(of(&[home, ("SAGITTAL_CACHE", "own")]).as_deref(), Some("own"));
        assert_eq!(of(&[home, ("SAGITTAL_CACHE", "")]).as_deref(), Some("/home/a/.cache/sagittal"));
        assert_eq!(of(&[]), None);
    }
}
