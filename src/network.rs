//! The UNet as guidance asks for it: rows in, denoised predictions out, in chunks that fit the memory.
//!
//! [`DeviceBackend`] keeps latents on the device from the first noise to the result. [`UnetNetwork`] is the same
//! network for guidance on the host: it takes rows and gives predictions as host latents, for references and for
//! guidance of one's own making.

mod denoising;
mod device;
mod plans;
mod prompts;
mod sink;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::engine::{Arena, Engine, Prepared, Run, Weights};
use crate::graph::Graph;
use crate::guidance::{Columns, Network, Row, RowResult};
use crate::kernels::Precision;
use crate::latent::Latent;
use crate::lora::Patched;
use crate::model::Prediction;
use crate::model::unet::{self, COLUMNS, Perturbation};
use crate::plan::chunk::{ChunkPolicy, rows_per_call};
use crate::plan::{Capabilities, Options, Plan};
use crate::sampler::Discrete;
use crate::{Error, Result};
pub use denoising::DenoisingNetwork;
pub(crate) use device::bytes_of;
pub use device::{DeviceBackend, Meanings};
pub use plans::Plans;
use prompts::Prompts;
pub use sink::{AHEAD, Buffer, DeviceSink, Sink};

/// What rows must share to be computed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind {
    /// Latent height and width.
    pub size: (usize, usize),
    /// Tokens of the conditioning.
    pub tokens: usize,
    /// Whether column sums are recorded: for all rows if for one.
    pub record: bool,
    /// What is done to the middle block's self-attentions.
    pub perturbation: Perturbation,
}

impl Kind {
    /// The kind of `row` by itself.
    pub fn of(row: &Row<'_>) -> Self {
        let size = (row.x.height(), row.x.width());
        Self { size, tokens: row.entry.tokens, record: row.record, perturbation: row.perturbation }
    }
}

/// What planning a network's calls takes.
#[derive(Clone, Copy)]
pub struct Planner<'a> {
    /// The network.
    pub network: &'a dyn DenoisingNetwork,
    /// The device.
    pub device: Capabilities,
    /// What was planned before for the same network and device, and the storage that all plans are for.
    pub plans: &'a Plans,
}

impl Planner<'_> {
    /// Storage of activations.
    pub fn precision(&self) -> Precision {
        self.plans.storage().precision()
    }

    /// The graph for rows of `kind`.
    pub fn graph(&self, kind: Kind) -> Result<Arc<Graph>> {
        self.plans.graph(kind, || self.network.graph(kind))
    }

    /// The plan of a call of `rows` rows of `kind`.
    pub fn plan(&self, kind: Kind, rows: usize) -> Result<Arc<Plan>> {
        self.plans.call((kind, rows), || self.plan_of(&*self.graph(kind)?, rows))
    }

    /// The plan that makes what rows with a prompt of `tokens` read at every step.
    pub fn conditioning(&self, tokens: usize) -> Result<Arc<Plan>> {
        self.plans.conditioning(tokens, || self.plan_of(&self.network.conditioning(tokens)?, 1))
    }

    fn plan_of(&self, graph: &Graph, rows: usize) -> Result<Plan> {
        let storage = self.plans.storage().clone();
        Plan::new(graph, &Options { rows, storage, device: self.device, guard: 0 })
    }
}

/// Cuts the rows of a step into network calls.
pub struct Batching<'a> {
    planner: Planner<'a>,
    policy: ChunkPolicy,
    budget: Option<u64>,
    /// Rows of a call by kind and number of rows wanted: every step asks the same again, and each
    /// answer takes several plans.
    sizes: HashMap<(Kind, usize), usize>,
}

impl<'a> Batching<'a> {
    /// Calls by `policy`, each with an arena of at most `budget` bytes.
    pub fn new(planner: Planner<'a>, policy: ChunkPolicy, budget: Option<u64>) -> Self {
        Self { planner, policy, budget, sizes: HashMap::new() }
    }

    /// The calls for rows of these kinds: what is computed, and which rows by their place in the list.
    pub fn calls(&mut self, rows: &[Kind]) -> Result<Vec<(Kind, Vec<usize>)>> {
        // Recording is decided for all rows of a step at once: a network that records is compiled
        // differently, and a row's result must not depend on how the step is cut into chunks.
        let recorded = rows.iter().any(|r| r.record);
        let mut groups: Vec<(Kind, Vec<usize>)> = Vec::new();
        for (i, row) in rows.iter().enumerate() {
            let record = recorded && row.perturbation == Perturbation::None;
            let kind = Kind { record, ..*row };
            match groups.iter_mut().find(|(k, _)| *k == kind) {
                Some((_, members)) => members.push(i),
                None => groups.push((kind, vec![i])),
            }
        }
        let mut calls = Vec::new();
        for (kind, members) in groups {
            let size = match self.sizes.get(&(kind, members.len())) {
                Some(size) => *size,
                None => {
                    let plan = |rows| self.plan(kind, rows);
                    let size = rows_per_call(self.policy, members.len(), self.budget, plan)?;
                    self.sizes.insert((kind, members.len()), size);
                    size
                }
            };
            calls.extend(members.chunks(size).map(|chunk| (kind, chunk.to_vec())));
        }
        Ok(calls)
    }

    /// The plan of a call that [`calls`](Self::calls) gave.
    pub fn plan(&self, kind: Kind, rows: usize) -> Result<Arc<Plan>> {
        self.planner.plan(kind, rows)
    }

    /// True height and width of the attention map that a recording call gives.
    pub fn map_size(&self, kind: Kind) -> Result<(usize, usize)> {
        let graph = self.planner.graph(kind)?;
        let columns = graph.outputs().iter().find(|(n, _)| n == COLUMNS);
        let (_, tensor) = columns.ok_or_else(|| Error::usage("the network's graph records nothing"))?;
        let shape = graph.shape(*tensor);
        Ok((shape.height, shape.width))
    }
}

/// The parts of a loaded UNet that a run needs.
#[derive(Clone, Copy)]
pub struct Unet<'a> {
    /// Its calls.
    pub planner: Planner<'a>,
    /// The engine.
    pub engine: &'a Engine,
    /// On the device, or as many as the memory allows.
    pub weights: &'a Weights,
    /// Where the others are.
    pub source: Patched<'a>,
    /// What the output means.
    pub prediction: Prediction,
    /// Timesteps of noise levels.
    pub discrete: &'a Discrete,
}

/// The factors `(keep, take)` by which the picture is `keep · x - take · out` of the network's output:
/// eps: x - σ·out; v: x / (σ² + 1) - out · σ / √(σ² + 1); x₀: out; consistency: the prediction by
/// eps times t / √(t² + ¼) plus x times ¼ / (t² + ¼), where t is ten times the timestep.
fn preconditioning(prediction: Prediction, discrete: &Discrete, sigma: f32) -> (f32, f32) {
    match prediction {
        Prediction::Eps => (1.0, sigma),
        Prediction::V | Prediction::ZeroSnrV => {
            (1.0 / (sigma * sigma + 1.0), sigma / (sigma * sigma + 1.0).sqrt())
        }
        Prediction::Picture => (0.0, -1.0),
        Prediction::Consistency => {
            let t = discrete.timestep(sigma) * 10.0;
            let (skip, by_eps) = (0.25 / (t * t + 0.25), t / (t * t + 0.25).sqrt());
            (by_eps + skip, by_eps * sigma)
        }
    }
}

/// Runs a UNet for guidance on the host.
pub struct UnetNetwork<'a> {
    calls: Calls<'a>,
    cancel: &'a AtomicBool,
    rows_done: usize,
}

/// A UNet's calls made ready: plans with their bindings, one arena for all, what is kept of prompts.
pub struct Calls<'a> {
    unet: Unet<'a>,
    batching: Batching<'a>,
    ready: HashMap<(Kind, usize), Prepared>,
    arena: Option<Arena>,
    /// How many arenas there were.
    arenas: usize,
    prompts: Prompts,
}

impl<'a> Calls<'a> {
    /// Calls by `policy` with an arena of at most `budget` bytes.
    pub fn new(unet: Unet<'a>, policy: ChunkPolicy, budget: Option<u64>) -> Self {
        let batching = Batching::new(unet.planner, policy, budget);
        Self { unet, batching, ready: HashMap::new(), arena: None, arenas: 0, prompts: Prompts::default() }
    }

    /// Makes a plan ready.
    fn prepare(&mut self, kind: Kind, rows: usize) -> Result<()> {
        if self.ready.contains_key(&(kind, rows)) {
            return Ok(());
        }
        let plan = self.batching.plan(kind, rows)?;
        let arena = self.arena_for(&plan)?;
        let prepared = self.unet.engine.prepare(plan, self.unet.weights, &arena)?;
        self.ready.insert((kind, rows), prepared);
        Ok(())
    }

    /// The arena of the other plans if `plan` fits, else a larger one for all.
    fn arena_for(&mut self, plan: &Plan) -> Result<Arena> {
        let mut sizes = self.arena.as_ref().map_or_else(Vec::new, Arena::sizes);
        let arena = match self.arena.take().filter(|a| a.holds(plan)) {
            Some(arena) => arena,
            None => {
                // What was bound to the old arena goes with it. The new one holds what that held.
                self.ready.clear();
                self.arenas += 1;
                plan.enlarge(&mut sizes);
                self.unet.engine.arena_of(&sizes)?
            }
        };
        self.arena = Some(arena.clone());
        Ok(arena)
    }
}

impl<'a> UnetNetwork<'a> {
    /// A network that computes rows by `policy` with an arena of at most `budget` bytes.
    pub fn new(unet: Unet<'a>, policy: ChunkPolicy, budget: Option<u64>, cancel: &'a AtomicBool) -> Self {
        Self { calls: Calls::new(unet, policy, budget), cancel, rows_done: 0 }
    }

    /// Rows computed so far.
    pub fn rows_done(&self) -> usize {
        self.rows_done
    }

    /// Bytes of the arena so far.
    pub fn arena_bytes(&self) -> u64 {
        self.calls.arena.as_ref().map_or(0, Arena::bytes)
    }

    fn check(&self, row: &Row<'_>) -> Result<()> {
        let [batch, channels, height, width] = row.x.shape();
        let wanted = self.calls.unet.planner.network.in_channels();
        if batch == 1 && channels == wanted && height > 0 && width > 0 {
            return Ok(());
        }
        Err(Error::usage("a row does not fit the network")
            .expected(format!("[1, {wanted}, height, width]"))
            .found(format!("{:?}", row.x.shape())))
    }

    fn chunk(&mut self, kind: Kind, rows: &[&Row<'_>]) -> Result<Vec<RowResult>> {
        self.calls.prepare(kind, rows.len())?;
        let inputs = Inputs::new(&self.calls.unet, rows);
        let Unet { engine, weights, source, .. } = self.calls.unet;
        let ready = &self.calls.ready[&(kind, rows.len())];
        let kept = self.calls.prompts.of(rows.iter().map(|row| row.entry))?;
        let results =
            engine.run(ready, &Run::new(&inputs.named(), self.cancel).in_turn(weights, &source).on(&kept))?;
        let named = |name: &str| {
            results
                .iter()
                .find(|(n, _)| n == name)
                .map(|(_, v)| v.as_slice())
                .ok_or_else(|| Error::usage(format!("the network gave no {name}")))
        };
        let out = named("out")?;
        let columns = if kind.record { Some(self.columns(kind, named(COLUMNS)?)?) } else { None };
        let per_row = out.len() / rows.len().max(1);
        if let Some(row) = rows.iter().find(|row| row.x.data().len() != per_row) {
            return Err(Error::usage("the network's result is of another shape than its input")
                .expected(format!("{:?}", row.x.shape()))
                .found(format!("{per_row} values")));
        }
        self.rows_done += rows.len();
        rows.iter()
            .enumerate()
            .map(|(i, row)| {
                let denoised = self.denoised(row, &out[i * per_row..][..per_row]);
                Ok(RowResult { denoised, columns: columns.as_ref().map(|c| c[i].clone()) })
            })
            .collect()
    }

    /// Column sums row by row.
    fn columns(&self, kind: Kind, values: &[f32]) -> Result<Vec<Columns>> {
        let (height, width) = self.calls.batching.map_size(kind)?;
        let of_row = |v: &[f32]| Columns { height, width, values: v.to_vec() };
        Ok(values.chunks_exact(height * width).map(of_row).collect())
    }

    /// The prediction of the picture from the network's output `[height, width, channels]`.
    fn denoised(&self, row: &Row<'_>, out: &[f32]) -> Latent {
        let [_, channels, height, width] = row.x.shape();
        let unet = &self.calls.unet;
        let (keep, take) = preconditioning(unet.prediction, unet.discrete, row.sigma);
        let mut denoised = row.x.clone();
        for (c, plane) in denoised.data_mut().chunks_exact_mut(height * width).enumerate() {
            for (d, cell) in plane.iter_mut().zip(out.chunks_exact(channels)) {
                *d = *d * keep - cell[c] * take;
            }
        }
        denoised
    }
}

impl Network for UnetNetwork<'_> {
    fn predict(&mut self, rows: &[Row<'_>]) -> Result<Vec<RowResult>> {
        rows.iter().try_for_each(|row| self.check(row))?;
        let engine = self.calls.unet.engine;
        let keep = &mut |prepared: &Prepared, run: &Run<'_>| engine.run_and_keep(prepared, run);
        self.calls.read_prompts(rows.iter().map(|row| row.entry), self.cancel, keep)?;
        let mut results: Vec<Option<RowResult>> = vec![None; rows.len()];
        let kinds: Vec<Kind> = rows.iter().map(Kind::of).collect();
        for (kind, members) in self.calls.batching.calls(&kinds)? {
            let part: Vec<&Row<'_>> = members.iter().map(|i| &rows[*i]).collect();
            for (i, result) in members.iter().zip(self.chunk(kind, &part)?) {
                results[*i] = Some(result);
            }
        }
        results.into_iter().map(|r| r.ok_or_else(|| Error::internal("a row was not computed"))).collect()
    }
}

/// The inputs of a chunk, row after row.
struct Inputs {
    x: Vec<f32>,
    time: Vec<f32>,
}

impl Inputs {
    fn new(unet: &Unet<'_>, rows: &[&Row<'_>]) -> Self {
        let mut inputs = Inputs { x: Vec::new(), time: Vec::new() };
        for row in rows {
            let [_, channels, height, width] = row.x.shape();
            // eps and v alike: the network sees a picture of variance 1.
            let scale = (row.sigma * row.sigma + 1.0).sqrt();
            for at in 0..height * width {
                inputs.x.extend((0..channels).map(|c| row.x.data()[c * height * width + at] / scale));
            }
            let timestep = unet.discrete.timestep(row.sigma);
            inputs.time.extend(unet::time_embedding(timestep, unet.planner.network.timestep_channels()));
        }
        inputs
    }

    fn named(&self) -> [(&str, &[f32]); 2] {
        [("x", &self.x), ("time", &self.time)]
    }
}
