//! What kernels cost on the device at hand: each operation of a few networks is timed in every way that the formula
//! does not think much too slow, and a table keeps the quickest.
//!
//! A way is taken instead of the formula's if it is quicker by more than a measurement is wrong. What a network gains
//! is measured as a whole, old and new in turn; the choices of a network that does not gain are left out.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::presets::Preset;
use super::ready::{Ready, upload};
use super::rows::Unets;
use super::{Bench, Timing};
use crate::engine::{Engine, Weights};
use crate::gpu::Gpu;
use crate::graph::Graph;
use crate::kernels::{Asked, CostTable, DeviceProfile, Question};
use crate::model::vae;
use crate::plan::{Plan, PlanOptions};
use crate::{Error, Result};

/// Ways that the formula thinks this many times slower than the best are not measured, and at most so many are.
const WORTH_IT: f32 = 1.8;
const MOST_WAYS: usize = 10;

/// A way is taken if its time is at most this share of that of the formula's choice.
const GAIN: f64 = 0.97;

/// The rows of a call in which operations are timed: choices are the same for any number.
const ROWS: [usize; 2] = [1, 2];

/// How often an operation is timed, and how many runs of it are between two timestamps.
const SAMPLES: usize = 3;
const RUNS: usize = 8;

/// A choice of the table that is not the formula's.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The network in which it was measured.
    pub network: String,
    /// The operation.
    pub operation: String,
    /// Layers of the network with this operation.
    pub layers: usize,
    /// The formula's choice and the quickest, each with its microseconds of one row and of two together.
    pub ways: [(String, f64); 2],
}

/// A network as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Whole {
    /// Its name.
    pub network: String,
    /// Rows of the call.
    pub rows: usize,
    /// GPU time of a call by the compiled-in costs, and by the table.
    pub times: [Timing; 2],
    /// Whether its choices are in the table.
    pub kept: bool,
}

/// What is measured, when it is.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Progress {
    /// Another way is quicker.
    Change(Change),
    /// A network is done.
    Whole(Whole),
}

/// A network whose operations are timed.
struct Network {
    name: String,
    preset: Preset,
    graph: Graph,
}

/// Those that the rows of [`rows`](super::rows) measure.
fn networks(tiny: bool) -> Result<Vec<Network>> {
    let [sd, xl] = if tiny { [Preset::TinySd1, Preset::TinySdxl] } else { [Preset::Sd15, Preset::Sdxl] };
    let unet = |name: &str, preset: Preset| {
        let graph = Unets { config: &preset.config().unet, side: preset.side() }.graph(false)?;
        Ok::<_, Error>(Network { name: name.into(), preset, graph })
    };
    let decoder = vae::decoder(&sd.config().vae, sd.side(), sd.side())?;
    Ok(vec![
        unet("SD1.5 UNet", sd)?,
        unet("SDXL UNet", xl)?,
        Network { name: "VAE decoder".into(), preset: sd, graph: decoder },
    ])
}

/// Measures the ways to compute the operations of networks on `bench`'s device, and makes the table of the quickest.
///
/// # Errors
/// [`ErrorKind::Device`](crate::ErrorKind::Device) if the device has no timestamps;
/// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled).
pub fn tune(bench: &Bench<'_>, tell: &mut dyn FnMut(Progress)) -> Result<CostTable> {
    let mut table = CostTable::clone(&bench.gpu.profile().compiled_in_costs());
    let gpu = bench.gpu.clone().with_costs(table.clone());
    table.about = gpu.device().adapter_info().name;
    for network in networks(bench.tiny)? {
        bench.go_on()?;
        Tuning { bench, gpu: &gpu, network }.add_to(&mut table, tell)?;
    }
    Ok(table)
}

struct Tuning<'a> {
    bench: &'a Bench<'a>,
    /// With the compiled-in costs.
    gpu: &'a Gpu,
    network: Network,
}

/// Microseconds by way, of one row and of two together.
type Times = BTreeMap<String, f64>;

impl Tuning<'_> {
    /// Adds the quickest ways of the network's operations to `table`.
    fn add_to(&self, table: &mut CostTable, tell: &mut dyn FnMut(Progress)) -> Result<()> {
        self.bench.settle();
        let engine = Engine::new(self.gpu.clone())?;
        engine.need_clock()?;
        let weights = upload(self.bench, &engine, &self.network.graph, &self.network.preset.checkpoint()?)?;
        let questions = self.questions(&weights)?;
        let rounds = questions.iter().map(|q| q.ways.len()).max().unwrap_or(0);
        let mut times: BTreeMap<String, Times> = BTreeMap::new();
        for round in 0..rounds {
            for rows in ROWS {
                self.bench.go_on()?;
                self.time_round(&questions, round, rows, &weights, &mut times)?;
            }
        }
        let mut tuned = table.clone();
        for q in questions.iter().filter(|q| !table.measured.contains_key(&q.operation)) {
            let (Some((usual, _)), Some(times)) = (q.ways.first(), times.get(&q.operation)) else { continue };
            let Some(old) = times.get(usual) else { continue };
            let quickest = times.iter().min_by(|a, b| a.1.total_cmp(b.1)).unwrap_or((usual, old));
            let (way, time) = if *quickest.1 <= GAIN * old { quickest } else { (usual, old) };
            tuned.measured.insert(q.operation.clone(), [(way.clone(), *time as f32)].into());
            if way != usual {
                let ways = [(usual.clone(), *old), (way.clone(), *time)];
                let (network, operation) = (self.network.name.clone(), q.operation.clone());
                tell(Progress::Change(Change { network, operation, layers: q.layers, ways }));
            }
        }
        let mut all_gain = true;
        let mut wholes = Vec::new();
        for rows in ROWS {
            let whole = self.compare(table, &tuned, rows, &weights)?;
            all_gain &= whole.times[1].ms <= 1.01 * whole.times[0].ms;
            wholes.push(whole);
        }
        if all_gain {
            *table = tuned;
        }
        wholes.into_iter().for_each(|whole| tell(Progress::Whole(Whole { kept: all_gain, ..whole })));
        Ok(())
    }

    fn plan(&self, device: &DeviceProfile, rows: usize, weights: &Weights) -> Result<Plan> {
        let (storage, device) = (weights.storage().clone(), device.clone());
        Plan::new(&self.network.graph, &PlanOptions { rows, storage, device, guard: 0 })
    }

    /// The different operations of the network, each with the ways to measure: the formula's choice first.
    fn questions(&self, weights: &Weights) -> Result<Vec<ToMeasure>> {
        let notes = Arc::new(Asked::default());
        let device = DeviceProfile { asked: Some(notes.clone()), ..self.gpu.profile().clone() };
        self.plan(&device, 1, weights)?;
        let asked = notes.take();
        // A layer in several pieces asks several times, for operations that depend on the memory.
        let single: HashSet<&str> = asked
            .iter()
            .map(|q| q.path.as_str())
            .filter(|path| asked.iter().filter(|q| q.path == *path).count() == 1)
            .collect();
        let mut all: Vec<ToMeasure> = Vec::new();
        for q in asked.iter().filter(|q| single.contains(q.path.as_str())) {
            match all.iter_mut().find(|known| known.operation == q.operation) {
                Some(known) => known.layers += 1,
                None => all.push(ToMeasure::new(q)),
            }
        }
        Ok(all)
    }

    /// Times the way number `round` of each operation that has so many, in a call of `rows` rows.
    fn time_round(
        &self,
        questions: &[ToMeasure],
        round: usize,
        rows: usize,
        weights: &Weights,
        times: &mut BTreeMap<String, Times>,
    ) -> Result<()> {
        let mut costs = CostTable::clone(&self.gpu.profile().costs);
        let way_of = |q: &ToMeasure| q.ways.get(round).map(|(way, _)| way.clone());
        costs.measured = questions
            .iter()
            .filter_map(|q| Some((q.operation.clone(), [(way_of(q)?, 0.0)].into())))
            .collect();
        let gpu = self.gpu.clone().with_costs(costs);
        let engine = Engine::new(gpu.clone())?;
        let plan = self.plan(gpu.profile(), rows, weights)?;
        let ranges: Vec<_> = questions
            .iter()
            .filter_map(|q| {
                let way = way_of(q)?;
                let first = plan.dispatches.iter().position(|d| d.path == q.path)?;
                let count = plan.dispatches[first..].iter().take_while(|d| d.path == q.path).count();
                Some((q, way, first..first + count))
            })
            .collect();
        let ready = Ready::of_plan(self.bench, &engine, plan, weights)?;
        for (q, way, range) in ranges {
            let mut least = Duration::MAX;
            for _ in 0..SAMPLES {
                least = least.min(engine.time_part(ready.prepared(), range.clone(), RUNS)?);
            }
            let micros = least.as_secs_f64() * 1e6 / RUNS as f64;
            *times.entry(q.operation.clone()).or_default().entry(way).or_insert(0.0) += micros;
        }
        Ok(())
    }

    /// GPU time of a call by either table, in turn.
    fn compare(&self, old: &CostTable, new: &CostTable, rows: usize, weights: &Weights) -> Result<Whole> {
        let gpus = [old, new].map(|costs| self.gpu.clone().with_costs(costs.clone()));
        let mut samples = [Vec::new(), Vec::new()];
        for _ in 0..SAMPLES {
            for (gpu, samples) in gpus.iter().zip(&mut samples) {
                let engine = Engine::new(gpu.clone())?;
                let ready =
                    Ready::of_plan(self.bench, &engine, self.plan(gpu.profile(), rows, weights)?, weights)?;
                ready.gpu_once()?;
                for _ in 0..SAMPLES {
                    samples.push(ready.gpu_once()?);
                }
            }
        }
        let times = samples.map(|samples| Timing::of(&samples));
        Ok(Whole { network: self.network.name.clone(), rows, times, kept: false })
    }
}

/// An operation and the ways to measure.
struct ToMeasure {
    /// A layer that has it.
    path: String,
    operation: String,
    layers: usize,
    /// With their microseconds by the formula, the best first.
    ways: Vec<(String, f32)>,
}

impl ToMeasure {
    fn new(q: &Question) -> Self {
        let mut ways = q.ways.clone();
        // Stable, so that the formula's choice among equals is the first.
        ways.sort_by(|a, b| a.1.total_cmp(&b.1));
        let most = ways.first().map_or(0.0, |best| best.1) * WORTH_IT;
        ways.retain(|(_, time)| *time <= most);
        ways.truncate(MOST_WAYS);
        Self { path: q.path.clone(), operation: q.operation.clone(), layers: 1, ways }
    }
}
