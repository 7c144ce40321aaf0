//! The flags of every command that opens a device.

use sagittal::Result;
use sagittal::gpu::{Gpu, OpenOptions};

/// Which device, and how it is used.
#[derive(Debug, clap::Args)]
pub struct Flags {
    /// GPU, by its number or a part of its name; see `sagittal devices` [default: the first real one]
    #[arg(long, value_name = "INDEX_OR_NAME", help_heading = "Device")]
    pub device: Option<String>,
    /// Leave the GPU's cooperative matrices alone: slower, and by the kernels that run on any GPU
    #[arg(long, help_heading = "Device")]
    pub no_matrices: bool,
}

impl Flags {
    /// Opens the device.
    ///
    /// # Errors
    /// Those of [`Gpu::open_with`].
    pub fn open(&self) -> Result<Gpu> {
        Gpu::open_with(&OpenOptions { adapter: self.device.as_deref(), matrices: !self.no_matrices })
    }
}
