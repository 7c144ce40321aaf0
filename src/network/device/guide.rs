//! The operations of guidance on the device.

use super::{DeviceBackend, Operands, batch};
use crate::Result;
use crate::guidance::backend::{Attention, Backend, Degrade, Degraded, Group, Mask, Prediction};
use crate::guidance::weighted::Weighted;
use crate::guidance::{Columns, sag};
use crate::kernels::latents::{EntryPlace, MapPlace, Place};
use crate::kernels::sag_degrade::{self, MaskSource, SagDegrade};
use crate::kernels::{Operand, cfg_rescale};
use crate::latent::{Latents, Value};
use crate::network::{Buffer, Sink};

impl<S: Sink> Backend for DeviceBackend<'_, S> {
    fn predict(&mut self, x: &Value, sigma: f32, groups: &[Group<'_>]) -> Result<Vec<Prediction>> {
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
        let mut operands = Operands(Vec::new());
        let mut places = [Place::UNUSED; 3];
        for (place, value) in places.iter_mut().zip(&stored) {
            *place = operands.held(&self.stored(value)?);
        }
        let to = operands.held(&y);
        let flags = self.flags()?;
        let flags = operands.add(flags);
        let squared = sigma * sigma + 1.0;
        let scalars = self.sink.scalars(&[
            [squared, squared.sqrt(), sigma, cfg].map(f32::to_bits),
            [multiplier.to_bits(), self.step_bits(), 0, 0],
        ])?;
        let [cond, uncond, x] = places;
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
        let mut operands = Operands(Vec::new());
        let source = match how.mask {
            Some(bits) => {
                let words = || bits.iter().map(|b| u32::from(*b)).collect();
                self.sink.write(&mask.memory, 4 * bits.len() as u64, false, &mut { words })?;
                MaskSource::Given
            }
            None => {
                let columns = self.held.get(&attention.slot)?.clone();
                let weighted = Weighted::new(how.entries, shape);
                let mut first = columns.first as u32;
                let (mut words, mut table) = (Vec::new(), Vec::new());
                for ((area, weights), (map_height, map_width)) in weighted.parts.iter().zip(&attention.maps) {
                    let entry = EntryPlace {
                        y: area.y as u32,
                        x: area.x as u32,
                        height: area.height as u32,
                        width: area.width as u32,
                        weights: words.len() as u32,
                        ..EntryPlace::default()
                    };
                    let stride = (map_height * map_width) as u32;
                    let map = MapPlace {
                        height: *map_height as u32,
                        width: *map_width as u32,
                        columns: first,
                        stride,
                    };
                    table.extend(map.words(&entry));
                    words.extend(weights.iter().map(|w| w.to_bits()));
                    first += stride * images as u32;
                }
                let (single, entries) = (weighted.is_single(), weighted.parts.len());
                let table = self.table(table)?;
                let table = Place { operand: operands.add(table), first: 0 };
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
        let mut places = [Place::UNUSED; 2];
        for (place, value) in places.iter_mut().zip(&stored) {
            *place = operands.held(&self.stored(value)?);
        }
        let [at_base, at_x] = places;
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
        let of = (*held.memory).clone();
        let words =
            self.sink.read(&Buffer { of, offset: 4 * held.first as u64, bytes: 4 * values as u64 })?;
        self.sent += 1;
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
        let of = (*held.memory).clone();
        let words = self.sink.read(&Buffer { of, offset: 0, bytes: held.bytes })?;
        self.sent += 1;
        Ok(words.iter().map(|w| u8::from(*w != 0)).collect())
    }
}
