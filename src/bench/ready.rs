//! A graph on the device with weights by a formula and random inputs, ready to be timed.

use std::time::{Duration, Instant};

use super::{Bench, Timing};
use crate::checkpoint::Checkpoint;
use crate::engine::{Engine, KeptTensors, PlanRun, Prepared, Weights};
use crate::graph::Graph;
use crate::plan::{Plan, PlanOptions};
use crate::{Error, ErrorKind, Result};

/// A plan that can be run again and again.
pub struct Ready<'a> {
    bench: &'a Bench<'a>,
    engine: &'a Engine,
    prepared: Prepared,
    inputs: Vec<(String, Vec<f32>)>,
    /// Kept tensors of a prompt, used for each row.
    kept: Option<KeptTensors>,
}

impl<'a> Ready<'a> {
    /// `graph` for `rows` rows with `weights`, in its own arena. It has run once, so that all activations are finite, and
    /// the device is warm.
    ///
    /// # Errors
    /// [`ErrorKind::NonFinite`] if its results are not finite; an error of the device.
    pub fn new(
        bench: &'a Bench<'a>,
        engine: &'a Engine,
        graph: &Graph,
        rows: usize,
        weights: &Weights,
    ) -> Result<Self> {
        let (storage, device) = (weights.storage().clone(), engine.gpu().profile().clone());
        let plan = Plan::new(graph, &PlanOptions { rows, storage, device, guard: 0 })?;
        Self::of_plan(bench, engine, plan, weights)
    }

    /// The same of a plan.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn of_plan(bench: &'a Bench<'a>, engine: &'a Engine, plan: Plan, weights: &Weights) -> Result<Self> {
        let rows = plan.rows;
        let arena = engine.arena(&plan)?;
        let prepared = engine.prepare(plan, weights, &arena)?;
        let values = |kept: bool, rows: usize| -> Vec<(String, Vec<f32>)> {
            let slots = prepared.plan().inputs.iter().filter(|s| s.kept == kept);
            slots.map(|s| (s.name.clone(), noise(rows * s.shape.positions() * s.shape.channels))).collect()
        };
        let inputs = values(false, rows);
        let of_prompt = values(true, 1);
        let kept = match of_prompt.is_empty() {
            true => None,
            false => Some(engine.keep(&prepared, &named(&of_prompt))?),
        };
        let ready = Self { bench, engine, prepared, inputs, kept };
        let results = ready.run()?;
        if let Some((name, _)) = results.iter().find(|(_, v)| v.iter().any(|v| !v.is_finite())) {
            return Err(Error::new(ErrorKind::NonFinite, "a result is not finite").at(name.clone()));
        }
        bench.effort.warm(|| ready.run().map(drop))?;
        Ok(ready)
    }

    /// The plan.
    pub fn prepared(&self) -> &Prepared {
        &self.prepared
    }

    fn run(&self) -> Result<Vec<(String, Vec<f32>)>> {
        let kept: Vec<&KeptTensors> = self.kept.iter().cycle().take(self.prepared.plan().rows).collect();
        let inputs = named(&self.inputs);
        self.engine.run(&self.prepared, &PlanRun::new(&inputs, self.bench.cancel).on(&kept))
    }

    /// Wall time of one run.
    pub fn wall(&self) -> Result<Timing> {
        self.wall_of(1)
    }

    /// Wall time of `calls` runs one after the other.
    pub fn wall_of(&self, calls: usize) -> Result<Timing> {
        let once = || {
            let begun = Instant::now();
            for _ in 0..calls {
                self.run()?;
            }
            Ok(begun.elapsed())
        };
        Ok(Timing::of(&self.bench.effort.sample(self.bench.effort.calls, once)?))
    }

    /// GPU time of one run.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] if the device has no timestamps.
    pub fn gpu_once(&self) -> Result<Duration> {
        self.bench.go_on()?;
        self.engine.time_run(&self.prepared)
    }

    /// GPU time of one run, of several samples.
    ///
    /// # Errors
    /// As [`gpu_once`](Self::gpu_once).
    pub fn gpu(&self) -> Result<Timing> {
        // The first timing after other runs is slower.
        self.gpu_once()?;
        Ok(Timing::of(&self.bench.effort.sample(self.bench.effort.calls, || self.gpu_once())?))
    }
}

fn named(values: &[(String, Vec<f32>)]) -> Vec<(&str, &[f32])> {
    values.iter().map(|(name, v)| (name.as_str(), v.as_slice())).collect()
}

/// Weights of `graph` on the device.
pub fn upload(bench: &Bench<'_>, engine: &Engine, graph: &Graph, checkpoint: &Checkpoint) -> Result<Weights> {
    let storage = engine.storage(graph.weights(), checkpoint, bench.precision());
    engine.upload(graph.weights(), checkpoint, &storage, None, bench.cancel)
}

/// `n` pseudo-random numbers of variance 1: with zeros the device would use less power, and be faster.
fn noise(n: usize) -> Vec<f32> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut next = || {
        // Marsaglia's xorshift64.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 40) as f32 / (1u32 << 23) as f32 - 1.0) * 3f32.sqrt()
    };
    (0..n).map(|_| next()).collect()
}
