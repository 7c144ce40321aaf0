//! Guidance on the host: a [`Network`] predicts the rows, all the rest is f32 arithmetic.

use super::backend::{Attention, Backend, Degrade, Degraded, Group, GroupPrediction, Mask};
use super::weighted_mean::WeightedMean;
use super::{Columns, Network, Row, RowResult, rescale, sag};
use crate::latent::host::HostLatents;
use crate::latent::value::{CellMask, Fault, Slots};
use crate::latent::{Latent, Latents, Value};
use crate::{Error, Result};

/// Guidance of a [`Network`] with latents on the host: the reference for the device, and the way to guide a custom
/// network.
pub struct HostBackend<'n> {
    network: &'n mut dyn Network,
    latents: HostLatents,
    columns: Slots<Vec<Columns>>,
    masks: Slots<Vec<u8>>,
}

impl<'n> HostBackend<'n> {
    /// A backend for `network`.
    pub fn new(network: &'n mut dyn Network) -> Self {
        let (latents, columns, masks) = (HostLatents::default(), Slots::default(), Slots::default());
        Self { network, latents, columns, masks }
    }

    fn rows(&mut self, rows: &[Row<'_>]) -> Result<Vec<RowResult>> {
        let results = self.network.predict(rows)?;
        let fits = |(row, result): (&Row<'_>, &RowResult)| {
            let is_complete =
                |c: &Columns| !c.values.is_empty() && Some(c.values.len()) == c.height.checked_mul(c.width);
            result.denoised.shape() == row.x.shape() && result.columns.as_ref().is_none_or(is_complete)
        };
        if results.len() != rows.len() || !rows.iter().zip(&results).all(fits) {
            return Err(Error::usage("the network's results do not fit its rows")
                .expected("for each row a prediction of its shape, and column sums of the size of the map"));
        }
        Ok(results)
    }
}

impl Backend for HostBackend<'_> {
    fn predict(&mut self, x: &Value, sigma: f32, groups: &[Group<'_>]) -> Result<Vec<GroupPrediction>> {
        let (x, shape) = (self.latents.form(x)?, x.shape());
        let size = (x.height(), x.width());
        // Entry by entry, image by image.
        let mut rows = Vec::new();
        for Group { entries, record, perturbation } in groups.iter().copied() {
            for &entry in entries {
                let area = entry.area_in(size);
                let row = |i| Row { entry, x: area.crop(&x.row(i)), sigma, record, perturbation };
                rows.extend((0..x.batch()).map(row));
            }
        }
        let results = self.rows(&rows)?;
        let mut left = results.as_slice();
        let mut predictions = Vec::new();
        for group in groups {
            let (own, rest) = left.split_at(group.entries.len() * x.batch());
            left = rest;
            let of_rows: Vec<&Latent> = own.iter().map(|r| &r.denoised).collect();
            let denoised = WeightedMean::new(group.entries, shape).denoised(&of_rows);
            self.latents.watch(&denoised);
            let denoised = self.latents.put(denoised);
            let missing = || Error::usage("the network recorded no attention");
            let columns = group
                .record
                .then(|| {
                    own.iter().map(|r| r.columns.clone().ok_or_else(missing)).collect::<Result<Vec<_>>>()
                })
                .transpose()?;
            let attention = columns.map(|columns| {
                let maps = columns.iter().step_by(x.batch()).map(|c| (c.height, c.width)).collect();
                Attention { slot: self.columns.put(columns), maps }
            });
            predictions.push(GroupPrediction { denoised, attention });
        }
        Ok(predictions)
    }

    fn rescale(
        &mut self,
        (cond, uncond): (&Value, &Value),
        x: &Value,
        sigma: f32,
        scale_and_share: (f32, f32),
    ) -> Result<Value> {
        let [cond, uncond, x] = [cond, uncond, x].map(|v| self.latents.form(v));
        let guided = rescale::combined((&cond?, &uncond?), &x?, sigma, scale_and_share);
        self.latents.watch(&guided);
        Ok(self.latents.put(guided))
    }

    fn degrade(
        &mut self,
        attention: &Attention,
        base: &Value,
        x: &Value,
        how: &Degrade<'_>,
    ) -> Result<Degraded> {
        let mask = match how.mask {
            Some(mask) => mask.to_vec(),
            None => {
                let columns = self.columns.get(&attention.slot)?;
                let scores = WeightedMean::new(how.entries, base.shape()).scores(columns);
                scores.iter().map(|s| u8::from(*s > how.threshold)).collect()
            }
        };
        let (base, x) = (self.latents.form(base)?, self.latents.form(x)?);
        let degraded = sag::degrade(&base, &mask, how.blur_sigma);
        let input = Latent::combine(&[(1.0, &degraded), (1.0, &x), (-1.0, &base)])?;
        let mask = Mask(self.masks.put(mask));
        let (degraded, input) = (self.latents.put(degraded), self.latents.put(input));
        Ok(Degraded { mask, degraded, input })
    }

    fn read_attention(&mut self, attention: &Attention, _images: usize) -> Result<Vec<Columns>> {
        self.columns.get(&attention.slot).cloned()
    }

    fn read_mask(&mut self, mask: &Mask) -> Result<Vec<u8>> {
        self.masks.get(&mask.0).cloned()
    }
}

impl Latents for HostBackend<'_> {
    fn bring_with(&mut self, shape: [usize; 4], make: &mut dyn FnMut() -> Latent) -> Result<Value> {
        self.latents.bring_with(shape, make)
    }

    fn store(&mut self, value: &Value) -> Result<Value> {
        self.latents.store(value)
    }

    fn bring_mask_with(&mut self, shape: [usize; 4], make: &mut dyn FnMut() -> Latent) -> Result<CellMask> {
        self.latents.bring_mask_with(shape, make)
    }

    fn blend(&mut self, mask: &CellMask, drawn: &Value, kept: &Value) -> Result<Value> {
        self.latents.blend(mask, drawn, kept)
    }

    fn error_norm(&mut self, values: [&Value; 3], absolute: f32, relative: f32) -> Result<f64> {
        self.latents.error_norm(values, absolute, relative)
    }

    fn read(&mut self, value: &Value) -> Result<Latent> {
        self.latents.read(value)
    }

    fn step(&mut self, step: usize) {
        self.latents.step(step);
        self.columns.collect(drop);
        self.masks.collect(drop);
    }

    fn submit(&mut self) -> Result<u64> {
        self.latents.submit()
    }

    fn done(&mut self, wanted: u64) -> Result<u64> {
        self.latents.done(wanted)
    }

    fn fault(&self) -> Option<Fault> {
        self.latents.fault()
    }
}
