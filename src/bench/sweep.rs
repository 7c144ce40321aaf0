//! The cost of the network calls of a CFG step of SD 1.5, over batch, picture size and rows per call.

use std::time::Instant;

use super::presets::Preset;
use super::ready::{Ready, upload};
use super::rows::Unets;
use super::{Bench, Timing};
use crate::engine::{Engine, Weights};
use crate::families::LATENT_CELL;
use crate::model::config::UnetConfig;
use crate::{Error, Result};

/// What varies from point to point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// Pictures of a step.
    Batch,
    /// Sides of the picture, pixels.
    Size,
    /// Rows of a network call.
    Chunk,
}

impl Axis {
    /// In the order in which they are measured.
    pub const ALL: [Axis; 3] = [Axis::Batch, Axis::Size, Axis::Chunk];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Axis::Batch => "batch",
            Axis::Size => "size",
            Axis::Chunk => "chunk rows",
        }
    }
}

/// A step to be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// What varies.
    pub axis: Axis,
    /// Sides of the pictures, pixels.
    pub side: usize,
    /// Pictures.
    pub batch: usize,
    /// Rows of a network call; a step has two rows per picture.
    pub rows: usize,
}

impl Step {
    /// The value of what varies.
    pub fn value(&self) -> usize {
        match self.axis {
            Axis::Batch => self.batch,
            Axis::Size => self.side,
            Axis::Chunk => self.rows,
        }
    }

    /// Network calls of the step; 0 if a call has no rows.
    pub fn calls(&self) -> usize {
        self.batch.saturating_mul(2).checked_next_multiple_of(self.rows).map_or(0, |rows| rows / self.rows)
    }
}

/// A step and what it took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// The step.
    pub step: Step,
    /// Wall time of all its network calls.
    pub wall: Timing,
    /// Their GPU time, if the device has timestamps.
    pub gpu: Option<Timing>,
    /// The most bytes of buffers on the device, including weights.
    pub peak_bytes: u64,
}

impl Point {
    /// Wall time of a network call, ms.
    pub fn ms_per_call(&self) -> f64 {
        self.wall.ms / self.step.calls() as f64
    }

    /// Wall time for each picture, ms.
    pub fn ms_per_picture(&self) -> f64 {
        self.wall.ms / self.step.batch as f64
    }
}

/// The steps that are measured: batches up to 16 and sizes of 256 to 2048 pixels in one call, and a
/// batch of 4 in calls of 1 to 8 rows. Small ones if `tiny` is set.
pub fn steps(tiny: bool) -> Vec<Step> {
    let usual = if tiny { 64 } else { 512 };
    let (batches, sizes, chunked, chunks): (&[usize], &[usize], usize, &[usize]) = match tiny {
        true => (&[1, 2], &[64, 128], 2, &[1, 2, 4]),
        false => (
            &[1, 2, 3, 4, 6, 8, 12, 16],
            &[256, 384, 512, 640, 768, 1024, 1280, 1536, 2048],
            4,
            &[1, 2, 4, 8],
        ),
    };
    let batches =
        batches.iter().map(|&batch| Step { axis: Axis::Batch, side: usual, batch, rows: 2 * batch });
    let sizes = sizes.iter().map(|&side| Step { axis: Axis::Size, side, batch: 1, rows: 2 });
    let chunks = chunks.iter().map(|&rows| Step { axis: Axis::Chunk, side: usual, batch: chunked, rows });
    batches.chain(sizes).chain(chunks).collect()
}

/// Measures `steps`, and reports each; one that is too large for the device is reported as an error.
///
/// # Errors
/// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled), or an error of the device while weights are uploaded.
pub fn measure(
    bench: &Bench<'_>,
    steps: &[Step],
    deadline: Option<Instant>,
    tell: &mut dyn FnMut(Step, Result<Point>),
) -> Result<()> {
    let preset = if bench.tiny { Preset::TinySd1 } else { Preset::Sd15 };
    let config = preset.config().unet;
    let engine = bench.engine()?;
    let graph = Unets { config: &config, side: preset.side() }.graph(false)?;
    let weights = upload(bench, &engine, &graph, &preset.checkpoint()?)?;
    for &step in steps {
        bench.go_on()?;
        let point = match deadline.is_some_and(|d| Instant::now() > d) {
            true => Err(Error::usage("the deadline has passed")),
            false => point(bench, &engine, &config, &weights, step),
        };
        // A point that was cancelled meanwhile is not reported.
        bench.go_on()?;
        tell(step, point);
    }
    Ok(())
}

fn point(
    bench: &Bench<'_>,
    engine: &Engine,
    config: &UnetConfig,
    weights: &Weights,
    step: Step,
) -> Result<Point> {
    // The memory of the step before is freed first.
    bench.settle();
    let graph = Unets { config, side: step.side / LATENT_CELL }.graph(false)?;
    let ready = Ready::new(bench, engine, &graph, step.rows, weights)?;
    engine.forget_peak();
    let wall = ready.wall_of(step.calls())?;
    let gpu = match engine.counts_time() {
        true => Some(ready.gpu()?.scaled(step.calls() as f64)),
        false => None,
    };
    Ok(Point { step, wall, gpu, peak_bytes: engine.peak_bytes() })
}
