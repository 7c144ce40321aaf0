//! Where the work of a sampling goes: to the device, or to a tally of what it would be.

use std::sync::atomic::AtomicBool;

use super::{NetworkCalls, RowKind, Unet};
use crate::engine::{BufferOffset, Fetch, PlanRun, Prepared, Readback, Stream, Upload};
use crate::guidance::Entry;
use crate::kernels::Call;
use crate::kernels::latents::NO_STEP;
use crate::plan::Capabilities;
use crate::plan::chunk::ChunkPolicy;
use crate::{Error, Result};

/// Evaluations that a fast device has before it: enough that it never waits for the next.
pub const AHEAD: u64 = 3;

/// A stretch of a sink's memory, from `offset` on.
#[derive(Debug, Clone)]
pub struct Buffer<B> {
    /// The buffer.
    pub of: B,
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// Takes work in the order in which it is to be done.
pub trait Sink {
    /// A buffer of its own.
    type Memory: Clone;

    /// What the device can do.
    fn capabilities(&self) -> Capabilities;

    /// A new buffer.
    ///
    /// # Errors
    /// The device's.
    fn create(&mut self, bytes: u64) -> Result<Self::Memory>;

    /// Fills the first `bytes` of a buffer, which nothing recorded so far and not yet sent uses, with the words
    /// that `make` makes where they are needed. `steady` is for what comes with every step.
    ///
    /// # Errors
    /// The device's.
    fn write(
        &mut self,
        to: &Self::Memory,
        bytes: u64,
        steady: bool,
        make: &mut dyn FnMut() -> Vec<u32>,
    ) -> Result<()>;

    /// The place of scalars that the next dispatches read.
    ///
    /// # Errors
    /// The device's.
    fn scalars(&mut self, values: &[[u32; 4]]) -> Result<usize>;

    /// Records a dispatch, whose [`Buf`](crate::kernels::Buf)s are numbers in `buffers`.
    ///
    /// # Errors
    /// The device's.
    fn dispatch(&mut self, call: &Call, buffers: &[Buffer<Self::Memory>]) -> Result<()>;

    /// The calls for rows of these kinds: what is computed, and which rows by their place in the list.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`](crate::ErrorKind::Memory) if a row does not fit.
    fn calls(&mut self, rows: &[RowKind]) -> Result<Vec<(RowKind, Vec<usize>)>>;

    /// Height and width of the attention map that a recording call gives.
    ///
    /// # Errors
    /// As [`calls`](Self::calls).
    fn map_size(&self, kind: RowKind) -> Result<(usize, usize)>;

    /// Makes these calls ready, and reads the prompts of `entries` that were not read before.
    ///
    /// # Errors
    /// The device's.
    fn prepare(&mut self, calls: &[(RowKind, Vec<usize>)], entries: &[&Entry]) -> Result<()>;

    /// The place of an input or output of a network call of so many rows.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if it has none of this name.
    fn slot(&mut self, call: (RowKind, usize), name: &str) -> Result<Buffer<Self::Memory>>;

    /// Records a network call with the prompts of `entries`, one a row.
    ///
    /// # Errors
    /// The device's.
    fn network(&mut self, kind: RowKind, entries: &[&Entry]) -> Result<()>;

    /// What follows belongs to another step.
    fn step(&mut self) {}

    /// Sends what is recorded, and a copy of some flags with it. The number of the sending.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled), or the device's.
    fn send(&mut self, flags: &Self::Memory) -> Result<u64>;

    /// Sendings that are done, after waiting until `wanted` are, and the flags of the last of them.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    fn done(&mut self, wanted: u64) -> Result<(u64, Option<[u32; 2]>)>;

    /// Sendings that may be on their way.
    fn ahead(&self) -> u64;

    /// Reads words; waits for all that is recorded.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    fn read(&mut self, from: &Buffer<Self::Memory>) -> Result<Vec<u32>>;
}

/// The device.
pub struct DeviceSink<'a> {
    stream: Stream<'a>,
    calls: NetworkCalls<'a>,
    cancel: &'a AtomicBool,
    /// Flags on their way, by the number of their sending.
    flags: std::collections::VecDeque<(u64, Fetch)>,
    sent: u64,
    done: u64,
    seen: Option<[u32; 2]>,
}

impl<'a> DeviceSink<'a> {
    /// Computes rows of `unet` by `policy` with an arena of at most `budget` bytes.
    pub fn new(unet: Unet<'a>, policy: ChunkPolicy, budget: Option<u64>, cancel: &'a AtomicBool) -> Self {
        let stream = Stream::new(unet.engine, cancel);
        let calls = NetworkCalls::new(unet, policy, budget);
        Self { stream, calls, cancel, flags: Default::default(), sent: 0, done: 0, seen: None }
    }

    fn arrive(&mut self, number: u64, fetch: Fetch) -> Result<()> {
        let words = self.stream.arrived(fetch)?;
        self.done = number;
        self.seen = words.first().zip(words.get(1)).map(|(a, b)| [*a, *b]);
        // A weight that is no number is named rather than what it did.
        match self.seen {
            Some(flags) if flags != [NO_STEP; 2] => self.check_weights(),
            _ => Ok(()),
        }
    }

    /// Whether the weights that took turns were sound.
    fn check_weights(&self) -> Result<()> {
        let Unet { engine, weights, source, .. } = self.calls.unet;
        engine.check_streamed_weights(weights, &source)
    }
}

impl Sink for DeviceSink<'_> {
    type Memory = wgpu::Buffer;

    fn capabilities(&self) -> Capabilities {
        self.stream.engine().gpu().capabilities()
    }

    fn create(&mut self, bytes: u64) -> Result<wgpu::Buffer> {
        self.stream.engine().latent_buffer(bytes)
    }

    fn write(
        &mut self,
        to: &wgpu::Buffer,
        bytes: u64,
        steady: bool,
        make: &mut dyn FnMut() -> Vec<u32>,
    ) -> Result<()> {
        let words = make();
        if words.len() as u64 * 4 != bytes {
            return Err(Error::usage(format!("{} words where {bytes} bytes belong", words.len())));
        }
        let what = if steady { Upload::Scalars } else { Upload::Latents };
        let (gpu, stream) = (self.stream.engine().gpu(), &mut self.stream);
        gpu.checked("bring latents over", || stream.write(what, to, bytemuck::cast_slice(&words)))
    }

    fn scalars(&mut self, values: &[[u32; 4]]) -> Result<usize> {
        self.stream.scalars(values)
    }

    fn dispatch(&mut self, call: &Call, buffers: &[Buffer<wgpu::Buffer>]) -> Result<()> {
        let spots: Vec<BufferOffset> =
            buffers.iter().map(|b| BufferOffset { buffer: b.of.clone(), offset: b.offset }).collect();
        self.stream.dispatch(call, &spots)
    }

    fn calls(&mut self, rows: &[RowKind]) -> Result<Vec<(RowKind, Vec<usize>)>> {
        self.calls.batching.calls(rows)
    }

    fn map_size(&self, kind: RowKind) -> Result<(usize, usize)> {
        self.calls.batching.map_size(kind)
    }

    fn prepare(&mut self, calls: &[(RowKind, Vec<usize>)], entries: &[&Entry]) -> Result<()> {
        let arenas = self.calls.arenas;
        self.calls.make_room_for_prompts(entries)?;
        let is_ready = |ready: &NetworkCalls<'_>, (kind, members): &(RowKind, Vec<usize>)| {
            ready.ready.contains_key(&(*kind, members.len()))
        };
        // A call that needs a larger arena takes the bindings of those before it with the old one.
        while let Some((kind, members)) = calls.iter().find(|call| !is_ready(&self.calls, call)) {
            // The device works on what there is meanwhile.
            self.stream.cut()?;
            self.calls.prepare(*kind, members.len())?;
        }
        if self.calls.arenas != arenas {
            // Those to the arena before would keep it.
            self.stream.forget_bindings();
        }
        let (engine, stream) = (self.stream.engine(), &mut self.stream);
        let keep = &mut |prepared: &Prepared, run: &PlanRun<'_>| {
            let kept = engine.record_and_keep(prepared, run, stream)?;
            // Others may put it side by side before the step is sent.
            stream.cut()?;
            Ok(kept)
        };
        self.calls.read_prompts(entries.iter().copied(), self.cancel, keep)
    }

    fn slot(&mut self, (kind, rows): (RowKind, usize), name: &str) -> Result<Buffer<wgpu::Buffer>> {
        let prepared = self.calls.ready.get(&(kind, rows));
        let prepared = prepared.ok_or_else(|| Error::usage("a call was not made ready"))?;
        let region = prepared.plan().slot(name)?;
        let of = prepared.slab(region).clone();
        Ok(Buffer { of, offset: region.offset, bytes: region.bytes })
    }

    fn network(&mut self, kind: RowKind, entries: &[&Entry]) -> Result<()> {
        let unet = self.calls.unet;
        let prepared = self.calls.ready.get(&(kind, entries.len()));
        let prepared = prepared.ok_or_else(|| Error::usage("a call was not made ready"))?;
        let kept = self.calls.prompts.of(entries.iter().copied())?;
        self.stream.plan(prepared, Some((unet.weights, &unet.source)), &kept)
    }

    fn send(&mut self, flags: &wgpu::Buffer) -> Result<u64> {
        let fetch =
            self.stream.fetch(Readback::Flags, &BufferOffset { buffer: flags.clone(), offset: 0 }, 8)?;
        self.sent += 1;
        self.flags.push_back((self.sent, fetch));
        Ok(self.sent)
    }

    fn done(&mut self, wanted: u64) -> Result<(u64, Option<[u32; 2]>)> {
        self.stream.poll()?;
        while let Some((number, mut fetch)) = self.flags.pop_front() {
            if number > wanted && !fetch.is_there() {
                self.flags.push_front((number, fetch));
                break;
            }
            self.arrive(number, fetch)?;
        }
        Ok((self.done, self.seen))
    }

    fn ahead(&self) -> u64 {
        // Where a step takes long, it is told of before the next is under way.
        if self.stream.is_long() { 0 } else { AHEAD }
    }

    fn read(&mut self, from: &Buffer<wgpu::Buffer>) -> Result<Vec<u32>> {
        let spot = BufferOffset { buffer: from.of.clone(), offset: from.offset };
        let fetch = self.stream.fetch(Readback::Results, &spot, from.bytes)?;
        let words = self.stream.arrived(fetch)?;
        self.check_weights()?;
        Ok(words)
    }
}
