//! Some steps of a run without computing, to count dispatches and memory. The sampler and guidance are those of the
//! run, on a device that only counts.

use std::collections::{HashSet, VecDeque};

use super::diffusion::DiffusionModel;
use super::memory::{self, Need};
use super::report::Purpose;
use super::settings::{Limits, Schedule};
use super::workload::{Counted, Done, UnetFit, Workload};
use crate::engine::{MOST_ROWS, ring_bytes};
use crate::guidance::{Conditioning, Entry, Guided, Term};
use crate::kernels::Call;
use crate::latent::Value;
use crate::network::{AHEAD, Batching, Buffer, DeviceBackend, RowKind, Sink, bytes_of};
use crate::plan::chunk::ChunkPolicy;
use crate::sampler::{self, Inpaint, Predictor, Scheduler};
use crate::{Error, ErrorKind, Result};

/// Memory for activations if the caller sets no limit. More rows at a time gain little once a device is busy.
const DEFAULT_ARENA: u64 = 2 << 30;

/// Most steps that are counted: after so many, a sampler's history has its full length.
const MOST_STEPS: usize = 8;

impl DiffusionModel {
    /// Memory of the UNet for `workload`, and the calls of a step in which SAG acts: with all weights on
    /// the device and as many rows at a time as the remaining memory allows; otherwise row by row, with
    /// streamed weights, of which as many stay as the remaining memory allows.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`] if it does not fit in any way.
    pub(super) fn fit(&self, workload: &Workload<'_>) -> Result<(UnetFit, Counted)> {
        let bytes = |most| self.stock.weight_bytes((&self.wanted, self.storage(), most));
        let all = bytes(None)?;
        let prompts = self.prompts(workload.conditioning)?;
        let Limits { chunk, memory: limit } = workload.limits;
        let left = match limit {
            None => Some(DEFAULT_ARENA),
            Some(limit) => limit
                .checked_sub(all)
                .filter(|left| *left >= ring_bytes(all))
                .map(|left| left.saturating_sub(prompts.prompt_bytes)),
        };
        let mut budget = left;
        while let Some(arena) = budget {
            match self.dry_run(workload, prompts.clone(), chunk, Some(arena)) {
                Err(e) if e.kind() == ErrorKind::Memory && limit.is_some() => break,
                done => {
                    let done = done?;
                    let need = done.need(all);
                    let Some(limit) = limit.filter(|limit| need.bytes() > *limit) else {
                        return Ok((UnetFit { need, most_weights: None, chunk, budget }, done));
                    };
                    // Tensors kept for the prompts of each row take memory, too: as many rows at a time as fit if
                    // all memory were divided among rows.
                    let wanted = u128::from(need.bytes() - need.weights);
                    let there = u128::from(limit.saturating_sub(need.weights));
                    let share = u128::from(need.arena) * there / wanted;
                    budget = u64::try_from(share).ok().filter(|share| *share < need.arena);
                }
            }
        }
        let limit = limit.unwrap_or(u64::MAX);
        let done = self.dry_run(workload, prompts, ChunkPolicy::Rows(1), None)?;
        let rows = ChunkPolicy::Rows(1);
        if done.need(all).bytes() <= limit {
            let fit = UnetFit { need: done.need(all), most_weights: None, chunk: rows, budget: None };
            return Ok((fit, done));
        }
        let over = |least: u64| {
            let error = Error::new(ErrorKind::Memory, "the UNet does not fit the memory budget")
                .expected(format!("at most {} MiB", limit >> 20))
                .found(format!(
                    "{} MiB of streamed weights and activations of one row",
                    least.div_ceil(1 << 20)
                ));
            memory::propose(error, least, Some(self.storage().precision()))
        };
        // Streamed weights keep their staging ring, which is counted in their bytes.
        let need = |weights| Need { staging: 0, ..done.need(weights) };
        let most = limit.checked_sub(need(ring_bytes(all)).bytes());
        let Some((most, Ok(weights))) = most.map(|most| (most, bytes(Some(most)))) else {
            return Err(over(need(least(all, &bytes)?).bytes()));
        };
        let need = need(weights);
        if need.bytes() > limit {
            return Err(over(need.bytes()));
        }
        Ok((UnetFit { need, most_weights: Some(most), chunk: rows, budget: None }, done))
    }

    /// Lets the sampler do some steps without computing, and adds what they take to `done`.
    fn dry_run(
        &self,
        workload: &Workload<'_>,
        mut done: Counted,
        chunk: ChunkPolicy,
        budget: Option<u64>,
    ) -> Result<Counted> {
        let batching = Batching::new(self.planner(), chunk, budget);
        let has_own = workload.guidance.terms.iter().any(|term| matches!(term, Term::Own(_)));
        let profile = self.engine().gpu().profile();
        done.alignment = profile.alignment;
        let tally = Tally {
            batching,
            max_binding: profile.max_binding,
            done: &mut done,
            further: if has_own { Purpose::Term } else { Purpose::Sag },
            now: CountedStep::default(),
            sent: 0,
            staged: VecDeque::from([0]),
        };
        let backend = Box::new(DeviceBackend::on(tally, self.meanings()));
        // With all terms and entries active, since the largest step counts.
        let guidance = workload.guidance.always();
        let always = |e: &Entry| Entry { start: 0.0, end: 1.0, ..e.clone() };
        let side = |entries: &[Entry]| entries.iter().map(always).collect();
        let conditioning = Conditioning {
            positive: side(&workload.conditioning.positive),
            negative: side(&workload.conditioning.negative),
        };
        let mut guided = Guided::on(backend, &conditioning, &self.discrete, guidance)?;
        let steps = workload.steps.clamp(1, MOST_STEPS);
        let sampler = workload.solver.sampler;
        let sigmas = Schedule::new(Scheduler::Normal, steps).sigmas(&self.discrete, sampler)?;
        let x = guided.latents().store(&Value::zero(workload.shape))?;
        let mut inpaint;
        let model: &mut dyn Predictor = match workload.masked {
            true => {
                inpaint = Inpaint::rehearsed(&mut guided, workload.shape)?;
                &mut inpaint
            }
            false => &mut guided,
        };
        let options = workload.solver.options(0, &self.discrete);
        let end = sampler::sample_on(sampler, model, x, &sigmas, &options, &mut |_| Ok(()))?;
        // The result is read once at the end; there is none here.
        let end = model.latents().store(&end)?;
        drop(guided);
        done.latent_bytes += bytes_of(end.shape());
        Ok(done)
    }

    /// The work and memory of the prompts' keys and values. All of them are kept, even those that are not active at
    /// the step that is counted.
    fn prompts(&self, conditioning: &Conditioning) -> Result<Counted> {
        let mut done = Counted::default();
        let mut known = HashSet::new();
        for entry in conditioning.positive.iter().chain(&conditioning.negative) {
            if known.insert(entry.prompt()) {
                let plan = self.planner().conditioning(entry.tokens)?;
                plan.enlarge(&mut done.slabs);
                done.prompt_bytes += plan.kept_bytes();
            }
        }
        Ok(done)
    }
}

/// The least memory of streamed weights of `all` bytes, with their staging ring; `bytes` is their memory if so many
/// bytes may stay.
fn least(all: u64, bytes: &dyn Fn(Option<u64>) -> Result<u64>) -> Result<u64> {
    let (mut low, mut high) = (0, all);
    while high - low > 1 << 12 {
        let middle = low + (high - low) / 2;
        if bytes(Some(middle)).is_ok() { high = middle } else { low = middle }
    }
    Ok(bytes(Some(high))?.max(high + ring_bytes(all)))
}

/// A device that counts its work, and computes nothing.
struct Tally<'a> {
    batching: Batching<'a>,
    max_binding: u64,
    done: &'a mut Counted,
    /// The purpose of predictions after the first ones of an evaluation.
    further: Purpose,
    now: CountedStep,
    sent: u64,
    /// Bytes of uploads in this submission and in earlier ones that may not be done.
    staged: VecDeque<u64>,
}

/// The step that is being counted.
#[derive(Default)]
struct CountedStep {
    work: Vec<Done>,
    /// Predictions requested in this evaluation.
    asked: usize,
}

impl Tally<'_> {
    fn purpose(&self) -> Purpose {
        if self.now.asked <= 1 { Purpose::Guidance } else { self.further }
    }
}

/// A buffer that is not allocated.
#[derive(Clone)]
struct NoBuffer;

impl Sink for Tally<'_> {
    type Memory = NoBuffer;

    fn max_binding(&self) -> u64 {
        self.max_binding
    }

    fn create(&mut self, bytes: u64) -> Result<NoBuffer> {
        self.done.latent_bytes += bytes;
        Ok(NoBuffer)
    }

    fn write(
        &mut self,
        _to: &NoBuffer,
        bytes: u64,
        _steady: bool,
        _make: &mut dyn FnMut() -> Vec<u32>,
    ) -> Result<()> {
        if let Some(now) = self.staged.back_mut() {
            *now += bytes;
        }
        self.done.staged_bytes = self.done.staged_bytes.max(self.staged.iter().sum());
        Ok(())
    }

    fn scalars(&mut self, _values: &[[u32; 4]]) -> Result<usize> {
        Ok(0)
    }

    fn dispatch(&mut self, call: &Call, buffers: &[Buffer<NoBuffer>]) -> Result<()> {
        let bytes = buffers.iter().map(|b| b.bytes).sum();
        self.now.work.push(Done::Latents(call.path.clone(), call.variant.clone(), bytes));
        self.done.kernels.insert(call.variant.clone());
        Ok(())
    }

    fn calls(&mut self, rows: &[RowKind]) -> Result<Vec<(RowKind, Vec<usize>)>> {
        self.now.asked += 1;
        self.batching.calls(rows)
    }

    fn map_size(&self, kind: RowKind) -> Result<(usize, usize)> {
        self.batching.map_size(kind)
    }

    fn prepare(&mut self, _calls: &[(RowKind, Vec<usize>)], _entries: &[&Entry]) -> Result<()> {
        Ok(())
    }

    fn slot(&mut self, (kind, rows): (RowKind, usize), name: &str) -> Result<Buffer<NoBuffer>> {
        let region = self.batching.plan(kind, rows)?.slot(name)?;
        Ok(Buffer { of: NoBuffer, offset: region.offset, bytes: region.bytes })
    }

    fn network(&mut self, kind: RowKind, entries: &[&Entry]) -> Result<()> {
        let rows = entries.len();
        let plan = self.batching.plan(kind, rows)?;
        plan.enlarge(&mut self.done.slabs);
        let prompts = entries.iter().map(|e| e.prompt()).collect();
        let of_call = self.done.kept_rows.entry((kind, rows)).or_default();
        if of_call.insert(prompts) && of_call.len() <= MOST_ROWS {
            self.done.prompt_bytes += plan.kept_input_bytes();
        }
        self.now.work.push(Done::Network(self.purpose(), plan.clone()));
        self.done.plans.insert((kind, rows), plan);
        Ok(())
    }

    fn step(&mut self) {
        let step = std::mem::take(&mut self.now);
        if step.work.len() >= self.done.step.len() {
            self.done.step = step.work;
        }
    }

    fn send(&mut self, _flags: &NoBuffer) -> Result<u64> {
        self.now.asked = 0;
        self.sent += 1;
        self.staged.push_back(0);
        if self.staged.len() as u64 > AHEAD + 1 {
            self.staged.pop_front();
        }
        Ok(self.sent)
    }

    /// As late as a device may be, which keeps the latents of steps that are not reported yet.
    fn done(&mut self, wanted: u64) -> Result<(u64, Option<[u32; 2]>)> {
        Ok((wanted.max(self.sent.saturating_sub(AHEAD)), None))
    }

    fn ahead(&self) -> u64 {
        AHEAD
    }

    fn read(&mut self, from: &Buffer<NoBuffer>) -> Result<Vec<u32>> {
        self.done.latent_bytes += from.bytes;
        self.now.asked = 0;
        Ok(vec![0; 1])
    }
}
