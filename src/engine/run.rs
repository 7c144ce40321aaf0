//! A run of a plan: what comes in is written, dispatches are submitted, results are read back, with one
//! wait where the device is fast. Nothing that does not depend on what comes in is left for the time
//! between two runs, in which the device would stand still: the commands of the next run are encoded
//! while it works on this one.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{Engine, Kept, Prepared, Source, Weights, buffer, lost, trace, wait, weights};
use crate::gpu::Gpu;
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

/// Commands of a run that are encoded before it begins.
pub(super) struct Ahead {
    commands: wgpu::CommandBuffer,
    /// The dispatches in it: the first ones up to this.
    to: usize,
}

/// A portion that was submitted.
struct Flying {
    index: wgpu::SubmissionIndex,
    /// By which its time is judged; 0 if it was cut short.
    work: u64,
    /// When its predecessor was done.
    since: Instant,
}

impl Engine {
    pub(super) fn run_with(
        &self,
        prepared: &Prepared,
        turns: Option<(&Weights, &dyn Source)>,
        (inputs, kept): (&[(&str, &[f32])], &[&Kept]),
        cancel: &AtomicBool,
    ) -> Result<Vec<(String, Vec<f32>)>> {
        self.gpu.checked("run a plan", || {
            let mut ahead = prepared.ahead.lock().unwrap_or_else(PoisonError::into_inner);
            let from_host = |slot: &&Slot| kept.is_empty() || !slot.kept;
            for slot in prepared.plan.inputs.iter().filter(from_host) {
                let values = inputs
                    .iter()
                    .find(|(name, _)| *name == slot.name)
                    .ok_or_else(|| Error::internal(format!("input {} is missing", slot.name)))?;
                if self.is_tracing() {
                    trace::input(&slot.name, values.1)?;
                }
                let bytes = to_device(slot, values.1, prepared.plan.rows, prepared.plan.precision())?;
                let slab = &prepared.arena.slabs[slot.region.slab];
                self.gpu.queue().write_buffer(slab, slot.region.offset, &bytes);
            }
            self.look_at_memory();
            let bring = match kept {
                [] => None,
                kept => {
                    let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
                    prepared.bring(&mut encoder, kept)?;
                    Some(encoder.finish())
                }
            };
            let done = self.dispatch(prepared, turns, (bring, &mut ahead), cancel);
            if done.is_err() {
                // What was written for the run would hold its buffers until something is submitted.
                self.gpu.queue().submit([]);
            }
            done
        })?
    }

    /// Submits all dispatches in portions of about [`SUBMISSION`], at most two in flight, and reads
    /// the results.
    fn dispatch(
        &self,
        prepared: &Prepared,
        turns: Option<(&Weights, &dyn Source)>,
        (mut bring, ahead): (Option<wgpu::CommandBuffer>, &mut Option<Ahead>),
        cancel: &AtomicBool,
    ) -> Result<Vec<(String, Vec<f32>)>> {
        let dispatches = &prepared.plan.dispatches;
        let mut flying: Option<Flying> = None;
        let mut from = 0;
        let mapped = loop {
            if cancel.load(Ordering::Relaxed) {
                return Err(Error::cancelled());
            }
            let pages = prepared.pages(from);
            if !pages.is_empty() {
                let (weights, source) =
                    turns.ok_or_else(|| Error::internal("weights that take turns need their source"))?;
                weights.turn(&self.on_device(), pages, source, cancel)?;
            }
            let (to, work) = self.portion(prepared, from);
            let commands = match ahead.take().filter(|a| from == 0 && a.to == to) {
                Some(ready) => ready.commands,
                None => self.encode(prepared, from..to),
            };
            let index = self.gpu.queue().submit(bring.take().into_iter().chain([commands]));
            if self.is_tracing() {
                self.look_at_results(prepared, from)?;
            }
            let mapped = (to == dispatches.len()).then(|| prepared.map(&self.gpu));
            if let Some(done) = flying.take() {
                self.land(done)?;
            }
            // The next portion starts when this one's predecessor is done, which is now.
            flying = Some(Flying { index, work, since: Instant::now() });
            from = to;
            if let Some(mapped) = mapped {
                break mapped;
            }
        };
        // The device works on the last portion.
        let (to, _) = self.portion(prepared, 0);
        *ahead = Some(Ahead { commands: self.encode(prepared, 0..to), to });
        if let Some(last) = flying {
            self.land(last)?;
        }
        mapped.recv().map_err(|_| lost())?.map_err(|e| lost().cause(e))?;
        prepared.results(&self.gpu)
    }

    /// The end of the portion that begins with dispatch `from`, and its work; 0 if it is cut short by
    /// weights that take turns, since a submission sees the pages that were there when it left.
    fn portion(&self, prepared: &Prepared, from: usize) -> (usize, u64) {
        if self.is_tracing() {
            return (from + 1, 0);
        }
        let (most, work) = portion(&prepared.plan.dispatches, from, self.budget.load(Ordering::Relaxed));
        let pages = prepared.pages(from);
        let same =
            prepared.steps[from..most].iter().take_while(|s| s.turning.iter().all(|p| pages.contains(p)));
        let to = from + same.count();
        (to, if to == most { work } else { 0 })
    }

    /// Commands of some dispatches, and behind the last one those that bring results to the readback.
    fn encode(&self, prepared: &Prepared, part: Range<usize>) -> wgpu::CommandBuffer {
        let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
        let last = part.end == prepared.steps.len();
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            part.for_each(|i| prepared.encode(&mut pass, i));
        }
        let mut at = 0;
        for region in prepared.plan.read_back().map(|o| o.region).filter(|_| last) {
            let slab = &prepared.arena.slabs[region.slab];
            let readback = prepared.readback(&self.gpu);
            encoder.copy_buffer_to_buffer(slab, region.offset, readback, at, region.bytes);
            at += region.bytes;
        }
        encoder.finish()
    }

    /// Waits for a portion and learns from its time.
    fn land(&self, flying: Flying) -> Result<()> {
        wait(&self.gpu, flying.index)?;
        let old = self.budget.load(Ordering::Relaxed);
        self.budget.store(learn(old, flying.work, flying.since.elapsed()), Ordering::Relaxed);
        Ok(())
    }
}

impl Prepared {
    /// The buffer of a region.
    pub(crate) fn slab(&self, region: crate::plan::Region) -> &wgpu::Buffer {
        &self.arena.slabs[region.slab]
    }

    /// Pages of weights that dispatch `i` needs brought over.
    pub(super) fn pages(&self, i: usize) -> &[usize] {
        self.steps.get(i).map_or(&[], |s| &s.turning)
    }

    fn readback(&self, gpu: &Gpu) -> &wgpu::Buffer {
        use wgpu::BufferUsages as U;
        let bytes: u64 = self.plan.read_back().map(|o| o.region.bytes).sum();
        self.readback.get_or_init(|| buffer(gpu, "readback", bytes.max(4), U::MAP_READ | U::COPY_DST))
    }

    /// Adds dispatch `i` to `pass`.
    pub(super) fn encode(&self, pass: &mut wgpu::ComputePass<'_>, i: usize) {
        let [x, y, z] = self.plan.dispatches[i].groups;
        pass.set_pipeline(&self.steps[i].pipeline);
        pass.set_bind_group(0, &self.steps[i].group, &[]);
        pass.dispatch_workgroups(x, y, z);
    }

    /// Asks for the readback once all that was submitted is done.
    fn map(&self, gpu: &Gpu) -> std::sync::mpsc::Receiver<std::result::Result<(), wgpu::BufferAsyncError>> {
        let (send, receive) = std::sync::mpsc::channel();
        self.readback(gpu).map_async(wgpu::MapMode::Read, .., move |r| {
            // Nobody receives where the wait has failed.
            let _ = send.send(r);
        });
        receive
    }

    /// The results in the readback, which is mapped.
    fn results(&self, gpu: &Gpu) -> Result<Vec<(String, Vec<f32>)>> {
        let readback = self.readback(gpu);
        let view = readback.get_mapped_range(..).map_err(|e| lost().cause(e))?;
        let mut at = 0;
        let mut results = Vec::with_capacity(self.plan.outputs.len());
        for o in self.plan.read_back() {
            let bytes = &view[at..at + o.region.bytes as usize];
            results.push((o.name.clone(), from_device(o, bytes, self.plan.rows)));
            at += o.region.bytes as usize;
        }
        drop(view);
        readback.unmap();
        Ok(results)
    }
}

/// How far the dispatches from `from` on go with `budget`, at least one, and their work.
pub(super) fn portion(dispatches: &[Dispatch], from: usize, budget: u64) -> (usize, u64) {
    // Launches cost time too: one stands for a million operations.
    let cost = |d: &Dispatch| d.flops + 1_000_000;
    let mut work = 0;
    let mut to = from;
    while to < dispatches.len() && (to == from || work + cost(&dispatches[to]) <= budget) {
        work += cost(&dispatches[to]);
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
    let want = rows * slot.shape.positions() * c;
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
fn from_device(slot: &Slot, bytes: &[u8], rows: usize) -> Vec<f32> {
    let values: Vec<f32> = bytemuck::pod_collect_to_vec(bytes);
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
