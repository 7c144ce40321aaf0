//! The cost of a request, computed by the planner before anything runs.

use std::collections::BTreeMap;

use super::memory::{self, Forecast};
use super::model::Model;
use super::parts::Network;
use super::report::{Report, Work};
use super::request::{Request, Start};
use super::settings::Limits;
use super::workload::{Done, Workload};
use crate::guidance::{Conditioning, Entry};
use crate::text::clip;
use crate::{ErrorKind, Result};

impl Model {
    /// Memory and work of `request`. Nothing is loaded and nothing runs.
    ///
    /// # Errors
    /// As [`Model::generate`], as far as they can be foreseen: a setting outside its range, too
    /// little memory, with a limit that is enough for all parts.
    pub fn report(&self, request: &Request) -> Result<Report> {
        self.report_within(request, request.limits.memory).map_err(|e| match request.limits.memory {
            Some(limit) if e.kind() == ErrorKind::Memory => match self.least_memory(request, limit) {
                Some(least) => memory::propose(e, least, Some(self.diffusion.storage().precision())),
                None => e,
            },
            _ => e,
        })
    }

    /// The least memory that is enough for `request`, in whole MiB, more than `limit`. None if it does not run without
    /// a limit either.
    fn least_memory(&self, request: &Request, limit: u64) -> Option<u64> {
        let enough = |mib: u64| self.report_within(request, Some(mib << 20)).is_ok();
        // If a limit is enough, all larger ones are.
        let most = self.report_within(request, None).ok()?.peak_bytes;
        let (mut low, mut high) = (limit >> 20, most.div_ceil(1 << 20));
        while low + 1 < high {
            let middle = low + (high - low) / 2;
            if enough(middle) { high = middle } else { low = middle }
        }
        enough(high).then_some(high << 20)
    }

    /// The report for `limit` bytes of memory, instead of the request's own limit.
    fn report_within(&self, request: &Request, limit: Option<u64>) -> Result<Report> {
        request.check()?;
        let cell = self.config.family.facts().latent_cell;
        let size = (request.size.height / cell, request.size.width / cell);
        self.text.check_clip_skip(request.clip_skip)?;
        request.schedule.sigmas(self.diffusion.discrete(), request.solver.sampler)?;
        let mut forecast = Forecast::default();
        let unused = self.engine().gpu().unused().to_vec();
        let mut report = Report { unused, ..Report::default() };
        let mut text_bytes = 0;
        for (i, config) in self.config.text.iter().enumerate() {
            let need = self.text.need(&clip::whole(config)?)?;
            text_bytes += need.weights;
            forecast.enter(Network::Text(i), need, limit)?;
        }
        report.weight_bytes.push(("text encoder", text_bytes));
        if let Some(Start::Picture(_)) = &request.start {
            let fit = self.vae.fit_encoder(self.vae.precision, size, limit)?;
            forecast.enter(Network::Encoder(self.vae.precision), fit.need, limit)?;
            report.weight_bytes.push(("VAE encoder", fit.need.weights));
            report.encoder_arena_bytes = fit.need.arena + fit.need.beside;
            report.encoder_tiles = fit.tiles.corners.len();
        }
        let conditioning = self.counted(request)?;
        let (fit, done) = self.diffusion.fit(&Workload {
            conditioning: &conditioning,
            shape: [request.batch, self.config.unet.out_channels, size.0, size.1],
            guidance: &request.guidance,
            solver: request.solver,
            steps: request.schedule.steps,
            masked: request.mask.is_some(),
            limits: Limits { memory: limit, ..request.limits },
        })?;
        forecast.enter(Network::Unet, fit.need, limit)?;
        report.weight_bytes.push(("UNet", fit.need.weights));
        report.weights_in_turn = fit.most_weights.is_some();
        report.arena_bytes = done.arena_bytes();
        report.step = done.step.iter().map(Done::work).collect();
        let call = |work: &Work| if let Work::Network(call) = work { Some(call.clone()) } else { None };
        report.calls = report.step.iter().filter_map(call).collect();
        for work in &done.step {
            let counts = match work {
                Done::Network(_, plan) => plan.variants(),
                Done::Latents(_, variant, _) => BTreeMap::from([(variant.to_string(), 1)]),
            };
            for (variant, count) in counts {
                *report.variants.entry(variant).or_default() += count;
            }
        }
        report.latent_bytes = done.latent_bytes;
        let fit = self.vae.fit_decoder(self.vae.precision, size, limit)?;
        forecast.enter(Network::Decoder(self.vae.precision), fit.need, limit)?;
        report.weight_bytes.push(("VAE decoder", fit.need.weights));
        report.decoder_arena_bytes = fit.need.arena + fit.need.beside;
        report.decoder_tiles = fit.tiles.corners.len();
        report.peak_bytes = forecast.peak(limit)?;
        Ok(report)
    }

    /// Entries with the number of tokens that the prompts of `request` have, and no contents.
    fn counted(&self, request: &Request) -> Result<Conditioning> {
        let entry = |text: &str| -> Result<Entry> { Ok(Entry::new(Vec::new(), self.text.count(text)?)) };
        Ok(Conditioning {
            positive: request.positive_prompts().iter().map(|p| entry(&p.text)).collect::<Result<_>>()?,
            negative: request.negative_prompts().map(|p| entry(&p)).collect::<Result<_>>()?,
        })
    }
}
