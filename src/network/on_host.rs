//! The UNet for guidance on the host.

use std::sync::atomic::AtomicBool;

use super::preconditioning::preconditioning;
use super::{NetworkCalls, RowKind, Unet};
use crate::engine::{Arena, PlanRun, Prepared};
use crate::guidance::{Columns, Network, Row, RowResult};
use crate::latent::Latent;
use crate::model::unet::{COLUMNS, time_embedding};
use crate::plan::chunk::ChunkPolicy;
use crate::{Error, Result};

/// Runs a UNet for guidance on the host.
pub struct UnetNetwork<'a> {
    calls: NetworkCalls<'a>,
    cancel: &'a AtomicBool,
    rows_done: usize,
}

impl<'a> UnetNetwork<'a> {
    /// A network that computes rows in chunks by `policy`, with an arena of at most `budget` bytes.
    pub fn new(unet: Unet<'a>, policy: ChunkPolicy, budget: Option<u64>, cancel: &'a AtomicBool) -> Self {
        Self { calls: NetworkCalls::new(unet, policy, budget), cancel, rows_done: 0 }
    }

    /// Rows computed so far.
    pub fn rows_done(&self) -> usize {
        self.rows_done
    }

    /// Bytes of the arena.
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

    fn chunk(&mut self, kind: RowKind, rows: &[&Row<'_>]) -> Result<Vec<RowResult>> {
        self.calls.prepare(kind, rows.len())?;
        let inputs = Inputs::new(&self.calls.unet, rows);
        let Unet { engine, weights, source, .. } = self.calls.unet;
        let ready = &self.calls.ready[&(kind, rows.len())];
        let kept = self.calls.prompts.of(rows.iter().map(|row| row.entry))?;
        let results = engine.run(
            ready,
            &PlanRun::new(&inputs.named(), self.cancel).with_streamed(weights, &source).on(&kept),
        )?;
        let named = |name: &str| {
            results
                .iter()
                .find(|(n, _)| n == name)
                .map(|(_, v)| v.as_slice())
                .ok_or_else(|| Error::usage(format!("the network has no result {name}")))
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
    fn columns(&self, kind: RowKind, values: &[f32]) -> Result<Vec<Columns>> {
        let (height, width) = self.calls.batching.map_size(kind)?;
        let of_row = |v: &[f32]| Columns { height, width, values: v.to_vec() };
        Ok(values.chunks_exact(height * width).map(of_row).collect())
    }

    /// The denoised prediction from the network's output, `[height, width, channels]`.
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
        let keep = &mut |prepared: &Prepared, run: &PlanRun<'_>| engine.run_and_keep(prepared, run);
        self.calls.read_prompts(rows.iter().map(|row| row.entry), self.cancel, keep)?;
        let mut results: Vec<Option<RowResult>> = vec![None; rows.len()];
        let kinds: Vec<RowKind> = rows.iter().map(RowKind::of).collect();
        for (kind, members) in self.calls.batching.calls(&kinds)? {
            let part: Vec<&Row<'_>> = members.iter().map(|i| &rows[*i]).collect();
            for (i, result) in members.iter().zip(self.chunk(kind, &part)?) {
                results[*i] = Some(result);
            }
        }
        results.into_iter().map(|r| r.ok_or_else(|| Error::internal("a row was not computed"))).collect()
    }
}

/// The inputs of a chunk, row by row.
struct Inputs {
    x: Vec<f32>,
    time: Vec<f32>,
}

impl Inputs {
    fn new(unet: &Unet<'_>, rows: &[&Row<'_>]) -> Self {
        let mut inputs = Inputs { x: Vec::new(), time: Vec::new() };
        for row in rows {
            let [_, channels, height, width] = row.x.shape();
            // For eps and for v the input of the network has variance 1.
            let scale = (row.sigma * row.sigma + 1.0).sqrt();
            for at in 0..height * width {
                inputs.x.extend((0..channels).map(|c| row.x.data()[c * height * width + at] / scale));
            }
            let timestep = unet.discrete.timestep(row.sigma);
            inputs.time.extend(time_embedding(timestep, unet.planner.network.timestep_channels()));
        }
        inputs
    }

    fn named(&self) -> [(&str, &[f32]); 2] {
        [("x", &self.x), ("time", &self.time)]
    }
}
