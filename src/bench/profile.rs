//! The time of a network by dispatch and by class of kernel, compared with the peak performance of the device.

use std::time::Duration;

use super::presets::Preset;
use super::ready::{Ready, upload};
use super::rows::Unets;
use super::{Bench, Timing};
use crate::engine::Weights;
use crate::graph::Graph;
pub use crate::kernels::Class;
use crate::kernels::gemm;
use crate::model::vae;
use crate::plan::{Bound, Dispatch, Plan};
use crate::text::clip;
use crate::{Error, Result};

/// A network that can be profiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// SD 1.5's UNet, 64×64 latents.
    Sd15,
    /// SDXL's UNet, 128×128 latents.
    Sdxl,
    /// SD 1.5's VAE decoder, 512×512 pixels.
    Vae,
    /// SD 1.5's text encoder, 77 tokens.
    Clip,
}

/// The peak performance of the device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ceiling {
    /// Floating-point operations per second, a multiply-add is two.
    pub flops: f64,
    /// Bytes per second to and from memory.
    pub bytes: f64,
}

impl Default for Ceiling {
    /// What an H100 reaches: f16 products 790 TFLOP/s, copies 3.0 TB/s.
    fn default() -> Self {
        Self { flops: 790e12, bytes: 3.0e12 }
    }
}

impl Ceiling {
    /// The least time that this work can take, seconds.
    pub fn seconds(&self, flops: u64, bytes: u64) -> f64 {
        (flops as f64 / self.flops).max(bytes as f64 / self.bytes)
    }
}

/// A dispatch and its GPU time.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// The layer's path.
    pub path: String,
    /// The kernel and its variant.
    pub variant: String,
    /// Its class.
    pub class: Class,
    /// Workgroups.
    pub groups: [u32; 3],
    /// Median time, in a pass of its own.
    pub time: Duration,
    /// Floating-point operations; a multiply-add is two.
    pub flops: u64,
    /// Bytes of all bindings, read or written.
    pub bytes: u64,
}

/// The sum over a class of kernels.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassSum {
    /// Which.
    pub class: Class,
    /// Number of dispatches.
    pub dispatches: usize,
    /// Sum of their times.
    pub time: Duration,
    /// Floating-point operations; a multiply-add is two.
    pub flops: u64,
    /// Bytes of all that is bound.
    pub bytes: u64,
    /// The least time that its dispatches can take, each limited by operations or by bytes.
    pub floor: Duration,
}

/// The time of a network call by dispatch.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Rows of the call.
    pub rows: usize,
    /// GPU time of the call in one pass.
    pub total: Timing,
    /// By dispatch, in order. Each has its own pass, which takes some microseconds more than in one pass for all.
    pub layers: Vec<Layer>,
}

impl Profile {
    /// Sum of the dispatches' times.
    pub fn sum(&self) -> Duration {
        sum(&self.layers.iter().collect::<Vec<_>>())
    }

    /// By class, without classes that have no dispatches.
    pub fn classes(&self, ceiling: &Ceiling) -> Vec<ClassSum> {
        let of_class = |class| {
            let layers: Vec<&Layer> = self.layers.iter().filter(|l| l.class == class).collect();
            ClassSum {
                class,
                dispatches: layers.len(),
                time: sum(&layers),
                flops: layers.iter().fold(0, |sum, l| sum.saturating_add(l.flops)),
                bytes: layers.iter().fold(0, |sum, l| sum.saturating_add(l.bytes)),
                // With a peak performance of 0 the time would be infinite.
                floor: Duration::try_from_secs_f64(
                    layers.iter().map(|l| ceiling.seconds(l.flops, l.bytes)).sum(),
                )
                .unwrap_or(Duration::MAX),
            }
        };
        Class::ALL.map(of_class).into_iter().filter(|c| c.dispatches > 0).collect()
    }

    /// The dispatches, longest first.
    pub fn longest(&self) -> Vec<&Layer> {
        let mut layers: Vec<&Layer> = self.layers.iter().collect();
        layers.sort_by_key(|l| std::cmp::Reverse(l.time));
        layers
    }
}

/// The sum of their times.
fn sum(layers: &[&Layer]) -> Duration {
    layers.iter().fold(Duration::ZERO, |sum, l| sum.saturating_add(l.time))
}

/// How often every dispatch is timed.
const TIMES: usize = 5;

/// Profiles a call of `rows` rows.
///
/// # Errors
/// [`ErrorKind::Device`](crate::ErrorKind::Device) if the device has no timestamps.
pub fn profile(bench: &Bench<'_>, network: Network, rows: usize) -> Result<Profile> {
    let preset = match (network, bench.tiny) {
        (Network::Sdxl, false) => Preset::Sdxl,
        (Network::Sdxl, true) => Preset::TinySdxl,
        (_, false) => Preset::Sd15,
        (_, true) => Preset::TinySd1,
    };
    let graph = graph(network, preset)?;
    let engine = bench.engine()?;
    // Before gigabytes are uploaded.
    engine.need_clock()?;
    let weights = upload(bench, &engine, &graph, &preset.checkpoint()?)?;
    let ready = Ready::new(bench, &engine, &graph, rows, &weights)?;
    let mut samples = Vec::new();
    for _ in 0..TIMES {
        bench.go_on()?;
        samples.push(engine.time_each(ready.prepared())?);
    }
    let plan = ready.prepared().plan();
    let layers = plan.dispatches.iter().zip(classes(plan)).enumerate();
    let layers = layers
        .map(|(i, (d, class))| -> Result<Layer> {
            let mut times: Vec<Duration> = samples.iter().map(|s| s[i]).collect();
            times.sort();
            Ok(Layer {
                path: d.path.clone(),
                variant: d.variant.to_string(),
                class,
                groups: d.groups,
                time: times[TIMES / 2],
                flops: d.flops,
                bytes: bytes(plan, d, &weights)?,
            })
        })
        .collect::<Result<_>>()?;
    Ok(Profile { rows, total: ready.gpu()?, layers })
}

/// The class of each dispatch of a plan. The sum of split-K parts has the class of the product that it belongs to.
pub fn classes(plan: &Plan) -> Vec<Class> {
    let mut classes: Vec<Class> = Vec::with_capacity(plan.dispatches.len());
    for (i, dispatch) in plan.dispatches.iter().enumerate() {
        let parts = || {
            let mut before = plan.dispatches[..i].iter().zip(&classes).rev();
            before.find(|(d, _)| d.path == dispatch.path).map(|(_, class)| *class)
        };
        let class = if *dispatch.variant.kernel == gemm::MERGE { parts() } else { None };
        classes.push(class.unwrap_or(dispatch.variant.class()));
    }
    classes
}

fn graph(network: Network, preset: Preset) -> Result<Graph> {
    let (config, side) = (preset.config(), preset.side());
    match network {
        Network::Sd15 | Network::Sdxl => Unets { config: &config.unet, side }.graph(false),
        Network::Vae => vae::decoder(&config.vae, side, side),
        Network::Clip => {
            let text =
                config.text.first().ok_or_else(|| Error::internal("a model without a text encoder"))?;
            clip::build(text, &clip::Options { skip: 1, norm: true, pooled: false })
        }
    }
}

/// Bytes of all bindings of a dispatch.
fn bytes(plan: &Plan, dispatch: &Dispatch, weights: &Weights) -> Result<u64> {
    let of_binding = |bound: &Bound| match *bound {
        Bound::Arena(region) | Bound::Kept(region) => Ok(region.bytes),
        Bound::Weight(id) => weights.bytes_of(&plan.weights[id.0]),
        Bound::Unused => Ok(0),
    };
    dispatch.bindings.iter().map(of_binding).sum()
}
