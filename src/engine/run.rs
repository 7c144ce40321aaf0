//! A run of a plan by itself: what comes in is written, the plan is recorded and sent, results are read.

use std::borrow::Cow;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use super::stream::cost;
use super::{Bindings, Engine, Kept, Prepared, Readback, Source, Spot, Stream, Upload, Weights};
use super::{kept, trace, weights};
use crate::graph::Store;
use crate::kernels::Precision;
use crate::plan::{Dispatch, Slot};
use crate::{Error, Result};

/// Longest time that a submission should take. Windows resets a GPU after two seconds, and cancel
/// waits for what is submitted.
const SUBMISSION: Duration = Duration::from_millis(100);

/// Most that the budget grows at a time. From the first guess to a whole network of a fast device it
/// takes three portions.
const GROWTH: f64 = 8.0;

/// What a run of a plan is given.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// Values of the inputs by name, f32 `[row, position, channel]`.
    pub inputs: &'a [(&'a str, &'a [f32])],
    /// What other plans kept, one a row; none if the plan reads nothing of that kind.
    pub kept: &'a [&'a Kept],
    /// Weights that may not all be on the device, and where the others are read from when their turn comes.
    pub turns: Option<(&'a Weights, &'a dyn Source)>,
    /// Ends the run when it is set.
    pub cancel: &'a AtomicBool,
}

impl<'a> Run<'a> {
    /// A run on `inputs` alone.
    pub fn new(inputs: &'a [(&'a str, &'a [f32])], cancel: &'a AtomicBool) -> Self {
        Self { inputs, kept: &[], turns: None, cancel }
    }

    /// With weights that may take turns.
    pub fn in_turn(self, weights: &'a Weights, source: &'a dyn Source) -> Self {
        Self { turns: Some((weights, source)), ..self }
    }

    /// On what other plans kept, one a row.
    pub fn on(self, kept: &'a [&'a Kept]) -> Self {
        Self { kept, ..self }
    }
}

impl Engine {
    /// Runs a plan. Results are f32 values `[row, position, channel]` by name.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled) if `cancel` is set meanwhile,
    /// [`ErrorKind::Device`](crate::ErrorKind::Device) if the device is lost,
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if an input is missing or of the wrong size.
    pub fn run(&self, prepared: &Prepared, run: &Run<'_>) -> Result<Vec<(String, Vec<f32>)>> {
        let _alone = prepared.alone();
        let mut stream = Stream::new(self, run.cancel);
        self.record(prepared, run, &mut stream)?;
        let mut fetches = Vec::new();
        for slot in prepared.plan.read_back() {
            let spot = Spot { buffer: prepared.slab(slot.region).clone(), offset: slot.region.offset };
            fetches.push((slot, stream.copy_out(Readback::Results, &spot, slot.region.bytes)?));
        }
        stream.send()?;
        let mut results = Vec::new();
        for (slot, fetch) in fetches {
            let words = stream.arrived(fetch)?;
            results.push((slot.name.clone(), from_device(slot, &words, prepared.plan.rows)));
        }
        self.check_turns(run)?;
        Ok(results)
    }

    /// Runs a plan of one row and keeps its results that are to be kept.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_and_keep(&self, prepared: &Prepared, run: &Run<'_>) -> Result<Kept> {
        let _alone = prepared.alone();
        let mut stream = Stream::new(self, run.cancel);
        let kept = self.record_and_keep(prepared, run, &mut stream)?;
        let sent = stream.send()?;
        // Until then the arena cannot leave, for which others may have no room.
        stream.done(sent)?;
        self.check_turns(run)?;
        Ok(kept)
    }

    /// The same as a part of `stream`: what is kept is there when that comes to it.
    pub(crate) fn record_and_keep(
        &self,
        prepared: &Prepared,
        run: &Run<'_>,
        stream: &mut Stream<'_>,
    ) -> Result<Kept> {
        self.record(prepared, run, stream)?;
        let kept = self.gpu.checked("keep results", || Kept::room(self, prepared))?;
        for (slot, (_, to)) in prepared.plan.outputs.iter().filter(|o| o.kept).zip(kept.buffers()) {
            let from = Spot { buffer: prepared.slab(slot.region).clone(), offset: slot.region.offset };
            stream.copy(&from, to, slot.region.bytes);
        }
        Ok(kept)
    }

    /// Writes what `run` is given and records it.
    fn record(&self, prepared: &Prepared, run: &Run<'_>, stream: &mut Stream<'_>) -> Result<()> {
        // The host's values arrive before all that is not submitted.
        stream.cut()?;
        let written = self.gpu.checked("bring inputs over", || self.write_inputs(prepared, run));
        let recorded = written.and_then(|w| w).and_then(|()| stream.plan(prepared, run.turns, run.kept));
        if recorded.is_err() {
            // What was written for the run would hold its buffers until something is submitted.
            self.gpu.queue().submit([]);
        }
        recorded
    }

    fn write_inputs(&self, prepared: &Prepared, run: &Run<'_>) -> Result<()> {
        for slot in prepared.plan.inputs.iter().filter(|slot| !slot.kept) {
            let values = run
                .inputs
                .iter()
                .find(|(name, _)| *name == slot.name)
                .ok_or_else(|| Error::usage(format!("input {} is missing", slot.name)))?;
            if self.is_tracing() {
                trace::input(&slot.name, values.1)?;
            }
            let bytes = to_device(slot, values.1, prepared.plan.rows, prepared.plan.precision())?;
            self.write(Upload::SetUp, prepared.slab(slot.region), slot.region.offset, &bytes);
        }
        Ok(())
    }

    fn check_turns(&self, run: &Run<'_>) -> Result<()> {
        match run.turns {
            Some((weights, source)) => self.check_weights_in_turn(weights, source),
            None => Ok(()),
        }
    }

    /// Whether all of `weights` that took turns since the last time were sound; waits for them.
    ///
    /// # Errors
    /// [`ErrorKind::Model`](crate::ErrorKind::Model) naming the first that is not.
    pub(crate) fn check_weights_in_turn(&self, weights: &Weights, source: &dyn Source) -> Result<()> {
        weights.check_turns(&self.on_device(), source)
    }
}

impl Prepared {
    /// The buffer of a region of the arena.
    pub(crate) fn slab(&self, region: crate::plan::Region) -> &wgpu::Buffer {
        &self.arena.slabs()[region.slab]
    }

    fn alone(&self) -> MutexGuard<'_, ()> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pages of weights that dispatch `i` needs brought over.
    pub(super) fn pages(&self, i: usize) -> &[usize] {
        self.steps.get(i).map_or(&[], |s| &s.turning)
    }

    /// Adds dispatch `i` to `pass`, reading what was kept for `rows`.
    pub(super) fn encode(
        &self,
        pass: &mut wgpu::ComputePass<'_>,
        i: usize,
        rows: Option<&Arc<kept::Rows>>,
    ) -> Result<()> {
        let [x, y, z] = self.plan.dispatches[i].groups;
        let step = &self.steps[i];
        let group = match &step.bindings {
            Bindings::Fixed(group) => Some(group),
            Bindings::Open(_) => rows.and_then(|rows| rows.group(i)),
        };
        let missing = || Error::usage(format!("{} reads what nobody kept", self.plan.dispatches[i].path));
        pass.set_pipeline(&step.pipeline);
        pass.set_bind_group(0, group.ok_or_else(missing)?, &[]);
        pass.dispatch_workgroups(x, y, z);
        Ok(())
    }
}

/// How far the dispatches from `from` on go with `budget`, at least one, and their work.
pub(super) fn portion(dispatches: &[Dispatch], from: usize, budget: u64) -> (usize, u64) {
    let mut work = 0u64;
    let mut to = from;
    while to < dispatches.len() && (to == from || work.saturating_add(cost(dispatches[to].flops)) <= budget) {
        work = work.saturating_add(cost(dispatches[to].flops));
        to += 1;
    }
    (to, work)
}

/// The budget `old` moved towards what fits into [`SUBMISSION`] at the speed of a portion that took
/// `took` for `work`, which is 0 where a portion says nothing.
pub(super) fn learn(old: u64, work: u64, took: Duration) -> u64 {
    if work == 0 {
        return old;
    }
    let fits = work as f64 * SUBMISSION.as_secs_f64() / took.as_secs_f64().max(1e-6);
    let old = old as f64;
    // A short portion's time is mostly that of waking up: the device is at least as fast as it looks.
    let least = if took < Duration::from_millis(2) { old } else { old / 2.0 };
    fits.clamp(least, old * GROWTH).clamp(1e8, 1e14) as u64
}

/// `[row, position, channel]` as the device stores it: channels padded to quads, in the slot's type.
pub(super) fn to_device<'v>(
    slot: &Slot,
    values: &'v [f32],
    rows: usize,
    precision: Precision,
) -> Result<Cow<'v, [u8]>> {
    let c = slot.shape.channels;
    let want = rows.saturating_mul(slot.shape.positions()).saturating_mul(c);
    if values.len() != want {
        return Err(Error::usage(format!("the input `{}` does not fit the network", slot.name))
            .expected(format!("{want} values: {rows} rows of {}", slot.shape))
            .found(values.len().to_string()));
    }
    let width = slot.shape.quads() * 4;
    let mut padded = Cow::Borrowed(values);
    if width != c {
        let to = padded.to_mut();
        *to = vec![0.0f32; rows * slot.shape.positions() * width];
        for (to, from) in to.chunks_exact_mut(width).zip(values.chunks_exact(c)) {
            to[..c].copy_from_slice(from);
        }
    }
    Ok(match (slot.store, precision, padded) {
        (Store::Elem, Precision::F16, padded) => weights::to_f16(&padded).into(),
        (_, _, Cow::Borrowed(values)) => bytemuck::cast_slice(values).into(),
        (_, _, Cow::Owned(values)) => bytemuck::cast_slice(&values).to_vec().into(),
    })
}

/// The inverse of [`to_device`] for f32 results.
fn from_device(slot: &Slot, words: &[u32], rows: usize) -> Vec<f32> {
    let values: Vec<f32> = bytemuck::cast_slice(words).to_vec();
    let (c, width) = (slot.shape.channels, slot.shape.quads() * 4);
    if slot.store == Store::Plain || c == width {
        return values;
    }
    let mut out = Vec::with_capacity(rows * slot.shape.positions() * c);
    for position in values.chunks_exact(width) {
        out.extend_from_slice(&position[..c]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: f64) -> Duration {
        Duration::from_secs_f64(ms / 1e3)
    }

    #[test]
    fn the_budget_follows_the_speed() {
        let start = 50_000_000_000;
        // 80 TFLOP/s: a portion of the first guess takes 0.6 ms, and three later a second's tenth fits.
        let mut budget = start;
        for _ in 0..3 {
            budget = learn(budget, budget, ms(budget as f64 / 80e9));
        }
        assert_eq!(budget, 8_000_000_000_000);
        // A slow device is given less at a time, but never by half of the half.
        assert_eq!(learn(start, start, ms(1000.0)), start / 2);
        // A short portion says nothing of slowness, and what was cut nothing at all.
        assert_eq!(learn(start, 1_000_000, ms(1.0)), start);
        assert_eq!(learn(start, 0, ms(500.0)), start);
    }
}
