//! The operations of guidance on the device.

use super::rows::entry_places;
use super::{DeviceBackend, batch};
use crate::Result;
use crate::guidance::backend::{Attention, Backend, Degrade, Degraded, Group, GroupPrediction, Mask};
use crate::guidance::weighted_mean::WeightedMean;
use crate::guidance::{Columns, sag};
use crate::kernels::latents::MapPlace;
use crate::kernels::sag_degrade::{self, MaskSource, SagDegrade};
use crate::kernels::{Operand, cfg_rescale};
use crate::latent::{Latents, Value};
use crate::network::Sink;

impl<S: Sink> Backend for DeviceBackend<'_, S> {
    fn predict(&mut self, x: &Value, sigma: f32, groups: &[Group<'_>]) -> Result<Vec<GroupPrediction>> {
        self.predict_rows(x, sigma, groups)
    }

    fn rescale(
        &mut self,
        (cond, uncond): (&Value, &Value),
        x: &Value,
        sigma: f32,
        (cfg, multiplier): (f32, f32),
    ) -> Result<Value> {
        let shape = x.shape();
        let stored = [self.store(cond)?, self.store(uncond)?, self.store(x)?];
        let y = self.room(shape)?;
        let (mut operands, [cond, uncond, x]) = self.operands(&stored)?;
        let to = operands.held(&y);
        let flags = self.flags()?;
        let flags = operands.add(flags);
        let squared = sigma * sigma + 1.0;
        let scalars = self.sink.scalars(&[
            [squared, squared.sqrt(), sigma, cfg].map(f32::to_bits),
            [multiplier.to_bits(), self.step_bits(), 0, 0],
        ])?;
        let rescale = cfg_rescale::CfgRescale { path: "rescaled guidance", latents: batch(shape), scalars };
        self.dispatch(&cfg_rescale::call(&rescale, [cond, uncond], x, to, flags), operands)?;
        Ok(self.put(y, shape))
    }

    fn degrade(
        &mut self,
        attention: &Attention,
        base: &Value,
        x: &Value,
        how: &Degrade<'_>,
    ) -> Result<Degraded> {
        let shape @ [images, _, height, width] = base.shape();
        let stored = [self.store(base)?, self.store(x)?];
        let (degraded, input) = (self.room(shape)?, self.room(shape)?);
        let mask = self.take(4 * (images * height * width).max(4) as u64, how.mask.is_some())?;
        let (mut operands, [at_base, at_x]) = self.operands(&stored)?;
        let source = match how.mask {
            Some(bits) => {
                let words = || bits.iter().map(|b| u32::from(*b)).collect();
                self.sink.write(&mask.memory, 4 * bits.len() as u64, false, &mut { words })?;
                MaskSource::Given
            }
            None => {
                let columns = self.held.get(&attention.slot)?.clone();
                let weighted = WeightedMean::new(how.entries, shape);
                let mut first = columns.first as u32;
                let (places, words) = entry_places(&weighted);
                let mut table = Vec::new();
                for (entry, (height, width)) in places.iter().zip(&attention.maps) {
                    let [height, width] = [*height, *width].map(|n| n as u32);
                    let map = MapPlace { height, width, columns: first, stride: height * width };
                    table.extend(map.words(entry));
                    first += map.stride * images as u32;
                }
                let (single, entries) = (weighted.is_single(), places.len());
                let table = operands.table(self.table(table)?);
                let weights = match single {
                    true => Operand::Unused,
                    false => {
                        let weights = self.table(words)?;
                        operands.add(weights)
                    }
                };
                let columns = operands.held(&columns).operand;
                MaskSource::Scores { table, entries, single, weights, columns, threshold: how.threshold }
            }
        };
        let places = sag_degrade::Places {
            base: at_base,
            x: at_x,
            degraded: operands.held(&degraded),
            input: operands.held(&input),
            mask: operands.held(&mask),
        };
        let taps = sag::half_kernel(how.blur_sigma);
        let latents = batch(shape);
        let sag = SagDegrade { path: "SAG's mask, blur and noise", latents, taps, mask: source };
        self.dispatch(&sag_degrade::call(&sag, &places), operands)?;
        let (degraded, input) = (self.put(degraded, shape), self.put(input, shape));
        Ok(Degraded { mask: Mask(self.held.put(mask)), degraded, input })
    }

    fn read_attention(&mut self, attention: &Attention, images: usize) -> Result<Vec<Columns>> {
        let held = self.held.get(&attention.slot)?.clone();
        let values: usize = attention.maps.iter().map(|(height, width)| height * width * images).sum();
        let words = self.words(&held, 4 * held.first as u64, 4 * values as u64)?;
        let mut left = words.iter().map(|w| f32::from_bits(*w));
        let of_map = |&(height, width): &(usize, usize)| (0..images).map(move |_| (height, width));
        let sizes = attention.maps.iter().flat_map(of_map);
        Ok(sizes
            .map(|(height, width)| Columns {
                height,
                width,
                values: left.by_ref().take(height * width).collect(),
            })
            .collect())
    }

    fn read_mask(&mut self, mask: &Mask) -> Result<Vec<u8>> {
        let held = self.held.get(&mask.0)?.clone();
        let words = self.words(&held, 0, held.bytes)?;
        Ok(words.iter().map(|w| u8::from(*w != 0)).collect())
    }
}
