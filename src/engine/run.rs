//! Runs of a single plan: inputs are written, the plan is recorded and submitted, results are read back.

use std::sync::atomic::AtomicBool;

use super::buffers::{TENSORS, buffer};
use super::trace;
use super::values::{from_device, to_device};
use super::{BufferOffset, Engine, KeptTensors, Prepared, Readback, Stream, Upload, WeightSource, Weights};
use crate::plan::PlanSlot;
use crate::{Error, Result};

/// The arguments of a run of a plan.
#[derive(Clone, Copy)]
pub struct PlanRun<'a> {
    /// The inputs by name, f32 `[row, position, channel]`.
    pub inputs: &'a [(&'a str, &'a [f32])],
    /// Kept tensors of other plans, one for each row; empty if the plan does not read any.
    pub kept: &'a [&'a KeptTensors],
    /// Weights that may be streamed, and the source that they are read from.
    pub streamed: Option<(&'a Weights, &'a dyn WeightSource)>,
    /// Setting it cancels the run.
    pub cancel: &'a AtomicBool,
}

impl<'a> PlanRun<'a> {
    /// A run with `inputs` alone.
    pub fn new(inputs: &'a [(&'a str, &'a [f32])], cancel: &'a AtomicBool) -> Self {
        Self { inputs, kept: &[], streamed: None, cancel }
    }

    /// With weights that may be streamed.
    pub fn with_streamed(self, weights: &'a Weights, source: &'a dyn WeightSource) -> Self {
        Self { streamed: Some((weights, source)), ..self }
    }

    /// With kept tensors of other plans, one for each row.
    pub fn on(self, kept: &'a [&'a KeptTensors]) -> Self {
        Self { kept, ..self }
    }
}

impl Engine {
    /// Runs a plan. Results are f32 values `[row, position, channel]` by name.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled) if `cancel` is set,
    /// [`ErrorKind::Device`](crate::ErrorKind::Device) if the device is lost,
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if an input is missing or of the wrong size.
    pub fn run(&self, prepared: &Prepared, run: &PlanRun<'_>) -> Result<Vec<(String, Vec<f32>)>> {
        let _alone = prepared.alone();
        let mut stream = Stream::new(self, run.cancel);
        self.record(prepared, run, &mut stream)?;
        let mut fetches = Vec::new();
        for slot in prepared.plan().read_back() {
            let spot =
                BufferOffset { buffer: prepared.slab(slot.region).clone(), offset: slot.region.offset };
            fetches.push((slot, stream.copy_out(Readback::Results, &spot, slot.region.bytes)?));
        }
        stream.send()?;
        let mut results = Vec::new();
        for (slot, fetch) in fetches {
            let words = stream.arrived(fetch)?;
            results.push((slot.name.clone(), from_device(slot, &words, prepared.plan().rows)));
        }
        self.check_streamed(run)?;
        Ok(results)
    }

    /// Uploads values of one row as kept tensors that `prepared` can read, as if another plan had computed them.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn keep(&self, prepared: &Prepared, values: &[(&str, &[f32])]) -> Result<KeptTensors> {
        let keep = |slot: &PlanSlot| {
            let (_, values) = values
                .iter()
                .find(|(name, _)| *name == slot.name)
                .ok_or_else(|| Error::usage(format!("input {} is missing", slot.name)))?;
            let bytes = to_device(slot, values, 1, prepared.plan().precision())?;
            let kept = buffer(&self.gpu, "kept", bytes.len() as u64, TENSORS);
            self.write(Upload::SetUp, &kept, 0, &bytes);
            Ok((slot.name.clone(), kept))
        };
        let slots = prepared.plan().inputs.iter().filter(|i| i.kept);
        let tensors = self.gpu.checked("keep values", || slots.map(keep).collect::<Result<_>>())??;
        Ok(KeptTensors::new(tensors))
    }

    /// Runs a plan of one row, and returns its kept results.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_and_keep(&self, prepared: &Prepared, run: &PlanRun<'_>) -> Result<KeptTensors> {
        let _alone = prepared.alone();
        let mut stream = Stream::new(self, run.cancel);
        let kept = self.record_and_keep(prepared, run, &mut stream)?;
        let sent = stream.send()?;
        // The arena is in use until then, and others may need its memory.
        stream.done(sent)?;
        self.check_streamed(run)?;
        Ok(kept)
    }

    /// The same as a part of `stream`: the tensors are valid for work that is recorded later.
    pub(crate) fn record_and_keep(
        &self,
        prepared: &Prepared,
        run: &PlanRun<'_>,
        stream: &mut Stream<'_>,
    ) -> Result<KeptTensors> {
        self.record(prepared, run, stream)?;
        let kept = self.gpu.checked("keep results", || prepared.persistent_results(&self.gpu))?;
        for (slot, (_, to)) in prepared.plan().outputs.iter().filter(|o| o.kept).zip(kept.buffers()) {
            let from =
                BufferOffset { buffer: prepared.slab(slot.region).clone(), offset: slot.region.offset };
            stream.copy(&from, to, slot.region.bytes);
        }
        Ok(kept)
    }

    /// Writes the inputs of `run`, and records it.
    fn record(&self, prepared: &Prepared, run: &PlanRun<'_>, stream: &mut Stream<'_>) -> Result<()> {
        // Values from the host arrive before all work that is not submitted yet.
        stream.cut()?;
        let written = self.gpu.checked("upload inputs", || self.write_inputs(prepared, run));
        let recorded = written.and_then(|w| w).and_then(|()| stream.plan(prepared, run.streamed, run.kept));
        if recorded.is_err() {
            // Otherwise the writes for the run would hold their buffers until the next submission.
            self.gpu.queue().submit([]);
        }
        recorded
    }

    fn write_inputs(&self, prepared: &Prepared, run: &PlanRun<'_>) -> Result<()> {
        for slot in prepared.plan().inputs.iter().filter(|slot| !slot.kept) {
            let values = run
                .inputs
                .iter()
                .find(|(name, _)| *name == slot.name)
                .ok_or_else(|| Error::usage(format!("input {} is missing", slot.name)))?;
            if self.is_tracing() {
                trace::input(&slot.name, values.1)?;
            }
            let bytes = to_device(slot, values.1, prepared.plan().rows, prepared.plan().precision())?;
            self.write(Upload::SetUp, prepared.slab(slot.region), slot.region.offset, &bytes);
        }
        Ok(())
    }

    fn check_streamed(&self, run: &PlanRun<'_>) -> Result<()> {
        match run.streamed {
            Some((weights, source)) => self.check_streamed_weights(weights, source),
            None => Ok(()),
        }
    }

    /// Checks the weights that were streamed since the last call; waits for them.
    ///
    /// # Errors
    /// [`ErrorKind::Model`](crate::ErrorKind::Model) that names the first weight that is not finite, or does not fit f16.
    pub(crate) fn check_streamed_weights(&self, weights: &Weights, source: &dyn WeightSource) -> Result<()> {
        weights.check_streamed(&self.converter(), source)
    }
}
