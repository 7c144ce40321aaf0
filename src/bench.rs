//! How fast this device is: the measurements behind `sagittal bench`, as data.
//!
//! [`rows`] times networks and whole generations, [`profile`] tells where the time of a network
//! goes, [`shapes`] times single products, convolutions and attentions, [`sweep`] follows cost over
//! batch, picture size and chunk rows, [`plot`] draws. Weights are made by formula ([`presets`]), so
//! no file is needed.
//!
//! Wall times go from host memory to host memory. GPU times come from timestamp queries, and need a
//! device that counts time. An idle card stands at low clocks, so everything is preceded by steady
//! work; see [`Effort`].

mod measure;
pub mod plot;
pub mod presets;
pub mod profile;
mod ready;
pub mod rows;
pub mod shapes;
pub mod sweep;

use std::sync::atomic::{AtomicBool, Ordering};

use crate::engine::Engine;
use crate::gpu::Gpu;
use crate::kernels::Precision;
use crate::{Error, Result};
pub use measure::{Effort, Timing};

/// Where and how measurements are made.
pub struct Bench<'a> {
    /// The device.
    pub gpu: &'a Gpu,
    /// Storage of activations and weights; None is f16 on GPUs and f32 on CPU drivers.
    pub precision: Option<Precision>,
    /// Small networks and pictures, for software drivers and tests.
    pub tiny: bool,
    /// How often things are done.
    pub effort: Effort,
    /// Ends the work within a submission when set.
    pub cancel: &'a AtomicBool,
}

impl Bench<'_> {
    /// The storage that is used.
    pub fn precision(&self) -> Precision {
        self.precision.unwrap_or(self.gpu.capabilities().target.usual_precision())
    }

    fn go_on(&self) -> Result<()> {
        if self.cancel.load(Ordering::Relaxed) { Err(Error::cancelled()) } else { Ok(()) }
    }

    /// Lets go of what was dropped before, which is freed only when the device is looked after.
    fn settle(&self) {
        // A lost device says so at the next call that has an answer.
        let _ = self.gpu.device().poll(wgpu::PollType::wait_indefinitely());
    }

    /// An engine of its own, so that it holds nothing but what is measured.
    fn engine(&self) -> Result<Engine> {
        self.settle();
        Engine::new(self.gpu.clone())
    }
}
