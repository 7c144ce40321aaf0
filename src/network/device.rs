//! Guidance and samplers on the device: every operation on latents is a dispatch, network calls are planned
//! calls between them, and nothing is read back but what somebody asks for.
//!
//! A latent there is `[image, y, x, quad of channels]` in f32. The predictions of all rows that are asked for
//! together stand in one buffer, entry by entry and picture by picture, so that those of a side with one entry
//! are a latent by themselves.

use std::collections::HashMap;
use std::rc::Rc;

use super::sink::{Buffer, Sink};
use super::{DeviceSink, Kind, Planner, Unet};
use crate::graph::Shape;
use crate::guidance::backend::{Attention, Backend, Degrade, Degraded, Group, Mask, Prediction};
use crate::guidance::weighted::Weighted;
use crate::guidance::{Columns, Entry, sag};
use crate::kernels::latents::{
    EntryPlace, FLAG_LATENT, FLAG_PREDICTION, Latents as Batch, MapPlace, NO_STEP, Place, RowPlace,
};
use crate::kernels::sag_degrade::{self, MaskSource, SagDegrade};
use crate::kernels::{
    Buf, Call, Operand, Precision, Stretch, cfg_rescale, combine, entries_mean, error_norm, network_input,
    network_output,
};
use crate::latent::value::{CellMask, Fault, MOST_OPERANDS, Slots};
use crate::latent::{Latent, Latents, Value};
use crate::model::Prediction as Meaning;
use crate::model::unet::{COLUMNS, Perturbation, time_embedding};
use crate::sampler::Discrete;
use crate::{Error, Result};

/// What the device must know of the network.
#[derive(Clone, Copy)]
pub struct Meanings<'a> {
    /// Channels of the network's input.
    pub in_channels: usize,
    /// Channels of the timestep's embedding.
    pub time_channels: usize,
    /// Storage of its activations.
    pub precision: Precision,
    /// What its output means.
    pub prediction: Meaning,
    /// Timesteps of noise levels.
    pub discrete: &'a Discrete,
}

impl<'a> Meanings<'a> {
    /// Of a UNet.
    pub fn of(planner: &Planner<'a>, prediction: Meaning, discrete: &'a Discrete) -> Self {
        Self {
            in_channels: planner.network.in_channels(),
            time_channels: planner.network.timestep_channels(),
            precision: planner.precision,
            prediction,
            discrete,
        }
    }
}

/// Memory that goes back to the pool when the last latent in it is gone.
struct Held<M> {
    memory: Rc<M>,
    bytes: u64,
    /// First quad, for latents.
    first: usize,
}

impl<M> Clone for Held<M> {
    fn clone(&self) -> Self {
        Self { memory: self.memory.clone(), ..*self }
    }
}

/// Memory nobody uses.
struct Free<M> {
    memory: M,
    bytes: u64,
    /// Sendings before it was last used: what is written by the host arrives before all that is not yet sent.
    sent: u64,
}

/// Guidance and samplers on a device.
pub struct DeviceBackend<'a, S: Sink = DeviceSink<'a>> {
    sink: S,
    network: Meanings<'a>,
    held: Slots<Held<S::Memory>>,
    free: Vec<Free<S::Memory>>,
    /// Tables by their contents: where rows and entries stand is the same at every step.
    tables: HashMap<Vec<u32>, S::Memory>,
    flags: Option<S::Memory>,
    /// The embedding of the evaluation's timestep, by its noise level.
    embedding: Option<(u32, Held<S::Memory>)>,
    step: usize,
    sent: u64,
    fault: Option<Fault>,
}

impl<'a> DeviceBackend<'a> {
    /// Guidance on the device of `unet`.
    pub fn new(sink: DeviceSink<'a>, unet: &Unet<'a>) -> Self {
        Self::on(sink, Meanings::of(&unet.planner, unet.prediction, unet.discrete))
    }
}

/// Buffers of one dispatch, by number.
struct Operands<M>(Vec<Buffer<M>>);

impl<M: Clone> Operands<M> {
    fn add(&mut self, buffer: Buffer<M>) -> Operand {
        let stretch = Stretch { buf: Buf(self.0.len()), offset: 0, bytes: buffer.bytes };
        self.0.push(buffer);
        Operand::Write(stretch)
    }

    fn held(&mut self, held: &Held<M>) -> Place {
        let of = (*held.memory).clone();
        Place { operand: self.add(Buffer { of, offset: 0, bytes: held.bytes }), first: held.first }
    }
}

/// A row of an evaluation.
struct Row<'e> {
    entry: &'e Entry,
    group: usize,
    kind: Kind,
    place: RowPlace,
}

impl<'a, S: Sink> DeviceBackend<'a, S> {
    /// Guidance whose work goes to `sink`.
    pub fn on(sink: S, network: Meanings<'a>) -> Self {
        Self {
            sink,
            network,
            held: Slots::default(),
            free: Vec::new(),
            tables: HashMap::new(),
            flags: None,
            embedding: None,
            step: 0,
            sent: 0,
            fault: None,
        }
    }

    /// The sink.
    pub fn sink(&self) -> &S {
        &self.sink
    }

    /// Memory of `bytes`; what is `written` by the host must not be in use by what is not sent.
    fn take(&mut self, bytes: u64, written: bool) -> Result<Held<S::Memory>> {
        let (free, sent) = (&mut self.free, self.sent);
        self.held.collect(|held| give_back(free, held, sent));
        let fits = |f: &Free<S::Memory>| f.bytes == bytes && (!written || f.sent < sent);
        let memory = match self.free.iter().rposition(fits) {
            Some(i) => self.free.swap_remove(i).memory,
            None => self.sink.create(bytes)?,
        };
        Ok(Held { memory: Rc::new(memory), bytes, first: 0 })
    }

    /// A latent to be written by the device.
    fn room(&mut self, shape: [usize; 4]) -> Result<Held<S::Memory>> {
        self.take(bytes_of(shape), false)
    }

    fn put(&mut self, held: Held<S::Memory>, shape: [usize; 4]) -> Value {
        Value::of(self.held.put(held), shape)
    }

    /// A table of `words`.
    fn table(&mut self, words: Vec<u32>) -> Result<Buffer<S::Memory>> {
        let bytes = 4 * words.len().max(4) as u64;
        let of = match self.tables.get(&words) {
            Some(of) => of.clone(),
            None => {
                let of = self.sink.create(bytes)?;
                self.sink.write(&of, 4 * words.len() as u64, false, &mut || words.clone())?;
                self.tables.insert(words, of.clone());
                of
            }
        };
        Ok(Buffer { of, offset: 0, bytes })
    }

    fn flags(&mut self) -> Result<Buffer<S::Memory>> {
        let of = match &self.flags {
            Some(flags) => flags.clone(),
            None => {
                let flags = self.sink.create(8)?;
                self.sink.write(&flags, 8, false, &mut || vec![NO_STEP; 2])?;
                self.flags.insert(flags).clone()
            }
        };
        Ok(Buffer { of, offset: 0, bytes: 8 })
    }

    fn dispatch(&mut self, call: &Call, operands: Operands<S::Memory>) -> Result<()> {
        self.sink.dispatch(call, &operands.0)
    }

    fn step_bits(&self) -> u32 {
        u32::try_from(self.step).unwrap_or(NO_STEP - 1)
    }

    /// The latents that a sum's terms are, at most as many as are added at once.
    fn terms(&self, value: &Value) -> Result<Vec<(f32, Held<S::Memory>)>> {
        let term = |(c, slot): &(f64, _)| Ok((*c as f32, self.held.get(slot)?.clone()));
        value.terms().iter().map(term).collect()
    }

    /// `value` in as many terms as fit: the first ones of a longer sum are formed before.
    fn shortened(&mut self, value: &Value, most: usize) -> Result<Value> {
        let mut value = value.clone();
        while value.terms().len() > most {
            let (first, rest) = value.split_at(MOST_OPERANDS.min(value.terms().len()));
            value = self.store(&first)?.plus(1.0, &rest);
        }
        Ok(value)
    }

    /// `Σ (c + d · mask) · latent`.
    fn form(
        &mut self,
        terms: &[([f32; 2], Held<S::Memory>)],
        mask: Option<&CellMask>,
        shape: [usize; 4],
    ) -> Result<Value> {
        let y = self.room(shape)?;
        let mut words = [[0u32; 4]; 5];
        for (k, ([c, d], _)) in terms.iter().enumerate() {
            words[k / 4][k % 4] = c.to_bits();
            words[2 + k / 4][k % 4] = d.to_bits();
        }
        let step = [self.step_bits(), 0, 0, 0];
        let scalars = match mask {
            Some(_) => [&words[..4], &[step]].concat(),
            None => [&words[..2], &[step]].concat(),
        };
        let mut operands = Operands(Vec::new());
        let places: Vec<Place> = terms.iter().map(|(_, held)| operands.held(held)).collect();
        let to = operands.held(&y);
        let flags = self.flags()?;
        let flags = operands.add(flags);
        let mask = match mask {
            Some(mask) => {
                let at = operands.held(&self.held.get(&mask.slot)?.clone());
                Some(combine::Mask { at, by_image: mask.masks > 1 })
            }
            None => None,
        };
        let scalars = self.sink.scalars(&scalars)?;
        let sum = combine::Combine { path: "combine", latents: batch(shape), scalars, mask };
        for call in combine::calls(&sum, &places, to, flags) {
            self.sink.dispatch(&call, &operands.0)?;
        }
        Ok(self.put(y, shape))
    }

    /// The embedding of a noise level's timestep.
    fn embedding(&mut self, sigma: f32) -> Result<Held<S::Memory>> {
        if let Some((bits, held)) = &self.embedding
            && *bits == sigma.to_bits()
        {
            return Ok(held.clone());
        }
        if let Some((_, held)) = self.embedding.take() {
            give_back(&mut self.free, held, self.sent);
        }
        let Meanings { discrete, time_channels, .. } = self.network;
        let stored = time_channels.next_multiple_of(4);
        let held = self.take(4 * stored as u64, true)?;
        self.sink.write(&held.memory, held.bytes, true, &mut || {
            let values = time_embedding(discrete.timestep(sigma), time_channels);
            values.iter().map(|v| v.to_bits()).chain(std::iter::repeat(0)).take(stored).collect()
        })?;
        self.embedding = Some((sigma.to_bits(), held.clone()));
        Ok(held)
    }

    /// One network call for some of `rows`, and the way of latents in and predictions out.
    #[allow(clippy::too_many_arguments)]
    fn call(
        &mut self,
        kind: Kind,
        rows: &[&Row<'_>],
        (x, sigma): (&Value, f32),
        predictions: &Held<S::Memory>,
        columns: Option<&Held<S::Memory>>,
    ) -> Result<()> {
        let [_, channels, height, width] = x.shape();
        let latent = Shape::new(height, width, channels);
        let x = x.stored().ok_or_else(|| Error::internal("a network is shown what is not stored"))?;
        let x = self.held.get(x)?.clone();
        let embedding = self.embedding(sigma)?;
        let table = self.table(rows.iter().flat_map(|row| row.place.words()).collect())?;
        let (count, path) = (rows.len(), "network");
        let mut operands = Operands(Vec::new());
        let places = [
            Place { operand: operands.add(table.clone()), first: 0 },
            operands.held(&x),
            operands.held(&embedding),
        ];
        let to = ["x", "time"].map(|name| self.sink.slot((kind, count), name));
        let [to_x, to_time] = to;
        let to = [operands.add(to_x?), operands.add(to_time?)];
        let c_in = 1.0 / (sigma * sigma + 1.0).sqrt();
        let input = network_input::NetworkInput {
            path,
            rows: count,
            latent,
            area: kind.size,
            in4: self.network.in_channels.div_ceil(4),
            time4: self.network.time_channels.div_ceil(4),
            scalars: self.sink.scalars(&[[c_in.to_bits(), 0, 0, 0]])?,
            precision: self.network.precision,
        };
        let [at_table, at_x, at_embedding] = places;
        self.dispatch(&network_input::call(&input, at_table, at_x, at_embedding, to), operands)?;
        let entries: Vec<&Entry> = rows.iter().map(|row| row.entry).collect();
        self.sink.network(kind, &entries)?;
        let mut operands = Operands(Vec::new());
        let at_table = Place { operand: operands.add(table), first: 0 };
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
        let (keep, take) = super::preconditioning(self.network.prediction, self.network.discrete, sigma);
        let words = [keep.to_bits(), take.to_bits(), self.step_bits(), 0];
        let scalars = self.sink.scalars(&[words])?;
        let output = network_output::NetworkOutput { path, rows: count, latent, area: kind.size, scalars };
        self.dispatch(&network_output::call(&output, at_table, out, at_x, [to, flags], recorded), operands)
    }

    /// What a group's rows come to: their prediction itself, or the mean over entries.
    fn mean(
        &mut self,
        group: &[Row<'_>],
        entries: &[&Entry],
        rows: &Held<S::Memory>,
        shape: [usize; 4],
    ) -> Result<Value> {
        let Some(first) = group.first() else { return Ok(Value::zero(shape)) };
        let weighted = Weighted::new(entries, shape);
        if weighted.is_single() {
            let held = Held { first: first.place.prediction as usize, ..rows.clone() };
            return Ok(self.put(held, shape));
        }
        let (places, weights) = entry_places(group, &weighted, shape);
        let table = self.table(places.iter().flat_map(EntryPlace::words).collect())?;
        let weights = self.table(weights)?;
        let y = self.room(shape)?;
        let mut operands = Operands(Vec::new());
        let table = Place { operand: operands.add(table), first: 0 };
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

fn give_back<M>(free: &mut Vec<Free<M>>, held: Held<M>, sent: u64) {
    if let Ok(memory) = Rc::try_unwrap(held.memory) {
        free.push(Free { memory, bytes: held.bytes, sent });
    }
}

fn batch([images, channels, height, width]: [usize; 4]) -> Batch {
    Batch { images, shape: Shape::new(height, width, channels) }
}

fn bytes_of(shape: [usize; 4]) -> u64 {
    16 * batch(shape).quads() as u64
}

/// Where the rows of a group's entries stand, with their weights as words.
fn entry_places(group: &[Row<'_>], weighted: &Weighted, shape: [usize; 4]) -> (Vec<EntryPlace>, Vec<u32>) {
    let [images, channels, ..] = shape;
    let mut words = Vec::new();
    let places = weighted.parts.iter().zip(group.chunks(images.max(1))).map(|((area, weights), rows)| {
        let first = words.len() as u32;
        words.extend(weights.iter().map(|w| w.to_bits()));
        EntryPlace {
            y: area.y as u32,
            x: area.x as u32,
            height: area.height as u32,
            width: area.width as u32,
            prediction: rows.first().map_or(0, |row| row.place.prediction),
            prediction_stride: (area.height * area.width * channels.div_ceil(4)) as u32,
            weights: first,
        }
    });
    (places.collect(), words)
}

/// Values `[image, channel, y, x]` as the device has them.
fn to_quads(latent: &Latent) -> Vec<u32> {
    let [images, channels, height, width] = latent.shape();
    let (cells, stored) = (height * width, channels.next_multiple_of(4));
    let mut quads = vec![0; images * cells * stored];
    for (image, to) in quads.chunks_exact_mut((cells * stored).max(1)).enumerate() {
        for (c, plane) in latent.image(image).chunks_exact(cells.max(1)).enumerate() {
            plane.iter().zip(to.chunks_exact_mut(stored)).for_each(|(v, cell)| cell[c] = v.to_bits());
        }
    }
    quads
}

/// The inverse of [`to_quads`].
fn from_quads(words: &[u32], shape: [usize; 4]) -> Latent {
    let [images, channels, height, width] = shape;
    let (cells, stored) = (height * width, channels.next_multiple_of(4));
    let mut latent = Latent::zeros(images, channels, height, width);
    for (image, from) in words.chunks_exact((cells * stored).max(1)).enumerate().take(images) {
        for (c, plane) in latent.image_mut(image).chunks_exact_mut(cells.max(1)).enumerate() {
            plane
                .iter_mut()
                .zip(from.chunks_exact(stored))
                .for_each(|(v, cell)| *v = f32::from_bits(cell[c]));
        }
    }
    latent
}

impl<S: Sink> Latents for DeviceBackend<'_, S> {
    fn bring_with(&mut self, shape: [usize; 4], make: &mut dyn FnMut() -> Latent) -> Result<Value> {
        let held = self.take(bytes_of(shape), true)?;
        self.sink.write(&held.memory, held.bytes, false, &mut || to_quads(&make()))?;
        Ok(self.put(held, shape))
    }

    fn store(&mut self, value: &Value) -> Result<Value> {
        if value.stored().is_some() {
            return Ok(value.clone());
        }
        if value.terms().is_empty() {
            let [batch, channels, height, width] = value.shape();
            return self.bring(&Latent::zeros(batch, channels, height, width));
        }
        let value = self.shortened(value, MOST_OPERANDS)?;
        let terms: Vec<_> = self.terms(&value)?.into_iter().map(|(c, held)| ([c, 0.0], held)).collect();
        self.form(&terms, None, value.shape())
    }

    fn bring_mask(&mut self, mask: &Latent) -> Result<CellMask> {
        let held = self.take(4 * mask.data().len().max(4) as u64, true)?;
        let words = || mask.data().iter().map(|v| v.to_bits()).collect();
        self.sink.write(&held.memory, 4 * mask.data().len() as u64, false, &mut { words })?;
        let (masks, size) = (mask.batch(), (mask.height(), mask.width()));
        Ok(CellMask { slot: self.held.put(held), masks, size })
    }

    fn blend(&mut self, mask: &CellMask, drawn: &Value, kept: &Value) -> Result<Value> {
        let [drawn, kept] = [drawn, kept].map(|v| self.shortened(v, MOST_OPERANDS / 2));
        let (drawn, kept) = (drawn?, kept?);
        // m · drawn + (1 - m) · kept: a latent in both is one term.
        let mut terms: Vec<([f32; 2], Held<S::Memory>, usize)> = Vec::new();
        let of = |c: f32, is_drawn: bool| if is_drawn { [0.0, c] } else { [c, -c] };
        for (value, is_drawn) in [(&drawn, true), (&kept, false)] {
            for ((c, held), (_, slot)) in self.terms(value)?.into_iter().zip(value.terms()) {
                let [c, d] = of(c, is_drawn);
                match terms.iter_mut().find(|(_, _, number)| *number == slot.number()) {
                    Some((factors, ..)) => *factors = [factors[0] + c, factors[1] + d],
                    None => terms.push(([c, d], held, slot.number())),
                }
            }
        }
        let terms: Vec<_> = terms.into_iter().map(|(factors, held, _)| (factors, held)).collect();
        self.form(&terms, Some(mask), drawn.shape())
    }

    fn error_norm(&mut self, values: [&Value; 3], absolute: f32, relative: f32) -> Result<f64> {
        let stored = [self.store(values[0])?, self.store(values[1])?, self.store(values[2])?];
        let to = self.take(16, false)?;
        let mut operands = Operands(Vec::new());
        let mut places = [Place::UNUSED; 3];
        for (place, value) in places.iter_mut().zip(&stored) {
            let slot = value.stored().ok_or_else(|| Error::internal("a sum is not formed"))?;
            *place = operands.held(&self.held.get(slot)?.clone());
        }
        let at = operands.held(&to);
        let latents = batch(values[0].shape());
        let norm = error_norm::ErrorNorm { path: "error", latents, tolerance: (absolute, relative) };
        self.dispatch(&error_norm::call(&norm, places, at), operands)?;
        let words = self.sink.read(&Buffer { of: (*to.memory).clone(), offset: 0, bytes: 4 })?;
        self.sent += 1;
        give_back(&mut self.free, to, self.sent);
        words.first().map(|w| f32::from_bits(*w).into()).ok_or_else(|| Error::internal("no error was read"))
    }

    fn read(&mut self, value: &Value) -> Result<Latent> {
        let stored = self.store(value)?;
        let slot = stored.stored().ok_or_else(|| Error::internal("a sum is not formed"))?;
        let held = self.held.get(slot)?.clone();
        let (of, offset) = ((*held.memory).clone(), 16 * held.first as u64);
        let words = self.sink.read(&Buffer { of, offset, bytes: bytes_of(value.shape()) })?;
        self.sent += 1;
        Ok(from_quads(&words, value.shape()))
    }

    fn step(&mut self, step: usize) {
        self.step = step;
        self.sink.step();
    }

    fn submit(&mut self) -> Result<u64> {
        let flags = self.flags()?;
        self.sent += 1;
        self.sink.send(&flags.of)
    }

    fn done(&mut self, wanted: u64) -> Result<u64> {
        let (done, flags) = self.sink.done(wanted)?;
        if let Some(flags) = flags {
            let [prediction, latent] = [FLAG_PREDICTION, FLAG_LATENT].map(|flag| flags[flag]);
            self.fault = match (prediction, latent) {
                (NO_STEP, NO_STEP) => None,
                (p, l) if p <= l => Some(Fault::Prediction(p as usize)),
                (_, l) => Some(Fault::Latent(l as usize)),
            };
        }
        Ok(done)
    }

    fn ahead(&self) -> u64 {
        self.sink.ahead()
    }

    fn fault(&self) -> Option<Fault> {
        self.fault
    }
}

impl<S: Sink> Backend for DeviceBackend<'_, S> {
    fn predict(&mut self, x: &Value, sigma: f32, groups: &[Group<'_>]) -> Result<Vec<Prediction>> {
        let shape @ [images, channels, height, width] = x.shape();
        let mut rows = Vec::new();
        let (mut quads, mut values) = (0, 0);
        let recorded = groups.iter().any(|group| group.record);
        for (number, group) in groups.iter().enumerate() {
            let record = recorded && group.perturbation == Perturbation::None;
            for &entry in group.entries {
                let area = entry.area_in((height, width));
                let size = (area.height, area.width);
                let kind = Kind { size, tokens: entry.tokens, record, perturbation: group.perturbation };
                let positions = match record {
                    true => self.sink.map_size(kind).map(|(height, width)| height * width)?,
                    false => 0,
                };
                for image in 0..images {
                    let place = RowPlace {
                        image: image as u32,
                        y: area.y as u32,
                        x: area.x as u32,
                        prediction: quads as u32,
                        columns: values as u32,
                    };
                    rows.push(Row { entry, group: number, kind, place });
                    quads += area.height * area.width * channels.div_ceil(4);
                    values += positions;
                }
            }
        }
        let entries: Vec<&Entry> = rows.iter().map(|row| row.entry).collect();
        self.sink.read_prompts(&entries)?;
        let predictions = self.take(16 * quads as u64, false)?;
        let columns = if values > 0 { Some(self.take(4 * values.max(4) as u64, false)?) } else { None };
        let kinds: Vec<Kind> = rows.iter().map(|row| row.kind).collect();
        for (kind, members) in self.sink.calls(&kinds)? {
            let part: Vec<&Row<'_>> = members.iter().map(|i| &rows[*i]).collect();
            let heard = part.iter().any(|row| groups[row.group].record);
            self.call(kind, &part, (x, sigma), &predictions, columns.as_ref().filter(|_| heard))?;
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
            results.push(Prediction { denoised, attention });
        }
        // Nobody else has them by now.
        let sent = self.sent;
        give_back(&mut self.free, predictions, sent);
        if let Some(columns) = columns {
            give_back(&mut self.free, columns, sent);
        }
        Ok(results)
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
            let slot = value.stored().ok_or_else(|| Error::internal("a sum is not formed"))?;
            *place = operands.held(&self.held.get(slot)?.clone());
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
        let shape @ [images, channels, height, width] = base.shape();
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
            let slot = value.stored().ok_or_else(|| Error::internal("a sum is not formed"))?;
            *place = operands.held(&self.held.get(slot)?.clone());
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
        let latents = Batch { images, shape: Shape::new(height, width, channels) };
        let sag = SagDegrade { path: "SAG", latents, taps, mask: source };
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
