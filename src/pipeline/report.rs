//! What a request will take, known before anything runs: the planner's arithmetic and no GPU work.

use std::collections::BTreeMap;

use super::{DEFAULT_ARENA, Model, Request, Start, parts};
use crate::engine::device_bytes;
use crate::graph::Weight;
use crate::guidance::{Columns, Conditioning, Entry, Guided, Network, Row, RowResult};
use crate::latent::Latent;
use crate::model::vae;
use crate::network::{Batching, Kind};
use crate::plan::{Options, Plan};
use crate::text::CHUNK;
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
    /// Bytes that the VAE encoder needs for the picture to start from; 0 without one.
    pub encoder_arena_bytes: u64,
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
    /// The predictions with and without the prompt.
    Guidance,
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
        let weights_of =
            |weights: &[Weight], precision| device_bytes(weights, precision, device.alignment, None);

        self.text_options(request.clip_skip, false)?;
        let mut text_bytes = 0;
        for config in &self.config.text {
            let text = parts::text(config)?;
            text_bytes += weights_of(text.weights(), self.precision)?;
        }
        let network = parts::unet(&self.config)?;
        let unet_bytes = weights_of(network.weights(), self.precision)?;
        let decoder = vae::decoder(&self.config.vae, size.0, size.1)?;
        let options = Options { rows: 1, precision: self.vae_precision, device, guard: 0 };
        let mut report = Report {
            weight_bytes: vec![
                ("text encoder", text_bytes),
                ("UNet", unet_bytes),
                ("VAE decoder", weights_of(decoder.weights(), self.vae_precision)?),
            ],
            decoder_arena_bytes: Plan::new(&decoder, &options)?.arena_bytes(),
            ..Default::default()
        };
        let mut before = text_bytes + unet_bytes;
        if let Some(Start::Picture(_)) = &request.start {
            let encoder = vae::encoder(&self.config.vae, request.height, request.width)?;
            let bytes = weights_of(encoder.weights(), self.vae_precision)?;
            report.encoder_arena_bytes = Plan::new(&encoder, &options)?.arena_bytes();
            report.weight_bytes.push(("VAE encoder", bytes));
            before += bytes;
        }
        let budget = left_of(request.memory, before)?;
        self.rehearse(request, size, budget, &mut report)?;
        let decoding = report.all_weight_bytes() + report.decoder_arena_bytes.max(report.encoder_arena_bytes);
        if let Some(limit) = request.memory.filter(|limit| *limit < decoding) {
            return Err(Error::new(ErrorKind::Memory, "the autoencoder does not fit the memory budget")
                .expected(format!("at most {} MiB", limit >> 20))
                .found(format!("{} MiB of weights and activations", decoding.div_ceil(1 << 20)))
                .hint("raise --max-memory or draw a smaller picture"));
        }
        Ok(report)
    }

    /// Lets guidance ask for the rows of a step in which SAG acts, and notes the calls.
    fn rehearse(
        &self,
        request: &Request,
        size: (usize, usize),
        budget: u64,
        report: &mut Report,
    ) -> Result<()> {
        let entry = |text: &str| -> Result<Entry> {
            let chunks = self.tokens(text)?.chunks.len();
            Ok(Entry::new(Vec::new(), CHUNK * chunks))
        };
        let conditioning = Conditioning {
            positive: request.positive_prompts().iter().map(|p| entry(&p.text)).collect::<Result<_>>()?,
            negative: request.negative_prompts().map(|p| entry(&p)).collect::<Result<_>>()?,
        };
        let batching = Batching::new(self.planner(), request.chunk, Some(budget));
        let mut rehearsal = Rehearsal { batching, report, purpose: Purpose::Guidance };
        let (middle, x) = ((request.sag.start + request.sag.end) / 2.0, [request.batch, 4, size.0, size.1]);
        let sigma = self.discrete.percent_to_sigma(middle.clamp(0.001, 0.999));
        Guided::new(&mut rehearsal, &conditioning, &self.discrete, request.cfg, request.sag)?
            .evaluate(&Latent::zeros(x[0], x[1], x[2], x[3]), sigma)?;
        Ok(())
    }
}

/// A network that plans its calls and computes nothing.
struct Rehearsal<'a> {
    batching: Batching<'a>,
    report: &'a mut Report,
    /// Guidance asks twice: for the predictions, then for SAG's.
    purpose: Purpose,
}

impl Network for Rehearsal<'_> {
    fn predict(&mut self, rows: &[Row<'_>]) -> Result<Vec<RowResult>> {
        for (kind, members) in self.batching.calls(rows)? {
            let plan = self.batching.plan(kind, members.len())?;
            self.report.arena_bytes = self.report.arena_bytes.max(plan.arena_bytes());
            for (variant, count) in plan.variants() {
                *self.report.variants.entry(variant).or_default() += count;
            }
            self.report.calls.push(Call {
                purpose: self.purpose,
                rows: members.len(),
                dispatches: plan.dispatches.len(),
                flops: plan.flops(),
            });
        }
        self.purpose = Purpose::Sag;
        let result = |row: &Row<'_>| -> Result<RowResult> {
            let kind = Kind { size: (row.x.height(), row.x.width()), tokens: row.entry.tokens, record: true };
            let columns = |(height, width)| Columns { height, width, values: vec![1.0; height * width] };
            let columns = if row.record { Some(columns(self.batching.map_size(kind)?)) } else { None };
            Ok(RowResult { denoised: row.x.clone(), columns })
        };
        rows.iter().map(result).collect()
    }
}

/// What `limit` leaves for activations beside `weights` bytes of weights.
pub(super) fn left_of(limit: Option<u64>, weights: u64) -> Result<u64> {
    let Some(limit) = limit else { return Ok(DEFAULT_ARENA) };
    limit.checked_sub(weights).ok_or_else(|| {
        Error::new(ErrorKind::Memory, "the weights alone are over the memory budget")
            .expected(format!("at most {} MiB", limit >> 20))
            .found(format!("{} MiB of weights", weights >> 20))
            .hint("raise --max-memory or use f16")
    })
}
