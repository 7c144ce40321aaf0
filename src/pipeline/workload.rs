//! What the memory and work of sampling depend on, and what a dry run has counted.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::memory::Need;
use super::report::{self, Purpose, Work};
use super::settings::{Limits, Solver};
use crate::guidance::entry::PromptAddress;
use crate::guidance::{Conditioning, Guidance};
use crate::kernels::Variant;
use crate::network::RowKind;
use crate::plan::Plan;
use crate::plan::chunk::ChunkPolicy;

/// What the memory and work of a run depend on.
#[derive(Clone, Copy)]
pub struct Workload<'a> {
    pub conditioning: &'a Conditioning,
    /// Shape of the latents.
    pub shape: [usize; 4],
    pub guidance: &'a Guidance,
    pub solver: Solver,
    pub steps: usize,
    /// Whether a part of the start is kept.
    pub masked: bool,
    pub limits: Limits,
}

/// How the UNet fits the memory.
#[derive(Debug, Clone, Copy)]
pub struct UnetFit {
    pub need: Need,
    /// Bytes of weights that stay on the device; None is all of them.
    pub most_weights: Option<u64>,
    pub chunk: ChunkPolicy,
    /// Bytes for activations.
    pub budget: Option<u64>,
}

/// Counts of a run.
#[derive(Debug, Clone, Default)]
pub struct Counted {
    /// The work of a step in which all guidance is active, in order.
    pub step: Vec<Done>,
    /// All plans that were run, by kind and rows.
    pub plans: BTreeMap<(RowKind, usize), Arc<Plan>>,
    /// The kernels between them.
    pub kernels: HashSet<Variant>,
    /// Sizes of the arena's buffers, which all calls share.
    pub slabs: Vec<u64>,
    /// Latents, tables and what is read.
    pub latent_bytes: u64,
    /// Uploads that are under way at one time.
    pub staged_bytes: u64,
    /// Tensors of the prompts that are kept for all steps.
    pub prompt_bytes: u64,
    /// Combinations of prompts in the rows of a call.
    pub kept_rows: HashMap<(RowKind, usize), HashSet<Vec<PromptAddress>>>,
    pub alignment: u64,
}

/// A piece of work of a step.
#[derive(Debug, Clone)]
pub enum Done {
    /// A network call.
    Network(Purpose, Arc<Plan>),
    /// A dispatch between the calls: what it does, what is run, the bytes that it is bound to.
    Latents(String, Variant, u64),
}

impl Done {
    /// The same in a report.
    pub fn work(&self) -> Work {
        match self {
            Self::Network(purpose, plan) => Work::Network(report::Call {
                purpose: *purpose,
                rows: plan.rows,
                dispatches: plan.dispatches.len(),
                flops: plan.flops(),
                bytes: plan.bound_bytes(),
            }),
            Self::Latents(path, _, bytes) => Work::Latents { path: path.clone(), bytes: *bytes },
        }
    }
}

impl Counted {
    /// Bytes of the arena.
    pub fn arena_bytes(&self) -> u64 {
        self.slabs.iter().sum()
    }

    /// Bytes beside the arena.
    fn beside_bytes(&self) -> u64 {
        let latents = self.latent_bytes + self.staged_bytes;
        let params: u64 = self.plans.values().map(|plan| plan.params_bytes(self.alignment)).sum();
        latents + params + self.prompt_bytes
    }

    /// Memory of the network with `weights` bytes of weights, all of which stay on the device.
    pub fn need(&self, weights: u64) -> Need {
        Need::new(weights, self.arena_bytes(), self.beside_bytes())
    }
}
