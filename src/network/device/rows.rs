//! The rows of an evaluation on the device: which calls compute them, how latents become inputs of the network, and how
//! its outputs become predictions.

use super::{DeviceBackend, Held, NetworkFacts, Operands, batch, give_back};
use crate::Result;
use crate::graph::Shape;
use crate::guidance::Entry;
use crate::guidance::backend::{Attention, Group, GroupPrediction};
use crate::guidance::weighted_mean::WeightedMean;
use crate::kernels::latents::{EntryPlace, RowPlace};
use crate::kernels::{entries_mean, network_input, network_output};
use crate::latent::Value;
use crate::model::unet::{COLUMNS, time_embedding};
use crate::network::preconditioning::preconditioning;
use crate::network::{RowKind, Sink};

/// A row of an evaluation.
struct PlacedRow<'e> {
    entry: &'e Entry,
    group: usize,
    kind: RowKind,
    place: RowPlace,
}

impl<S: Sink> DeviceBackend<'_, S> {
    /// [`Backend::predict`](crate::guidance::Backend::predict).
    pub(super) fn predict_rows(
        &mut self,
        x: &Value,
        sigma: f32,
        groups: &[Group<'_>],
    ) -> Result<Vec<GroupPrediction>> {
        let shape @ [images, channels, height, width] = x.shape();
        let mut rows = Vec::new();
        for (number, &Group { entries, record, perturbation }) in groups.iter().enumerate() {
            for &entry in entries {
                let area = entry.area_in((height, width));
                let size = (area.height, area.width);
                let kind = RowKind { size, tokens: entry.tokens, record, perturbation };
                rows.extend((0..images).map(|image| {
                    let (image, y, x) = (image as u32, area.y as u32, area.x as u32);
                    PlacedRow {
                        entry,
                        group: number,
                        kind,
                        place: RowPlace { image, y, x, ..RowPlace::default() },
                    }
                }));
            }
        }
        let kinds: Vec<RowKind> = rows.iter().map(|row| row.kind).collect();
        let calls = self.sink.calls(&kinds)?;
        // A call may record more than its rows need.
        for (kind, members) in &calls {
            members.iter().for_each(|i| rows[*i].kind = *kind);
        }
        let (mut quads, mut values) = (0, 0);
        for row in &mut rows {
            (row.place.prediction, row.place.columns) = (quads as u32, values as u32);
            let (height, width) = row.kind.size;
            quads += height * width * channels.div_ceil(4);
            if row.kind.record {
                let (height, width) = self.sink.map_size(row.kind)?;
                values += height * width;
            }
        }
        let entries: Vec<&Entry> = rows.iter().map(|row| row.entry).collect();
        self.sink.prepare(&calls, &entries)?;
        let predictions = self.take(16 * quads as u64, false)?;
        let columns = if values > 0 { Some(self.take(4 * values.max(4) as u64, false)?) } else { None };
        for (kind, members) in calls {
            let part: Vec<&PlacedRow<'_>> = members.iter().map(|i| &rows[*i]).collect();
            let recorded = part.iter().any(|row| groups[row.group].record);
            self.call(kind, &part, (x, sigma), &predictions, columns.as_ref().filter(|_| recorded))?;
        }
        let mut results = Vec::new();
        let mut rest = rows.as_slice();
        for group in groups {
            let (own, others) = rest.split_at(group.entries.len() * images);
            rest = others;
            let denoised = self.mean(own, group.entries, &predictions, shape)?;
            let attention = match &columns {
                Some(columns) if group.record => {
                    let maps = own.iter().step_by(images.max(1)).map(|row| self.sink.map_size(row.kind));
                    let maps = maps.collect::<Result<_>>()?;
                    let first = own.first().map_or(0, |row| row.place.columns as usize);
                    let held = Held { first, ..columns.clone() };
                    Some(Attention { slot: self.held.put(held), maps })
                }
                _ => None,
            };
            results.push(GroupPrediction { denoised, attention });
        }
        // If no latent refers to them, they are free again.
        let sent = self.sent;
        give_back(&mut self.free, predictions, sent);
        if let Some(columns) = columns {
            give_back(&mut self.free, columns, sent);
        }
        Ok(results)
    }

    /// The embedding of the timestep of a noise level.
    fn embedding(&mut self, sigma: f32) -> Result<Held<S::Memory>> {
        if let Some((bits, held)) = &self.embedding
            && *bits == sigma.to_bits()
        {
            return Ok(held.clone());
        }
        if let Some((_, held)) = self.embedding.take() {
            give_back(&mut self.free, held, self.sent);
        }
        let NetworkFacts { discrete, time_channels, .. } = self.network;
        let stored = time_channels.next_multiple_of(4);
        let held = self.take(4 * stored as u64, true)?;
        self.sink.write(&held.memory, held.bytes, true, &mut || {
            let values = time_embedding(discrete.timestep(sigma), time_channels);
            values.iter().map(|v| v.to_bits()).chain(std::iter::repeat(0)).take(stored).collect()
        })?;
        self.embedding = Some((sigma.to_bits(), held.clone()));
        Ok(held)
    }

    /// One network call for `rows`, with the dispatches that make its inputs and predictions.
    fn call(
        &mut self,
        kind: RowKind,
        rows: &[&PlacedRow<'_>],
        (x, sigma): (&Value, f32),
        predictions: &Held<S::Memory>,
        columns: Option<&Held<S::Memory>>,
    ) -> Result<()> {
        let [_, channels, height, width] = x.shape();
        let latent = Shape::new(height, width, channels);
        let x = self.stored(x)?;
        let embedding = self.embedding(sigma)?;
        let table = self.table(rows.iter().flat_map(|row| row.place.words()).collect())?;
        let count = rows.len();
        let mut operands = Operands(Vec::new());
        let (at_table, at_x) = (operands.table(table.clone()), operands.held(&x));
        let at_embedding = operands.held(&embedding);
        let to = [self.sink.slot((kind, count), "x")?, self.sink.slot((kind, count), "time")?];
        let to = to.map(|slot| operands.add(slot));
        let c_in = 1.0 / (sigma * sigma + 1.0).sqrt();
        let input = network_input::NetworkInput {
            path: "what the network sees",
            rows: count,
            latent,
            area: kind.size,
            in4: self.network.in_channels.div_ceil(4),
            time4: self.network.time_channels.div_ceil(4),
            scalars: self.sink.scalars(&[[c_in.to_bits(), 0, 0, 0]])?,
            precision: self.network.precision,
        };
        self.dispatch(&network_input::call(&input, at_table, at_x, at_embedding, to), operands)?;
        let entries: Vec<&Entry> = rows.iter().map(|row| row.entry).collect();
        self.sink.network(kind, &entries)?;
        let mut operands = Operands(Vec::new());
        let at_table = operands.table(table);
        let out = self.sink.slot((kind, count), "out")?;
        let out = operands.add(out);
        let at_x = operands.held(&x);
        let to = operands.held(predictions).operand;
        let flags = self.flags()?;
        let flags = operands.add(flags);
        let recorded = match columns {
            Some(columns) => {
                let (map_height, map_width) = self.sink.map_size(kind)?;
                let of_rows = self.sink.slot((kind, count), COLUMNS)?;
                Some(network_output::Recorded {
                    positions: map_height * map_width,
                    columns: operands.add(of_rows),
                    to: operands.held(columns).operand,
                })
            }
            None => None,
        };
        let (keep, take) = preconditioning(self.network.prediction, self.network.discrete, sigma);
        let words = [keep.to_bits(), take.to_bits(), self.step_bits(), 0];
        let scalars = self.sink.scalars(&[words])?;
        let output = network_output::NetworkOutput {
            path: "prediction",
            rows: count,
            latent,
            area: kind.size,
            scalars,
        };
        self.dispatch(&network_output::call(&output, at_table, out, at_x, [to, flags], recorded), operands)
    }

    /// The prediction of a group: that of its only entry, or the mean over entries.
    fn mean(
        &mut self,
        group: &[PlacedRow<'_>],
        entries: &[&Entry],
        rows: &Held<S::Memory>,
        shape @ [images, channels, ..]: [usize; 4],
    ) -> Result<Value> {
        let Some(first) = group.first() else { return Ok(Value::zero(shape)) };
        let weighted = WeightedMean::new(entries, shape);
        if weighted.is_single() {
            let held = Held { first: first.place.prediction as usize, ..rows.clone() };
            return Ok(self.put(held, shape));
        }
        let (mut places, weights) = entry_places(&weighted);
        for (place, rows) in places.iter_mut().zip(group.chunks(images.max(1))) {
            place.prediction = rows.first().map_or(0, |row| row.place.prediction);
            place.prediction_stride = place.height * place.width * channels.div_ceil(4) as u32;
        }
        let table = self.table(places.iter().flat_map(EntryPlace::words).collect())?;
        let weights = self.table(weights)?;
        let y = self.room(shape)?;
        let mut operands = Operands(Vec::new());
        let table = operands.table(table);
        let weights = operands.add(weights);
        let (predictions, to) = (operands.held(rows).operand, operands.held(&y));
        let mean = entries_mean::EntriesMean {
            path: "mean over entries",
            latents: batch(shape),
            entries: entries.len(),
        };
        self.dispatch(&entries_mean::call(&mean, table, [weights, predictions], to), operands)?;
        Ok(self.put(y, shape))
    }
}

/// The areas of entries, without the positions of their predictions, and all their weights as words.
pub(super) fn entry_places(weighted: &WeightedMean) -> (Vec<EntryPlace>, Vec<u32>) {
    let mut words = Vec::new();
    let places = weighted.parts.iter().map(|(area, weights)| {
        let [y, x, height, width] = [area.y, area.x, area.height, area.width].map(|n| n as u32);
        let first = words.len() as u32;
        words.extend(weights.iter().map(|w| w.to_bits()));
        EntryPlace { y, x, height, width, weights: first, ..EntryPlace::default() }
    });
    (places.collect(), words)
}
