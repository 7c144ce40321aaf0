//! Where the work of a sampling is recorded: on the device, or as a forecast of memory and work.

use std::sync::atomic::AtomicBool;

use super::{NetworkCalls, RowKind, Unet};
use crate::engine::{BufferOffset, Fetch, PlanRun, Prepared, Readback, Stream, Upload};
use crate::guidance::Entry;
use crate::kernels::Call;
use crate::kernels::latents::NO_STEP;
use crate::plan::chunk::ChunkPolicy;
use crate::{Error, Result};

/// Evaluations in flight on a fast device: enough that it never waits for the next.
pub const AHEAD: u64 = 3;

/// A range of a buffer.
#[derive(Debug, Clone)]
pub struct Buffer<B> {
    /// The buffer.
    pub of: B,
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// Records work, in the order in which it runs.
pub trait Sink {
    /// The type of its buffers.
    type Memory: Clone;

    /// Bytes of the largest binding.
    fn max_binding(&self) -> u64;

    /// A new buffer.
    ///
    /// # Errors
    /// An error of the device.
    fn create(&mut self, bytes: u64) -> Result<Self::Memory>;

    /// Fills the first `bytes` of a buffer, which no work that is recorded and not submitted may use. `make` is called if
    /// the words are needed. `steady` is set for values that every step writes.
    ///
    /// # Errors
    /// An error of the device.
    fn write(
        &mut self,
        to: &Self::Memory,
        bytes: u64,
        steady: bool,
        make: &mut dyn FnMut() -> Vec<u32>,
    ) -> Result<()>;

    /// Adds scalars that the next dispatches read, and returns their index.
    ///
    /// # Errors
    /// An error of the device.
    fn scalars(&mut self, values: &[[u32; 4]]) -> Result<usize>;

    /// Records a dispatch, whose [`Buf`](crate::kernels::Buf)s are indices of `buffers`.
    ///
    /// # Errors
    /// An error of the device.
    fn dispatch(&mut self, call: &Call, buffers: &[Buffer<Self::Memory>]) -> Result<()>;

    /// The calls for rows of these kinds: the kind of each call, and the indices of its rows.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`](crate::ErrorKind::Memory) if a row does not fit.
    fn calls(&mut self, rows: &[RowKind]) -> Result<Vec<(RowKind, Vec<usize>)>>;

    /// Height and width of the attention map of a recording call, positions.
    ///
    /// # Errors
    /// As [`calls`](Self::calls).
    fn map_size(&self, kind: RowKind) -> Result<(usize, usize)>;

    /// Prepares these calls, and reads the prompts of `entries` that were not read before.
    ///
    /// # Errors
    /// An error of the device.
    fn prepare(&mut self, calls: &[(RowKind, Vec<usize>)], entries: &[&Entry]) -> Result<()>;

    /// The memory of an input or output of a network call, by kind and number of rows.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if it has none of this name.
    fn slot(&mut self, call: (RowKind, usize), name: &str) -> Result<Buffer<Self::Memory>>;

    /// Records a network call with the prompts of `entries`, one for each row.
    ///
    /// # Errors
    /// An error of the device.
    fn network(&mut self, kind: RowKind, entries: &[&Entry]) -> Result<()>;

    /// The following work belongs to another step.
    fn step(&mut self) {}

    /// Submits the recorded work with a copy of the flags. Returns the number of calls so far.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled), or an error of the device.
    fn send(&mut self, flags: &Self::Memory) -> Result<u64>;

    /// The number of [`send`](Self::send) calls whose work is done, and the flags of the last of them. Waits until it is
    /// at least `wanted`.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    fn done(&mut self, wanted: u64) -> Result<(u64, Option<[u32; 2]>)>;

    /// How many [`send`](Self::send) calls may be in flight.
    fn ahead(&self) -> u64;

    /// Reads words back; waits for all recorded work.
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
    /// Readbacks of flags in flight, by the number of their `send`.
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
        // If a streamed weight is not finite, the error names it rather than its effect.
        match self.seen {
            Some(flags) if flags != [NO_STEP; 2] => self.check_weights(),
            _ => Ok(()),
        }
    }

    /// Checks the streamed weights.
    fn check_weights(&self) -> Result<()> {
        let Unet { engine, weights, source, .. } = self.calls.unet;
        engine.check_streamed_weights(weights, &source)
    }
}

impl Sink for DeviceSink<'_> {
    type Memory = wgpu::Buffer;

    fn max_binding(&self) -> u64 {
        self.stream.engine().gpu().profile().max_binding
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
            return Err(Error::usage(format!("{} words for {bytes} bytes", words.len())));
        }
        let what = if steady { Upload::Scalars } else { Upload::Latents };
        let (gpu, stream) = (self.stream.engine().gpu(), &mut self.stream);
        gpu.checked("upload latents", || stream.write(what, to, bytemuck::cast_slice(&words)))
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
        // A call that needs a larger arena drops the bindings of the calls before it.
        while let Some((kind, members)) = calls.iter().find(|call| !is_ready(&self.calls, call)) {
            // The device works meanwhile.
            self.stream.cut()?;
            self.calls.prepare(*kind, members.len())?;
        }
        if self.calls.arenas != arenas {
            // Bindings to the old arena would keep its memory alive.
            self.stream.forget_bindings();
        }
        let (engine, stream) = (self.stream.engine(), &mut self.stream);
        let keep = &mut |prepared: &Prepared, run: &PlanRun<'_>| {
            let kept = engine.record_and_keep(prepared, run, stream)?;
            // Another call may join these tensors before the step is submitted.
            stream.cut()?;
            Ok(kept)
        };
        self.calls.read_prompts(entries.iter().copied(), self.cancel, keep)
    }

    fn slot(&mut self, (kind, rows): (RowKind, usize), name: &str) -> Result<Buffer<wgpu::Buffer>> {
        let prepared = self.calls.ready.get(&(kind, rows));
        let prepared = prepared.ok_or_else(|| Error::usage("a call was not prepared"))?;
        let region = prepared.plan().slot(name)?;
        let of = prepared.slab(region).clone();
        Ok(Buffer { of, offset: region.offset, bytes: region.bytes })
    }

    fn network(&mut self, kind: RowKind, entries: &[&Entry]) -> Result<()> {
        let unet = self.calls.unet;
        let prepared = self.calls.ready.get(&(kind, entries.len()));
        let prepared = prepared.ok_or_else(|| Error::usage("a call was not prepared"))?;
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
        // A long step is reported before the next one is submitted.
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
