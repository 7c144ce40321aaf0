//! A sampler's run over a network that predicts nothing: where guidance would stop a run, it stops this.

use std::collections::HashSet;

use super::known::{KnownLatents, KnownSampling};
use crate::guidance::{Columns, Conditioning, Entry, Guidance, Guided, Network, Row, RowResult};
use crate::latent::Latent;
use crate::pipeline;
use crate::sampler::{self, Predictor};
use crate::workflow::nodes::without_negative;
use crate::{ErrorKind, Result};

/// The size that is taken where none is known, height and width in cells.
const USUAL_SIZE: (usize, usize) = (64, 64);
/// Cells a side that are computed with: at least as many as Self-Attention Guidance needs.
const MOST_CELLS: usize = 8;

/// Predicts nothing, and looks nowhere.
struct Blank;

impl Network for Blank {
    fn predict(&mut self, rows: &[Row<'_>]) -> Result<Vec<RowResult>> {
        let nowhere = || Columns { height: 1, width: 1, values: vec![1.0] };
        let blank = |row: &Row<'_>| {
            let columns = row.record.then(nowhere);
            RowResult { denoised: row.x.scaled(0.0), columns }
        };
        Ok(rows.iter().map(blank).collect())
    }
}

/// Whether a guider can be asked at all of a sampling's noise levels on latents of this size.
///
/// # Errors
/// [`ErrorKind::Usage`], as the run would.
pub(super) fn check(sampling: &KnownSampling) -> Result<()> {
    let KnownSampling { guider, solver, sigmas, latents } = sampling;
    let size = latents.map_or(USUAL_SIZE, |KnownLatents { size: [_, height, width], .. }| (height, width));
    let model = &guider.model;
    if guider.negative.is_none() {
        without_negative(&model.guidance, solver.sampler)?;
    }
    let conditioning = guider.conditioning(size);
    pipeline::check_prompts(&model.config, &conditioning)?;
    let mut entries = conditioning.positive.iter().chain(&conditioning.negative);
    // Prompts that always count are always there to be asked.
    if entries.all(|entry| entry.start <= 0.0 && entry.end >= 1.0) {
        return Ok(());
    }
    // What is predicted has no contrast that could be taken back.
    let guidance = Guidance { cfg: guider.cfg, rescale: None, ..model.guidance.clone() };
    let conditioning =
        Conditioning { positive: times(conditioning.positive), negative: times(conditioning.negative) };
    let mut network = Blank;
    let mut guided = Guided::new(&mut network, &conditioning, &model.table, guidance)?;
    let x = Latent::zeros(1, model.config.unet.out_channels, size.0.min(MOST_CELLS), size.1.min(MOST_CELLS));
    let x = guided.latents().bring(&x)?;
    let options = solver.options(0, &model.table);
    match sampler::sample_on(solver.sampler, &mut guided, x, sigmas, &options, &mut |_| Ok(())) {
        // Numbers mean nothing here.
        Err(e) if e.kind() != ErrorKind::Usage => Ok(()),
        run => run.map(drop),
    }
}

/// Of all that count at the same times one, everywhere.
fn times(entries: Vec<Entry>) -> Vec<Entry> {
    let mut seen = HashSet::new();
    let first = |entry: &Entry| seen.insert((entry.start.to_bits(), entry.end.to_bits()));
    entries.into_iter().filter(first).map(|entry| Entry { area: None, mask: None, ..entry }).collect()
}
