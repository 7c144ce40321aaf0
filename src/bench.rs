//! Benchmarks: the measurements of `sagittal bench`, as data.
//!
//! [`rows`] times networks and complete generations, [`profile`] the dispatches of a network, [`shapes`] single matrix
//! products, convolutions and attentions, and [`sweep`] the cost over batch, picture size and rows per call. [`tune`]
//! measures what kernels cost on a device. [`plot`] draws charts. Weights are computed by a formula ([`presets`]), so no file is needed.
//!
//! Wall times are from host memory to host memory. GPU times are from timestamp queries, and need a device that has
//! them. An idle GPU runs at low clocks, so steady work precedes all measurements; see [`Effort`].

mod measure;
pub mod plot;
pub mod presets;
pub mod profile;
mod ready;
pub mod rows;
pub mod shapes;
pub mod sweep;
pub mod tune;

use std::sync::atomic::{AtomicBool, Ordering};

use crate::engine::Engine;
use crate::gpu::Gpu;
use crate::kernels::Precision;
use crate::{Error, Result};
pub use measure::{Effort, Timing};

/// The device and the settings of measurements.
pub struct Bench<'a> {
    /// The device.
    pub gpu: &'a Gpu,
    /// Storage of activations and weights; None is f16 on GPUs and f32 on CPU drivers.
    pub precision: Option<Precision>,
    /// Small networks and pictures, for software drivers and tests.
    pub tiny: bool,
    /// How often each measurement is repeated.
    pub effort: Effort,
    /// Setting it ends the work within a submission.
    pub cancel: &'a AtomicBool,
}

impl Bench<'_> {
    /// The precision that is used.
    pub fn precision(&self) -> Precision {
        self.precision.unwrap_or(self.gpu.usual_precision())
    }

    fn go_on(&self) -> Result<()> {
        if self.cancel.load(Ordering::Relaxed) { Err(Error::cancelled()) } else { Ok(()) }
    }

    /// Frees the memory of dropped buffers, which wgpu frees only when the device is polled.
    fn settle(&self) {
        // If the device is lost, the next call that returns a result reports it.
        let _ = self.gpu.device().poll(wgpu::PollType::wait_indefinitely());
    }

    /// A new engine, so that it holds only what is measured.
    fn engine(&self) -> Result<Engine> {
        self.settle();
        Engine::new(self.gpu.clone())
    }
}
