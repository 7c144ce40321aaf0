//! Network calls prepared for a device.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

use super::prompts::Prompts;
use super::{Batching, Planner, RowKind};
use crate::Result;
use crate::engine::{Arena, Engine, KeptTensors, PlanRun, Prepared, Weights};
use crate::guidance::Entry;
use crate::lora::Patched;
use crate::model::Prediction;
use crate::model::unet::VECTOR;
use crate::plan::Plan;
use crate::plan::chunk::ChunkPolicy;
use crate::sampler::Discrete;

/// The parts of a loaded UNet that a run needs.
#[derive(Clone, Copy)]
pub struct Unet<'a> {
    /// Its calls.
    pub planner: Planner<'a>,
    /// The engine.
    pub engine: &'a Engine,
    /// Its weights; some may be streamed.
    pub weights: &'a Weights,
    /// The source of streamed weights.
    pub source: Patched<'a>,
    /// What its output means.
    pub prediction: Prediction,
    /// Timesteps of noise levels.
    pub discrete: &'a Discrete,
}

/// The prepared calls of a UNet: plans with their bindings, one arena for all of them, and the kept tensors of prompts.
pub struct NetworkCalls<'a> {
    pub(super) unet: Unet<'a>,
    pub(super) batching: Batching<'a>,
    pub(super) ready: HashMap<(RowKind, usize), Prepared>,
    pub(super) arena: Option<Arena>,
    /// How many arenas were made so far.
    pub(super) arenas: usize,
    pub(super) prompts: Prompts,
}

impl<'a> NetworkCalls<'a> {
    /// Calls by `policy` with an arena of at most `budget` bytes.
    pub fn new(unet: Unet<'a>, policy: ChunkPolicy, budget: Option<u64>) -> Self {
        let batching = Batching::new(unet.planner, policy, budget);
        Self { unet, batching, ready: HashMap::new(), arena: None, arenas: 0, prompts: Prompts::default() }
    }

    /// Prepares the call of `rows` rows of `kind`.
    pub(super) fn prepare(&mut self, kind: RowKind, rows: usize) -> Result<()> {
        if self.ready.contains_key(&(kind, rows)) {
            return Ok(());
        }
        let plan = self.batching.plan(kind, rows)?;
        let arena = self.arena_for(&plan)?;
        let prepared = self.unet.engine.prepare(plan, self.unet.weights, &arena)?;
        self.ready.insert((kind, rows), prepared);
        Ok(())
    }

    /// The arena of the other plans if it is large enough for `plan`, else a new, larger one for all.
    fn arena_for(&mut self, plan: &Plan) -> Result<Arena> {
        let mut sizes = self.arena.as_ref().map_or_else(Vec::new, Arena::sizes);
        let arena = match self.arena.take().filter(|a| a.holds(plan)) {
            Some(arena) => arena,
            None => {
                // The bindings to the old arena are dropped with it. The new one is large enough for its plans too.
                self.ready.clear();
                self.arenas += 1;
                plan.enlarge(&mut sizes);
                self.unet.engine.arena_of(&sizes)?
            }
        };
        self.arena = Some(arena.clone());
        Ok(arena)
    }

    /// Makes the arena large enough for the plans that read the prompts of `entries`.
    pub(super) fn make_room_for_prompts(&mut self, entries: &[&Entry]) -> Result<()> {
        for entry in entries {
            if self.prompts.find(entry).is_none() {
                let plan = self.unet.planner.conditioning(entry.tokens)?;
                self.arena_for(&plan)?;
            }
        }
        Ok(())
    }

    /// Computes the tensors of the prompts of `entries` that do not exist yet, by `keep`, and drops those that are no
    /// longer used.
    pub(super) fn read_prompts<'e>(
        &mut self,
        entries: impl Iterator<Item = &'e Entry>,
        cancel: &AtomicBool,
        keep: &mut dyn FnMut(&Prepared, &PlanRun<'_>) -> Result<KeptTensors>,
    ) -> Result<()> {
        self.prompts.drop_unused();
        for entry in entries {
            if self.prompts.find(entry).is_none() {
                let plan = self.unet.planner.conditioning(entry.tokens)?;
                let arena = self.arena_for(&plan)?;
                let prepared = self.unet.engine.prepare(plan, self.unet.weights, &arena)?;
                let mut inputs = vec![("context", entry.context.as_slice())];
                inputs.extend(entry.vector.as_ref().map(|v| (VECTOR, v.as_slice())));
                let run = PlanRun::new(&inputs, cancel).with_streamed(self.unet.weights, &self.unet.source);
                let kept = keep(&prepared, &run)?;
                self.prompts.add(entry, kept);
            }
        }
        Ok(())
    }
}
