//! Work recorded for the device: plans and single dispatches, one after the other, in submissions of about a tenth of a
//! second, or as long as the app allows. The host waits for the device only to read a result, or if it is too far ahead.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::buffers::{buffer, entry, lost, wait};
use super::clock::Clock;
use super::submission_size::{Budget, cost};
use super::{Engine, KeptTensors, Prepared, Readback, Upload, WeightSource, Weights};
use crate::kernels::latents::SCALARS;
use crate::kernels::{Call, Operand, Variant};
use crate::{Error, Result};

/// Most submissions in flight. Fewer, if they are long: see [`Stream::flush`].
const MOST_FLYING: usize = 4;

/// Number of dispatches after which the recorded work is submitted to an idle device.
const EARLY: usize = 64;

/// Most bind groups of single dispatches that are cached.
const MOST_BOUND: usize = 512;

/// A position in a buffer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BufferOffset {
    /// The buffer.
    pub buffer: wgpu::Buffer,
    /// First byte.
    pub offset: u64,
}

/// A submission in flight.
struct Flying {
    index: wgpu::SubmissionIndex,
    work: u64,
    /// Of the network that most of it is of; None if its time says nothing about the speed of the device.
    budget: Option<Budget>,
    /// How full it is: 1 is the usual length.
    share: f64,
    /// When submitting began and returned: some drivers do the work before they return.
    given: Instant,
    taken: Instant,
}

/// A dispatch with its bindings.
struct BoundDispatch {
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
}

/// What a bind group depends on: everything of a dispatch except the number of its workgroups.
#[derive(PartialEq, Eq, Hash)]
struct DispatchKey {
    variant: Variant,
    params: Vec<u8>,
    spots: Vec<(Operand, Option<BufferOffset>)>,
}

/// A readback in flight.
pub struct Fetch {
    buffer: wgpu::Buffer,
    bytes: u64,
    /// The number of its submission.
    number: u64,
    mapped: std::sync::mpsc::Receiver<std::result::Result<(), wgpu::BufferAsyncError>>,
    /// The result of the mapping, once it is known.
    is_mapped: Option<std::result::Result<(), wgpu::BufferAsyncError>>,
}

impl Fetch {
    /// Whether it has arrived, as of the last [`Stream::poll`].
    pub fn is_there(&mut self) -> bool {
        if self.is_mapped.is_none() {
            self.is_mapped = self.mapped.try_recv().ok();
        }
        self.is_mapped.is_some()
    }
}

/// Work recorded for a device.
pub struct Stream<'e> {
    engine: &'e Engine,
    cancel: &'e AtomicBool,
    encoder: Option<wgpu::CommandEncoder>,
    pass: Option<wgpu::ComputePass<'static>>,
    /// Whether buffers were written since the last submission.
    loose: bool,
    /// Work of the current network that is recorded and not submitted.
    work: u64,
    budget: Budget,
    /// How much of a submission is filled, and how much of it by other networks.
    share: f64,
    foreign: f64,
    /// Number of these dispatches.
    recorded: usize,
    flying: VecDeque<Flying>,
    /// Submissions that the work since the last [`send`](Stream::send) fills, and those of the last one.
    counted: f64,
    sent: f64,
    /// Number of submissions so far, and of those that are done.
    submitted: u64,
    landed: u64,
    /// When the last of them was done, if that is known.
    landing: Option<Instant>,
    /// Values that single dispatches read.
    scalars: Vec<[u32; 4]>,
    uniform: Option<wgpu::Buffer>,
    bound: HashMap<DispatchKey, BoundDispatch>,
    readbacks: Vec<wgpu::Buffer>,
    clock: Option<Clock>,
}

impl<'e> Stream<'e> {
    /// A stream for the device of `engine`; setting `cancel` ends it with an error.
    pub fn new(engine: &'e Engine, cancel: &'e AtomicBool) -> Self {
        Self {
            engine,
            cancel,
            encoder: None,
            pass: None,
            loose: false,
            work: 0,
            budget: engine.budgets.of_single(),
            share: 0.0,
            foreign: 0.0,
            recorded: 0,
            flying: VecDeque::new(),
            counted: 0.0,
            sent: 0.0,
            submitted: 0,
            landed: 0,
            landing: Some(Instant::now()),
            scalars: Vec::new(),
            uniform: None,
            bound: HashMap::new(),
            readbacks: Vec::new(),
            clock: Clock::new(engine),
        }
    }

    /// The engine.
    pub fn engine(&self) -> &'e Engine {
        self.engine
    }

    /// Records a run of a plan. Its inputs must be in its arena already, except the tensors that other plans have
    /// `kept`, one for each row.
    ///
    /// # Errors
    /// As [`Engine::run`].
    pub fn plan(
        &mut self,
        prepared: &Prepared,
        streamed: Option<(&Weights, &dyn WeightSource)>,
        kept: &[&KeptTensors],
    ) -> Result<()> {
        let rows = prepared.rows(&self.engine.gpu, kept)?;
        if !self.budget.is(prepared.budget()) {
            self.budget = prepared.budget().clone();
            (self.work, self.foreign) = (0, self.share);
        }
        self.budget.begin_call();
        // Pages of weights that the current submission can read.
        let mut seen: Option<&[usize]> = None;
        let mut window = None;
        for (i, dispatch) in prepared.plan().dispatches.iter().enumerate() {
            let pages = prepared.pages(i);
            if pages.iter().any(|page| seen.is_none_or(|seen| !seen.contains(page))) {
                let (weights, source) =
                    streamed.ok_or_else(|| Error::usage("streamed weights need their source"))?;
                self.cut()?;
                if window.is_none() {
                    window = weights.window();
                }
                if let Some(window) = &mut window {
                    window.load(&self.engine.converter(), pages, source, self.cancel)?;
                }
                seen = Some(pages);
            }
            self.make_room(cost(dispatch.flops))?;
            prepared.encode(self.pass(), i, rows.as_ref())?;
            self.count(cost(dispatch.flops));
            if self.engine.is_tracing() {
                self.cut()?;
                self.engine.look_at_results(prepared, i)?;
            }
        }
        if seen.is_some() {
            self.cut()?;
        }
        drop(window);
        self.engine.note_memory();
        Ok(())
    }

    /// Adds `values` to the scalars that single dispatches read, and returns their index, valid until
    /// [`send`](Self::send).
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for more than [`SCALARS`]; as [`send`](Self::send).
    pub fn scalars(&mut self, values: &[[u32; 4]]) -> Result<usize> {
        if values.len() > SCALARS {
            return Err(Error::usage("too many scalars")
                .expected(format!("at most {SCALARS}"))
                .found(values.len().to_string()));
        }
        // Equal values are stored once.
        if let Some(at) = self.scalars.windows(values.len().max(1)).position(|w| w == values) {
            return Ok(at);
        }
        if self.scalars.len() + values.len() > SCALARS {
            self.flush()?;
            self.scalars.clear();
        }
        self.scalars.extend_from_slice(values);
        Ok(self.scalars.len() - values.len())
    }

    /// Records one dispatch, whose [`Buf`](crate::kernels::Buf)s are indices of `spots`.
    ///
    /// # Errors
    /// An error of the device.
    pub fn dispatch(&mut self, call: &Call, spots: &[BufferOffset]) -> Result<()> {
        let spot = |operand: &Operand| match operand {
            Operand::Read(s) | Operand::Write(s) => spots.get(s.buf.0).cloned(),
            _ => None,
        };
        let key = DispatchKey {
            variant: call.variant.clone(),
            params: call.params.clone(),
            spots: call.operands.iter().map(|o| (*o, spot(o))).collect(),
        };
        self.make_room(cost(call.flops))?;
        let bound = match self.bound.remove(&key) {
            Some(bound) => bound,
            None => self.bind(&key)?,
        };
        if self.bound.len() >= MOST_BOUND {
            self.bound.clear();
        }
        let [x, y, z] = call.groups;
        let pass = self.pass();
        pass.set_pipeline(&bound.pipeline);
        pass.set_bind_group(0, &bound.group, &[]);
        pass.dispatch_workgroups(x, y, z);
        self.bound.insert(key, bound);
        self.count(cost(call.flops));
        Ok(())
    }

    /// Writes bytes to a buffer, before all work that is recorded and not yet submitted.
    pub(crate) fn write(&mut self, what: Upload, to: &wgpu::Buffer, bytes: &[u8]) {
        self.engine.write(what, to, 0, bytes);
        self.loose = true;
    }

    /// Drops the bind groups of single dispatches, which keep buffers alive.
    pub fn forget_bindings(&mut self) {
        self.bound.clear();
    }

    fn bind(&mut self, key: &DispatchKey) -> Result<BoundDispatch> {
        use wgpu::BufferUsages as U;
        let gpu = &self.engine.gpu;
        gpu.compile(self.engine.checked, [&key.variant].into_iter())?;
        let pipeline = gpu.pipeline(self.engine.checked, &key.variant)?;
        let uniform = self.uniform().clone();
        gpu.checked("bind a dispatch", || {
            let bytes = key.params.len().next_multiple_of(16) as u64;
            let params = gpu.device().create_buffer(&wgpu::BufferDescriptor {
                label: Some("params"),
                size: bytes,
                usage: U::UNIFORM,
                mapped_at_creation: true,
            });
            let mut view = params.get_mapped_range_mut(..).map_err(|e| lost().cause(e))?;
            view.slice(..key.params.len()).copy_from_slice(&key.params);
            drop(view);
            params.unmap();
            self.engine.traffic.uploaded(Upload::SetUp, bytes);
            let mut entries = vec![entry(0, &params, 0, bytes)];
            for (i, (operand, spot)) in key.spots.iter().enumerate() {
                let number = i as u32 + 1;
                entries.push(match (operand, spot) {
                    (Operand::Read(s) | Operand::Write(s), Some(spot)) => {
                        entry(number, &spot.buffer, spot.offset.saturating_add(s.offset), s.bytes)
                    }
                    (Operand::Scalars, _) => entry(number, &uniform, 0, uniform.size()),
                    // A variant may not even declare a binding that it does not use.
                    (Operand::Unused, _) => match self.engine.unused.get(i) {
                        Some(unused) => entry(number, unused, 0, 256),
                        None => continue,
                    },
                    _ => return Err(Error::usage(format!("an operand of {} has no buffer", key.variant))),
                });
            }
            let group = gpu.device().create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some("dispatch"),
                layout: &pipeline.get_bind_group_layout(0),
                entries: &entries,
            });
            Ok(BoundDispatch { pipeline, group })
        })?
    }

    /// Records a copy to the host and submits; [`arrived`](Self::arrived) returns its values.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub(crate) fn fetch(&mut self, what: Readback, from: &BufferOffset, bytes: u64) -> Result<Fetch> {
        let fetch = self.copy_out(what, from, bytes)?;
        self.send()?;
        Ok(fetch)
    }

    /// The same without [`send`](Self::send), which must be called before [`arrived`](Self::arrived).
    ///
    /// # Errors
    /// An error of the device.
    pub(crate) fn copy_out(&mut self, what: Readback, from: &BufferOffset, bytes: u64) -> Result<Fetch> {
        use wgpu::BufferUsages as U;
        self.engine.traffic.read_back(what, bytes);
        let kept = self.readbacks.iter().position(|b| b.size() == bytes.next_multiple_of(4));
        let to = match kept {
            Some(i) => self.readbacks.swap_remove(i),
            None => self.engine.gpu.checked("make a buffer for results", || {
                buffer(&self.engine.gpu, "readback", bytes, U::MAP_READ | U::COPY_DST)
            })?,
        };
        self.pass = None;
        self.encoder().copy_buffer_to_buffer(&from.buffer, from.offset, &to, 0, to.size());
        let (sender, mapped) = std::sync::mpsc::channel();
        let encoder = self.encoder();
        // There is no receiver if waiting has failed.
        encoder.map_buffer_on_submit(&to, wgpu::MapMode::Read, .., move |r| drop(sender.send(r)));
        Ok(Fetch { buffer: to, bytes, number: self.submitted + 1, mapped, is_mapped: None })
    }

    /// Records a copy of `bytes` on the device.
    pub fn copy(&mut self, from: &BufferOffset, to: &wgpu::Buffer, bytes: u64) {
        self.pass = None;
        self.encoder().copy_buffer_to_buffer(&from.buffer, from.offset, to, 0, bytes);
    }

    /// The values of a readback; waits for it.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn arrived(&mut self, fetch: Fetch) -> Result<Vec<u32>> {
        self.done(fetch.number)?;
        let mapped = match fetch.is_mapped {
            Some(mapped) => mapped,
            None => fetch.mapped.recv().map_err(|_| lost())?,
        };
        mapped.map_err(|e| lost().cause(e))?;
        let view = fetch.buffer.get_mapped_range(..fetch.bytes).map_err(|e| lost().cause(e))?;
        let words = bytemuck::pod_collect_to_vec(&view[..]);
        drop(view);
        fetch.buffer.unmap();
        self.readbacks.push(fetch.buffer);
        Ok(words)
    }

    /// Updates which work is done, without waiting.
    ///
    /// # Errors
    /// [`ErrorKind::Device`](crate::ErrorKind::Device) if it is lost.
    pub fn poll(&self) -> Result<()> {
        let poll = self.engine.gpu.device().poll(wgpu::PollType::Poll);
        poll.map(|_| ()).map_err(|e| lost().cause(e))
    }

    /// Whether the work of the last [`send`](Self::send) takes long: half of the usual time of a submission or more.
    pub fn is_long(&self) -> bool {
        self.sent >= 0.5
    }

    /// Submits the recorded work, and clears the scalars. Returns the number of submissions so far.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled) if `cancel` is set, or an error of the device.
    pub fn send(&mut self) -> Result<u64> {
        self.flush()?;
        self.scalars.clear();
        self.sent = std::mem::take(&mut self.counted);
        if let Some(clock) = &mut self.clock {
            clock.sent();
        }
        Ok(self.submitted)
    }

    /// The number of submissions that are done. Waits until it is at least `wanted`.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn done(&mut self, wanted: u64) -> Result<u64> {
        while self.landed < wanted {
            self.land()?;
        }
        Ok(self.landed)
    }

    /// Submits the recorded work, if there is any, and waits until the device is not too far behind: at most by the work
    /// of two submissions of the usual length, in up to four.
    fn flush(&mut self) -> Result<()> {
        self.submit(true)
    }

    fn submit(&mut self, tells: bool) -> Result<()> {
        self.pass = None;
        // On an error the encoder stays: dropping the stream then releases its writes.
        self.check_cancel()?;
        let Some(encoder) = self.encoder.take() else { return Ok(()) };
        if let (Some(uniform), false) = (&self.uniform, self.scalars.is_empty()) {
            let bytes: &[u8] = bytemuck::cast_slice(&self.scalars);
            self.engine.write(Upload::Scalars, uniform, 0, bytes);
        }
        let gpu = &self.engine.gpu;
        let commands = encoder.finish();
        let given = Instant::now();
        let index = gpu.checked("submit work", || gpu.queue().submit([commands]))?;
        self.loose = false;
        self.submitted += 1;
        let (work, share) = (std::mem::take(&mut self.work), std::mem::take(&mut self.share));
        let foreign = std::mem::take(&mut self.foreign);
        self.recorded = 0;
        // Work of another network before this one's would count as this one's time.
        let budget = (tells && foreign <= 0.1 * share).then(|| self.budget.clone());
        self.flying.push_back(Flying { index, work, budget, share, given, taken: Instant::now() });
        let too_far = |flying: &VecDeque<Flying>| {
            let share: f64 = flying.iter().map(|f| f.share).sum();
            flying.len() > MOST_FLYING || (flying.len() > 1 && share > 2.0)
        };
        while too_far(&self.flying) {
            self.land()?;
        }
        Ok(())
    }

    /// Submits the recorded work early: the time of this submission says nothing about the speed of the device.
    pub(crate) fn cut(&mut self) -> Result<()> {
        self.submit(false)
    }

    /// Waits for the oldest submission, and adapts the size of submissions to its time.
    fn land(&mut self) -> Result<()> {
        let Some(oldest) = self.flying.pop_front() else {
            return Err(Error::usage("there is no submission to wait for"));
        };
        let begun = Instant::now();
        wait(&self.engine.gpu, oldest.index)?;
        self.landed += 1;
        let now = Instant::now();
        // If it was done before, it is not known since when.
        let done = match () {
            _ if now - begun > Duration::from_micros(50) => Some(now),
            _ if oldest.taken - oldest.given > Duration::from_millis(1) => Some(oldest.taken),
            _ => None,
        };
        if let (Some(before), Some(done)) = (self.landing, done) {
            let took = done.saturating_duration_since(before.max(oldest.given));
            if let Some(budget) = oldest.budget {
                budget.learn(oldest.work, took, self.engine.gpu.longest_submission());
            }
        }
        // An idle device begins the next submission when that is submitted.
        self.landing = if self.flying.is_empty() { Some(now) } else { done };
        Ok(())
    }

    fn check_cancel(&self) -> Result<()> {
        if self.cancel.load(Ordering::Relaxed) { Err(Error::cancelled()) } else { Ok(()) }
    }

    /// Submits the recorded work if `more` work would make the submission too long, or if the device is idle.
    fn make_room(&mut self, more: u64) -> Result<()> {
        if self.recorded > 0 && self.share + self.share_of(more) > 1.0 {
            return self.flush();
        }
        if self.flying.is_empty() && self.recorded >= EARLY { self.cut() } else { Ok(()) }
    }

    fn count(&mut self, work: u64) {
        let share = self.share_of(work);
        self.recorded += 1;
        self.work = self.work.saturating_add(work);
        self.share += share;
        self.counted += share;
    }

    /// How much of a submission `work` fills.
    fn share_of(&self, work: u64) -> f64 {
        work as f64 / self.budget.get() as f64
    }

    fn encoder(&mut self) -> &mut wgpu::CommandEncoder {
        let device = self.engine.gpu.device();
        self.encoder.get_or_insert_with(|| device.create_command_encoder(&Default::default()))
    }

    fn pass(&mut self) -> &mut wgpu::ComputePass<'static> {
        let Self { engine, encoder, pass, clock, .. } = self;
        let device = engine.gpu.device();
        let encoder = encoder.get_or_insert_with(|| device.create_command_encoder(&Default::default()));
        pass.get_or_insert_with(|| {
            let timestamp_writes = clock.as_mut().and_then(Clock::pass);
            let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
            encoder.begin_compute_pass(&descriptor).forget_lifetime()
        })
    }

    fn uniform(&mut self) -> &wgpu::Buffer {
        use wgpu::BufferUsages as U;
        let gpu = &self.engine.gpu;
        self.uniform
            .get_or_insert_with(|| buffer(gpu, "scalars", 16 * SCALARS as u64, U::UNIFORM | U::COPY_DST))
    }
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        self.pass = None;
        if self.encoder.take().is_some() || self.loose {
            self.engine.release_writes();
        }
        if let Some(clock) = self.clock.take()
            && let Err(e) = clock.read(self.engine)
        {
            log::warn!("no timestamps: {e}");
        }
    }
}
