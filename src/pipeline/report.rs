//! What a request will take, known before anything runs: the planner's arithmetic and no GPU work.

use std::collections::BTreeMap;

use super::{DEFAULT_ARENA, Model, Request};
use crate::graph::{Layout, Weight};
use crate::kernels::Precision;
use crate::model::unet::COLUMNS;
use crate::model::{unet, vae};
use crate::network::Kind;
use crate::plan::chunk::rows_per_call;
use crate::plan::{Options, Plan};
use crate::text::{CHUNK, clip, prompt, tokenizer};
use crate::{Error, ErrorKind, Result};

/// The cost of a request.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Network calls of a step in which SAG acts, in order.
    pub calls: Vec<Call>,
    /// Bytes that the UNet's calls need for activations; they share one arena.
    pub arena_bytes: u64,
    /// Bytes that the VAE decoder needs for activations, for one picture.
    pub decoder_arena_bytes: u64,
    /// Bytes of weights on the device, by part of the model.
    pub weight_bytes: Vec<(&'static str, u64)>,
    /// Dispatches of a step, by kernel variant.
    pub variants: BTreeMap<String, usize>,
}

/// One network call.
#[derive(Debug, Clone)]
pub struct Call {
    /// What its rows are for.
    pub purpose: Purpose,
    /// Rows computed together.
    pub rows: usize,
    /// Dispatches.
    pub dispatches: usize,
    /// Multiply-adds counted twice.
    pub flops: u64,
}

/// What a row is evaluated for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The prediction with the prompt, without it, or both.
    Guidance,
    /// The prediction whose self-attention SAG listens to.
    Recorded,
    /// The prediction for the picture that SAG has blurred in places.
    Sag,
}

impl Report {
    /// Rows of a step: pictures × conditioning entries × perturbations.
    pub fn rows_per_step(&self) -> usize {
        self.calls.iter().map(|c| c.rows).sum()
    }

    /// The largest number of rows computed together.
    pub fn rows_per_call(&self) -> usize {
        self.calls.iter().map(|c| c.rows).max().unwrap_or(0)
    }

    /// Dispatches of a step.
    pub fn dispatches_per_step(&self) -> usize {
        self.calls.iter().map(|c| c.dispatches).sum()
    }

    /// Multiply-adds of a step, counted twice.
    pub fn flops_per_step(&self) -> u64 {
        self.calls.iter().map(|c| c.flops).sum()
    }

    /// Bytes of all weights on the device.
    pub fn all_weight_bytes(&self) -> u64 {
        self.weight_bytes.iter().map(|(_, bytes)| bytes).sum()
    }
}

impl Model {
    /// What `request` would take. Nothing is loaded and nothing runs.
    ///
    /// # Errors
    /// As [`Model::generate`], as far as they can be foreseen: a setting outside its range, too
    /// little memory.
    pub fn report(&self, request: &Request) -> Result<Report> {
        request.check()?;
        let size = (request.height / 8, request.width / 8);
        let device = self.engine.gpu().capabilities();
        let weights_of = |weights: &[Weight]| device_bytes(weights, self.precision, device.alignment);

        let mut text_bytes = 0;
        for config in &self.config.text {
            if !(1..=config.layers).contains(&request.clip_skip) {
                return Err(Error::usage("no such clip skip")
                    .expected(format!("1 (the last layer) to {}", config.layers))
                    .found(request.clip_skip.to_string()));
            }
            let text = clip::build(config, &clip::Options { skip: 1, norm: true, pooled: true })?;
            text_bytes += weights_of(text.weights());
        }
        let network =
            unet::build(&self.config.unet, &unet::Options { size, tokens: CHUNK, ..Default::default() })?;
        let unet_bytes = weights_of(network.weights());
        let decoder = vae::decoder(&self.config.vae, size.0, size.1)?;
        let options = Options { rows: 1, precision: self.precision, device, guard: 0 };
        let mut report = Report {
            weight_bytes: vec![
                ("text encoder", text_bytes),
                ("UNet", unet_bytes),
                ("VAE decoder", weights_of(decoder.weights())),
            ],
            decoder_arena_bytes: Plan::new(&decoder, &options)?.arena_bytes(),
            ..Default::default()
        };
        let budget = left_of(request.memory, text_bytes + unet_bytes)?;
        for (purpose, kind, rows) in self.rows(request, size)? {
            self.add_calls(&mut report, request, budget, (purpose, kind, rows))?;
        }
        Ok(report)
    }

    /// The rows of a step by what they must share to be computed together, as guidance asks for
    /// them: first the predictions, then SAG's.
    fn rows(&self, request: &Request, size: (usize, usize)) -> Result<Vec<(Purpose, Kind, usize)>> {
        let tokens = |text: &str| -> Result<usize> {
            Ok(CHUNK * prompt::chunks(&self.tokenizer, text, tokenizer::END)?.chunks.len())
        };
        let sag = request.sag.is_on() && size.0.min(size.1) > 4;
        let on_cond = sag && request.cfg == 1.0 && request.sag.cond_at_cfg_1;
        let mut groups = Vec::new();
        let mut add = |purpose, record, tokens| {
            let kind = Kind { size, tokens, record };
            match groups.iter_mut().find(|(p, k, _)| (*p, *k) == (purpose, kind)) {
                Some((_, _, rows)) => *rows += request.batch,
                None => groups.push((purpose, kind, request.batch)),
            }
        };
        let side = |recorded| if recorded { Purpose::Recorded } else { Purpose::Guidance };
        let prompt = tokens(&request.prompt)?;
        let negative: Vec<usize> = request.negative_prompts().map(tokens).collect::<Result<_>>()?;
        add(side(on_cond), on_cond, prompt);
        if request.cfg != 1.0 || (sag && !on_cond) {
            negative.iter().for_each(|n| add(side(sag && !on_cond), sag && !on_cond, *n));
        }
        if sag && self.map_positions(size)? > 1 {
            let again = if on_cond { vec![prompt] } else { negative };
            again.iter().for_each(|n| add(Purpose::Sag, false, *n));
        }
        Ok(groups)
    }

    /// Positions of the attention map that SAG reads.
    fn map_positions(&self, size: (usize, usize)) -> Result<usize> {
        let options = unet::Options { size, tokens: CHUNK, record: true, ..Default::default() };
        let graph = unet::build(&self.config.unet, &options)?;
        let columns = graph.outputs().iter().find(|(name, _)| name == COLUMNS);
        Ok(columns.map_or(0, |(_, tensor)| graph.shape(*tensor).positions()))
    }

    fn add_calls(
        &self,
        report: &mut Report,
        request: &Request,
        budget: u64,
        (purpose, kind, rows): (Purpose, Kind, usize),
    ) -> Result<()> {
        let Kind { size, tokens, record } = kind;
        let graph =
            unet::build(&self.config.unet, &unet::Options { size, tokens, record, ..Default::default() })?;
        let device = self.engine.gpu().capabilities();
        let plan = |rows| Plan::new(&graph, &Options { rows, precision: self.precision, device, guard: 0 });
        let most = rows_per_call(request.chunk, rows, Some(budget), plan)?;
        for first in (0..rows).step_by(most) {
            let rows = most.min(rows - first);
            let plan = plan(rows)?;
            report.arena_bytes = report.arena_bytes.max(plan.arena_bytes());
            for (variant, count) in plan.variants() {
                *report.variants.entry(variant).or_default() += count;
            }
            report.calls.push(Call { purpose, rows, dispatches: plan.dispatches.len(), flops: plan.flops() });
        }
        Ok(())
    }
}

/// What `limit` leaves for activations beside `weights` bytes of weights.
fn left_of(limit: Option<u64>, weights: u64) -> Result<u64> {
    let Some(limit) = limit else { return Ok(DEFAULT_ARENA) };
    limit.checked_sub(weights).ok_or_else(|| {
        Error::new(ErrorKind::Memory, "the weights alone are over the memory budget")
            .expected(format!("at most {} MiB", limit >> 20))
            .found(format!("{} MiB of weights", weights >> 20))
            .hint("raise --max-memory or use f16")
    })
}

/// Bytes that weights take on the device, each on a multiple of `alignment`.
fn device_bytes(weights: &[Weight], precision: Precision, alignment: u64) -> u64 {
    let of = |w: &Weight| {
        let stored = if w.layout == Layout::Vector { Precision::F32 } else { precision };
        (w.device_len() as u64 * stored.bytes()).next_multiple_of(alignment)
    };
    weights.iter().map(of).sum()
}
