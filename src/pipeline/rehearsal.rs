//! A step without computing: which calls guidance will make, and in what memory.

use std::collections::BTreeMap;

use super::memory::{self, Need};
use super::report::{Call, Purpose};
use super::{DiffusionModel, parts};
use crate::engine::ring_bytes;
use crate::guidance::{Columns, Conditioning, Entry, Guided, Network, Perturbed, Row, RowResult, Sag};
use crate::latent::Latent;
use crate::network::{Batching, Kind, same_prompt};
use crate::plan::chunk::ChunkPolicy;
use crate::{Error, ErrorKind, Result};

/// Memory for activations when the caller sets no limit. More rows at a time gain little once a
/// device is busy.
const DEFAULT_ARENA: u64 = 2 << 30;

/// What a step depends on, as far as memory goes.
pub struct Wish<'a> {
    pub conditioning: &'a Conditioning,
    /// Of the latents.
    pub shape: [usize; 4],
    pub cfg: f32,
    pub sag: Sag,
    pub perturbed: &'a [Perturbed],
    pub chunk: ChunkPolicy,
    /// Bytes of device memory for everything.
    pub limit: Option<u64>,
}

/// How the UNet fits.
#[derive(Debug, Clone, Copy)]
pub struct UnetFit {
    pub need: Need,
    /// Bytes of weights that stay on the device; None is all of them.
    pub most_weights: Option<u64>,
    pub chunk: ChunkPolicy,
    /// For activations.
    pub budget: Option<u64>,
}

/// The calls of a step.
#[derive(Debug, Clone, Default)]
pub struct Rehearsed {
    pub calls: Vec<Call>,
    /// Of the largest call; they share one arena.
    pub arena_bytes: u64,
    /// Of each kind of call: what it takes beside the arena.
    side_bytes: BTreeMap<(Kind, usize), u64>,
    /// What is kept of the prompts while all steps run.
    prompt_bytes: u64,
    /// Dispatches by kernel variant.
    pub variants: BTreeMap<String, usize>,
}

impl Rehearsed {
    /// Bytes of all calls together.
    fn bytes(&self) -> u64 {
        self.arena_bytes + self.side_bytes.values().sum::<u64>() + self.prompt_bytes
    }
}

impl DiffusionModel {
    /// How the UNet fits for `wish`, and the calls of a step in which SAG acts: with all weights on
    /// the device and as many rows at a time as the rest allows; else row by row, with as many
    /// weights as the rest allows.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`] if it does not fit in any way.
    pub(super) fn fit(&self, wish: &Wish<'_>) -> Result<(UnetFit, Rehearsed)> {
        let bytes = |most| self.stock.weight_bytes((&self.wanted, self.precision, most));
        let all = bytes(None)?;
        let prompts = self.prompts(wish.conditioning)?;
        let left = match wish.limit {
            None => Some(DEFAULT_ARENA),
            Some(limit) => limit
                .checked_sub(all)
                .filter(|left| *left >= ring_bytes(all))
                .map(|left| left.saturating_sub(prompts.prompt_bytes)),
        };
        if let Some(budget) = left {
            match self.rehearse(wish, prompts.clone(), wish.chunk, Some(budget)) {
                Err(e) if e.kind() == ErrorKind::Memory && wish.limit.is_some() => {}
                Ok(done)
                    if Need::new(all, done.bytes()).within(wish.limit, parts::Network::Unet).is_err() => {}
                done => {
                    let done = done?;
                    let need = Need::new(all, done.bytes());
                    let fit = UnetFit { need, most_weights: None, chunk: wish.chunk, budget: Some(budget) };
                    return Ok((fit, done));
                }
            }
        }
        let limit = wish.limit.unwrap_or(u64::MAX);
        let done = self.rehearse(wish, prompts, ChunkPolicy::Rows(1), None)?;
        let over = |least: u64| {
            Error::new(ErrorKind::Memory, "the UNet does not fit the memory budget")
                .expected(format!("at most {} MiB", limit >> 20))
                .found(format!(
                    "{} MiB of weights in turn and activations of one row",
                    least.div_ceil(1 << 20)
                ))
                .hint(memory::proposal(least, Some(self.precision)))
        };
        // They keep their road with them, which is among their bytes.
        let need = |weights| Need { weights, arena: done.bytes(), road: 0 };
        let most = limit.checked_sub(need(ring_bytes(all)).bytes());
        let Some((most, Ok(weights))) = most.map(|most| (most, bytes(Some(most)))) else {
            return Err(over(need(least(all, &bytes)?).bytes()));
        };
        let need = need(weights);
        if need.bytes() > limit {
            return Err(over(need.bytes()));
        }
        Ok((UnetFit { need, most_weights: Some(most), chunk: ChunkPolicy::Rows(1), budget: None }, done))
    }

    /// Lets guidance ask for the rows of a step in which SAG acts, and adds the calls to `done`.
    fn rehearse(
        &self,
        wish: &Wish<'_>,
        mut done: Rehearsed,
        chunk: ChunkPolicy,
        budget: Option<u64>,
    ) -> Result<Rehearsed> {
        let batching = Batching::new(self.planner(), chunk, budget);
        let alignment = self.engine().gpu().capabilities().alignment;
        let mut rehearsal = Rehearsal { batching, alignment, done: &mut done, purpose: Purpose::Guidance };
        let middle = (wish.sag.start + wish.sag.end) / 2.0;
        let sigma = self.discrete.percent_to_sigma(middle.clamp(0.001, 0.999));
        let [batch, channels, height, width] = wish.shape;
        // Whenever the others act: the most that a step may take counts.
        let always = |p: &Perturbed| Perturbed { start: 0.0, end: 1.0, ..*p };
        let perturbed: Vec<Perturbed> = wish.perturbed.iter().map(always).collect();
        Guided::new(&mut rehearsal, wish.conditioning, &self.discrete, wish.cfg, wish.sag)?
            .perturbed(&perturbed)?
            .evaluate(&Latent::zeros(batch, channels, height, width), sigma)?;
        Ok(done)
    }

    /// What reading the prompts takes. All of them are kept, those too that are not active at the
    /// step that is rehearsed.
    fn prompts(&self, conditioning: &Conditioning) -> Result<Rehearsed> {
        let mut done = Rehearsed::default();
        let mut known: Vec<&Entry> = Vec::new();
        for entry in conditioning.positive.iter().chain(&conditioning.negative) {
            let is_known = |e: &&Entry| same_prompt((&e.context, &e.vector), (&entry.context, &entry.vector));
            if known.iter().any(is_known) {
                continue;
            }
            known.push(entry);
            let plan = self.planner().conditioning(entry.tokens)?;
            done.arena_bytes = done.arena_bytes.max(plan.arena_bytes());
            done.prompt_bytes += plan.kept_bytes();
        }
        Ok(done)
    }
}

/// The least that weights of `all` bytes take by turns, with their road; `bytes` says what they take
/// where so many may stay.
fn least(all: u64, bytes: &dyn Fn(Option<u64>) -> Result<u64>) -> Result<u64> {
    let (mut low, mut high) = (0, all);
    while high - low > 1 << 12 {
        let middle = low + (high - low) / 2;
        if bytes(Some(middle)).is_ok() { high = middle } else { low = middle }
    }
    Ok(bytes(Some(high))?.max(high + ring_bytes(all)))
}

/// A network that plans its calls and computes nothing.
struct Rehearsal<'a> {
    batching: Batching<'a>,
    alignment: u64,
    done: &'a mut Rehearsed,
    /// Guidance asks twice: for the predictions, then for SAG's.
    purpose: Purpose,
}

impl Network for Rehearsal<'_> {
    fn predict(&mut self, rows: &[Row<'_>]) -> Result<Vec<RowResult>> {
        let kinds: Vec<Kind> = rows.iter().map(Kind::of).collect();
        for (kind, members) in self.batching.calls(&kinds)? {
            let plan = self.batching.plan(kind, members.len())?;
            self.done.arena_bytes = self.done.arena_bytes.max(plan.arena_bytes());
            self.done.side_bytes.insert((kind, members.len()), plan.side_bytes(self.alignment));
            for (variant, count) in plan.variants() {
                *self.done.variants.entry(variant).or_default() += count;
            }
            self.done.calls.push(Call {
                purpose: self.purpose,
                rows: members.len(),
                dispatches: plan.dispatches.len(),
                flops: plan.flops(),
            });
        }
        self.purpose = Purpose::Sag;
        let result = |row: &Row<'_>| -> Result<RowResult> {
            let columns = |(height, width)| Columns { height, width, values: vec![1.0; height * width] };
            let columns =
                if row.record { Some(columns(self.batching.map_size(Kind::of(row))?)) } else { None };
            Ok(RowResult { denoised: row.x.clone(), columns })
        };
        rows.iter().map(result).collect()
    }
}
