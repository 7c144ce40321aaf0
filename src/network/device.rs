//! Guidance and samplers on the device: every operation on latents is a dispatch, network calls run between them, and
//! only what a caller requests is read back.
//!
//! A latent on the device is `[image, y, x, quad of channels]` in f32. The predictions of all rows of an evaluation are
//! in one buffer, entry by entry and image by image, so that those of a side with one entry are a latent.

mod guidance;
mod quads;
mod rows;

use std::collections::HashMap;
use std::rc::Rc;

use super::sink::{Buffer, Sink};
use super::{DeviceSink, Planner, Unet};
use crate::graph::Shape;
use crate::kernels::latents::{FLAG_LATENT, FLAG_PREDICTION, Latents as Batch, NO_STEP, OperandAt};
use crate::kernels::{Buf, Call, Operand, Precision, Stretch, combine, error_norm};
use crate::latent::value::{CellMask, Fault, Slots};
use crate::latent::{Latent, Latents, Value};
use crate::model::Prediction as Meaning;
use crate::sampler::Discrete;
use crate::{Error, ErrorKind, Result};
use quads::{from_quads, to_quads};

/// What guidance on the device needs to know of the network.
#[derive(Clone, Copy)]
pub struct NetworkFacts<'a> {
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

impl<'a> NetworkFacts<'a> {
    /// Of a UNet.
    pub fn of(planner: &Planner<'a>, prediction: Meaning, discrete: &'a Discrete) -> Self {
        Self {
            in_channels: planner.network.in_channels(),
            time_channels: planner.network.timestep_channels(),
            precision: planner.precision(),
            prediction,
            discrete,
        }
    }
}

/// Memory that returns to the pool when the last latent in it is dropped.
struct Held<M> {
    memory: Rc<M>,
    bytes: u64,
    /// First quad of a latent.
    first: usize,
}

impl<M> Clone for Held<M> {
    fn clone(&self) -> Self {
        Self { memory: self.memory.clone(), ..*self }
    }
}

/// Memory that is not in use.
struct Free<M> {
    memory: M,
    bytes: u64,
    /// Number of submissions when it was last used: writes of the host arrive before all work that is not submitted.
    sent: u64,
}

/// Guidance and samplers on a device.
pub struct DeviceBackend<'a, S: Sink = DeviceSink<'a>> {
    sink: S,
    network: NetworkFacts<'a>,
    held: Slots<Held<S::Memory>>,
    free: Vec<Free<S::Memory>>,
    /// Tables by their contents: the positions of rows and entries are the same at every step.
    tables: HashMap<Vec<u32>, S::Memory>,
    flags: Option<S::Memory>,
    /// The embedding of the evaluation's timestep, by its noise level.
    embedding: Option<(u32, Held<S::Memory>)>,
    /// The current step, if there is one.
    step: Option<usize>,
    sent: u64,
    fault: Option<Fault>,
}

impl<'a> DeviceBackend<'a> {
    /// Guidance on the device of `unet`.
    pub fn new(sink: DeviceSink<'a>, unet: &Unet<'a>) -> Self {
        Self::on(sink, NetworkFacts::of(&unet.planner, unet.prediction, unet.discrete))
    }
}

/// The buffers of one dispatch, by number.
struct Operands<M>(Vec<Buffer<M>>);

impl<M: Clone> Operands<M> {
    fn add(&mut self, buffer: Buffer<M>) -> Operand {
        let stretch = Stretch { buf: Buf(self.0.len()), offset: 0, bytes: buffer.bytes };
        self.0.push(buffer);
        Operand::Write(stretch)
    }

    fn held(&mut self, held: &Held<M>) -> OperandAt {
        let of = (*held.memory).clone();
        OperandAt { operand: self.add(Buffer { of, offset: 0, bytes: held.bytes }), first: held.first }
    }

    fn table(&mut self, table: Buffer<M>) -> OperandAt {
        OperandAt { operand: self.add(table), first: 0 }
    }
}

impl<'a, S: Sink> DeviceBackend<'a, S> {
    /// Guidance whose work goes to `sink`.
    pub fn on(sink: S, network: NetworkFacts<'a>) -> Self {
        Self {
            sink,
            network,
            held: Slots::default(),
            free: Vec::new(),
            tables: HashMap::new(),
            flags: None,
            embedding: None,
            step: None,
            sent: 0,
            fault: None,
        }
    }

    /// Memory of `bytes`. If it is `written` by the host, no work that is not submitted may use it.
    fn take(&mut self, bytes: u64, written: bool) -> Result<Held<S::Memory>> {
        let most = self.sink.max_binding();
        if bytes > most {
            return Err(Error::new(ErrorKind::Memory, "the latents are larger than this device can bind")
                .expected(format!("at most {most} bytes"))
                .found(format!("{bytes} bytes"))
                .hint("make fewer or smaller pictures at a time"));
        }
        let (free, sent) = (&mut self.free, self.sent);
        self.held.collect(|held| give_back(free, held, sent));
        let fits = |f: &Free<S::Memory>| f.bytes == bytes && (!written || f.sent < sent);
        let memory = match self.free.iter().rposition(fits) {
            Some(i) => self.free.swap_remove(i).memory,
            None => self.sink.create(bytes)?,
        };
        Ok(Held { memory: Rc::new(memory), bytes, first: 0 })
    }

    /// Memory for a latent that the device writes.
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
        u32::try_from(self.step.unwrap_or(0)).unwrap_or(NO_STEP - 1)
    }

    /// The memory of a value that is stored.
    fn stored(&self, value: &Value) -> Result<Held<S::Memory>> {
        let slot = value.stored().ok_or_else(|| Error::internal("a sum is not computed"))?;
        self.held.get(slot).cloned()
    }

    /// Operands that begin with `values`, which are stored, and the places of these.
    fn operands<const N: usize>(&self, values: &[Value; N]) -> Result<(Operands<S::Memory>, [OperandAt; N])> {
        let mut operands = Operands(Vec::new());
        let mut places = [OperandAt::UNUSED; N];
        for (place, value) in places.iter_mut().zip(values) {
            *place = operands.held(&self.stored(value)?);
        }
        Ok((operands, places))
    }

    /// Reads words back; waits for all recorded work.
    fn words(&mut self, held: &Held<S::Memory>, offset: u64, bytes: u64) -> Result<Vec<u32>> {
        let words = self.sink.read(&Buffer { of: (*held.memory).clone(), offset, bytes })?;
        self.sent += 1;
        Ok(words)
    }

    /// The coefficients and latents of the terms of a sum.
    fn terms(&self, value: &Value) -> Result<Vec<(f32, Held<S::Memory>)>> {
        let term = |(c, slot): &(f64, _)| Ok((*c as f32, self.held.get(slot)?.clone()));
        value.terms()?.iter().map(term).collect()
    }

    /// `value` with at most `most` terms: the first terms of a longer sum are computed first.
    fn shortened(&mut self, value: &Value, most: usize) -> Result<Value> {
        let mut value = value.clone();
        while value.terms()?.len() > most {
            let (first, rest) = value.split_at(combine::MOST_TERMS);
            value = self.store(&first)?.plus(1.0, &rest);
        }
        Ok(value)
    }

    /// Computes `Σ (c + d · mask) · latent`.
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
        let places: Vec<OperandAt> = terms.iter().map(|(_, held)| operands.held(held)).collect();
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
        let sum = combine::Combine {
            path: if mask.is_some() { "blend" } else { "sum" },
            latents: batch(shape),
            scalars,
            mask,
        };
        for call in combine::calls(&sum, &places, to, flags)? {
            self.sink.dispatch(&call, &operands.0)?;
        }
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

/// Bytes of a latent on a device.
pub(crate) fn bytes_of(shape: [usize; 4]) -> u64 {
    16 * batch(shape).quads() as u64
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
        if value.terms()?.is_empty() {
            let [batch, channels, height, width] = value.shape();
            return self.bring_with(value.shape(), &mut || Latent::zeros(batch, channels, height, width));
        }
        let value = self.shortened(value, combine::MOST_TERMS)?;
        let terms: Vec<_> = self.terms(&value)?.into_iter().map(|(c, held)| ([c, 0.0], held)).collect();
        self.form(&terms, None, value.shape())
    }

    fn bring_mask_with(&mut self, shape: [usize; 4], make: &mut dyn FnMut() -> Latent) -> Result<CellMask> {
        let [masks, _, height, width] = shape;
        let values = masks * height * width;
        let held = self.take(4 * values.max(4) as u64, true)?;
        let mut words = || make().data().iter().map(|v| v.to_bits()).collect();
        self.sink.write(&held.memory, 4 * values as u64, false, &mut words)?;
        Ok(CellMask { slot: self.held.put(held), masks, size: (height, width) })
    }

    fn blend(&mut self, mask: &CellMask, drawn: &Value, kept: &Value) -> Result<Value> {
        let [drawn, kept] = [drawn, kept].map(|v| self.shortened(v, combine::MOST_TERMS / 2));
        let (drawn, kept) = (drawn?, kept?);
        // Checked as a sum, for it is one.
        drawn.plus(1.0, &kept).terms()?;
        // m · drawn + (1 - m) · kept: a latent in both is one term.
        let mut terms: Vec<([f32; 2], Held<S::Memory>, usize)> = Vec::new();
        let of = |c: f32, is_drawn: bool| if is_drawn { [0.0, c] } else { [c, -c] };
        for (value, is_drawn) in [(&drawn, true), (&kept, false)] {
            for ((c, held), (_, slot)) in self.terms(value)?.into_iter().zip(value.terms()?) {
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
        Value::combine(&values.map(|value| (1.0, value))).terms()?;
        let stored = [self.store(values[0])?, self.store(values[1])?, self.store(values[2])?];
        let to = self.take(16, false)?;
        let (mut operands, places) = self.operands(&stored)?;
        let at = operands.held(&to);
        let latents = batch(values[0].shape());
        let norm = error_norm::ErrorNorm { path: "error", latents, tolerance: (absolute, relative) };
        self.dispatch(&error_norm::call(&norm, places, at), operands)?;
        let words = self.words(&to, 0, 4)?;
        give_back(&mut self.free, to, self.sent);
        words.first().map(|w| f32::from_bits(*w).into()).ok_or_else(|| Error::internal("no error was read"))
    }

    fn read(&mut self, value: &Value) -> Result<Latent> {
        let stored = self.store(value)?;
        let held = self.stored(&stored)?;
        let words = self.words(&held, 16 * held.first as u64, bytes_of(value.shape()))?;
        Ok(from_quads(&words, value.shape()))
    }

    fn step(&mut self, step: usize) {
        // Latents that are computed before the first step belong to it; a step may have several evaluations.
        if self.step.replace(step).is_some_and(|before| before != step) {
            self.sink.step();
        }
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
