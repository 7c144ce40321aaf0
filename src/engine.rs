//! Runs a [`Plan`] on a device: pipelines, buffers and submissions. Everything that is dispatched goes through here.

mod arena;
mod buffers;
mod clock;
mod persistent_tensors;
mod prepared;
mod run;
mod staging_ring;
mod stream;
mod submission_size;
mod timestamps;
mod timing;
mod trace;
mod traffic;
mod values;
mod weight_streaming;
mod weights;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::gpu::Gpu;
use crate::kernels::{Precision, Uniforms, Variant};
use crate::plan::{Bound, Plan, Storage};
use crate::{Error, Result};
pub use arena::{Arena, MOST_SPARE};
use buffers::{TENSORS, buffer, read_buffer};
pub use persistent_tensors::{KeptTensors, MOST_ROWS};
pub use prepared::Prepared;
use prepared::{Bindable, Bindings, PreparedDispatch};
pub use run::PlanRun;
use staging_ring::Converter;
pub use staging_ring::ring_bytes;
pub use stream::{BufferOffset, Fetch, Stream};
use submission_size::Budgets;
pub use timestamps::Passed;
pub use traffic::Traffic;
pub(crate) use traffic::{Readback, Upload};
pub use weights::{WeightSource, Weights};

/// Runs plans on a device. Shaders are compiled once for each device.
pub struct Engine {
    gpu: Gpu,
    /// Whether shaders have runtime checks.
    checked: bool,
    /// A small buffer for each binding number that a variant does not use. A single one would be bound for reading and
    /// for writing at once, which is an error.
    unused: Vec<wgpu::Buffer>,
    /// The work of one submission; follows the measured speed.
    budgets: Budgets,
    /// The most bytes of buffers on the device so far, beyond `before`.
    peak: AtomicU64,
    /// Bytes of buffers before: those of the app and of wgpu.
    before: u64,
    /// Whether runs look for values that are not finite.
    tracing: AtomicBool,
    traffic: Traffic,
    /// Memory for activations that is not in use.
    spare: Arc<arena::Spare>,
    /// Whether streams measure the time of their passes.
    clocked: AtomicBool,
    times: Mutex<Vec<Vec<Passed>>>,
}

impl Engine {
    /// An engine on `gpu`.
    pub fn new(gpu: Gpu) -> Result<Self> {
        Self::with(gpu, false)
    }

    /// An engine whose shaders have runtime checks, which cost up to half the speed: every access is within its binding,
    /// every loop ends, workgroup memory starts as zeros. Shaders without checks do the same, which the tests verify,
    /// and the results differ only by rounding. It helps to find faults of a driver.
    pub fn checked(gpu: Gpu) -> Result<Self> {
        Self::with(gpu, true)
    }

    fn with(gpu: Gpu, checked: bool) -> Result<Self> {
        let before = gpu.buffer_bytes();
        let unused = gpu.checked("make small buffers", || {
            let usage = wgpu::BufferUsages::STORAGE;
            (0..8).map(|_| buffer(&gpu, "unused", 256, usage)).collect()
        })?;
        // A first guess: about as much as the slowest devices do in a tenth of a second.
        let work = if gpu.profile().cpu { 1_000_000_000 } else { 50_000_000_000 };
        let budgets = Budgets::new(work, gpu.longest_submission());
        Ok(Self {
            gpu,
            checked,
            unused,
            budgets,
            peak: AtomicU64::new(0),
            before,
            tracing: AtomicBool::new(false),
            traffic: Traffic::default(),
            spare: Arc::default(),
            clocked: AtomicBool::new(false),
            times: Mutex::default(),
        })
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// How `weights`, read from `source`, are stored on this device in a network of `precision`.
    pub fn storage(
        &self,
        weights: &[crate::graph::Weight],
        source: &dyn WeightSource,
        precision: Precision,
    ) -> Storage {
        Storage::of(weights, precision, self.gpu.profile(), |name| source.fits_f16(name))
    }

    /// Uploads `weights` of a graph from `source`, stored as `storage` says: see [`storage`](Self::storage). If `most`
    /// bytes are not enough for all, some are not uploaded now, but streamed at each run: see [`PlanRun::streamed`].
    pub fn upload(
        &self,
        weights: &[crate::graph::Weight],
        source: &dyn WeightSource,
        storage: &Storage,
        most: Option<u64>,
        cancel: &AtomicBool,
    ) -> Result<Weights> {
        Weights::upload(&self.converter(), weights, source, storage, most, &mut || self.note_memory(), cancel)
    }

    /// Bytes of device memory that [`upload`](Self::upload) would use.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`](crate::ErrorKind::Memory) if `most` is not enough, even for streaming.
    pub fn weight_bytes(
        &self,
        weights: &[crate::graph::Weight],
        storage: &Storage,
        most: Option<u64>,
    ) -> Result<u64> {
        weights::held(self.gpu.profile(), weights, storage, most)
    }

    /// The most bytes of buffers at one time so far, as wgpu counts them: those of the engine, and those that the app
    /// has made since.
    pub fn peak_bytes(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    /// Resets [`peak_bytes`](Self::peak_bytes), to measure one piece of work.
    pub fn forget_peak(&self) {
        self.peak.store(0, Ordering::Relaxed);
    }

    /// The bytes moved between host and device so far.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Updates the peak of memory. Called when memory is highest: while weights are uploaded, and while a plan runs.
    fn note_memory(&self) {
        let now = self.gpu.buffer_bytes().saturating_sub(self.before);
        self.peak.fetch_max(now, Ordering::Relaxed);
    }

    fn converter(&self) -> Converter<'_> {
        Converter { gpu: &self.gpu, checked: self.checked }
    }

    /// A buffer for latents of a sampling.
    pub(crate) fn latent_buffer(&self, bytes: u64) -> Result<wgpu::Buffer> {
        self.gpu.checked("make room for latents", || buffer(&self.gpu, "latents", bytes, TENSORS))
    }

    /// Prepares `plan` to run with `weights` in `arena`, which must be large enough.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if the plan is for other weights or for weights stored otherwise, for another
    /// arena or another kind of device; an error of the device.
    pub fn prepare(&self, plan: impl Into<Arc<Plan>>, weights: &Weights, arena: &Arena) -> Result<Prepared> {
        let plan = plan.into();
        plan.check()?;
        if !arena.holds(&plan) {
            return Err(Error::usage("a plan does not fit its arena"));
        }
        weights.check_storage(&plan)?;
        self.gpu.compile(self.checked, plan.dispatches.iter().map(|d| &d.variant))?;
        self.gpu.checked("make the buffers of a plan", || self.bind(plan, weights, arena.clone()))?
    }

    /// Compiles the shaders of these plans and single dispatches, on all cores at once.
    ///
    /// # Errors
    /// An error of the device.
    pub(crate) fn compile<'p>(
        &self,
        plans: impl Iterator<Item = &'p Plan>,
        kernels: &'p std::collections::HashSet<Variant>,
    ) -> Result<()> {
        let of_plans = plans.flat_map(|plan| &plan.dispatches).map(|dispatch| &dispatch.variant);
        self.gpu.compile(self.checked, kernels.iter().chain(of_plans))
    }

    fn bind(&self, plan: Arc<Plan>, weights: &Weights, arena: Arena) -> Result<Prepared> {
        use wgpu::BufferUsages as U;
        let gpu = &self.gpu;
        let mut params = Uniforms::new(gpu.profile().alignment);
        let places: Vec<(u64, u64)> = plan.dispatches.iter().map(|d| params.push(&d.params)).collect();
        let uniform = buffer(gpu, "params", params.bytes().len().max(16) as u64, U::UNIFORM | U::COPY_DST);
        self.write(Upload::SetUp, &uniform, 0, params.bytes());
        let mut dispatches = Vec::with_capacity(plan.dispatches.len());
        for (d, (offset, size)) in plan.dispatches.iter().zip(places) {
            let pipeline = self.gpu.pipeline(self.checked, &d.variant)?;
            let mut held = vec![Bindable::Buffer(uniform.clone(), offset, size)];
            let mut pages = Vec::new();
            for (i, bound) in d.bindings.iter().enumerate() {
                held.push(match *bound {
                    Bound::Arena(r) => Bindable::Buffer(arena.slabs()[r.slab].clone(), r.offset, r.bytes),
                    Bound::Kept(r) => Bindable::Kept(r),
                    Bound::Weight(w) => {
                        let (page, offset, bytes) = weights.place(&plan.weights[w.0])?;
                        pages.extend(weights.streamed_page(&plan.weights[w.0])?);
                        Bindable::Buffer(page.clone(), offset, bytes)
                    }
                    Bound::Unused => {
                        let many = || Error::usage("a dispatch binds more than devices do").at(&d.path);
                        Bindable::Buffer(self.unused.get(i).ok_or_else(many)?.clone(), 0, 256)
                    }
                });
            }
            let bindings = match held.iter().any(|b| matches!(b, Bindable::Kept(_))) {
                true => Bindings::PerRun(held),
                false => Bindings::Fixed(prepared::group(gpu, &pipeline, &held, &[])?),
            };
            pages.sort_unstable();
            pages.dedup();
            if pages.windows(2).any(|p| p[1] - p[0] >= weight_streaming::WINDOW) {
                return Err(Error::internal(format!(
                    "{} needs streamed weights that share a buffer",
                    d.path
                )));
            }
            dispatches.push(PreparedDispatch { pipeline, bindings, streamed_pages: pages });
        }
        Ok(Prepared::new(self.budgets.of(&plan), plan, arena, dispatches))
    }

    /// Memory for `plan`: that of the work before, if it is large enough.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`](crate::ErrorKind::Memory) if the device has not enough.
    pub fn arena(&self, plan: &Plan) -> Result<Arena> {
        self.arena_of(&plan.slabs)
    }

    /// Memory of buffers of these sizes or larger ones.
    pub(crate) fn arena_of(&self, slabs: &[u64]) -> Result<Arena> {
        Arena::new(&self.gpu, &self.spare, slabs)
    }

    /// Frees the memory for activations of the last work, which is otherwise kept for the next.
    pub fn release_spare_memory(&self) {
        drop(self.spare.take());
        // Work that was cancelled before its first submission may have written data that still holds buffers.
        self.release_writes();
    }

    /// Writes bytes to a buffer. All uploads except those of weights go through here.
    pub(crate) fn write(&self, what: Upload, to: &wgpu::Buffer, offset: u64, bytes: &[u8]) {
        self.gpu.queue().write_buffer(to, offset, bytes);
        self.traffic.uploaded(what, bytes.len() as u64);
    }

    /// Releases the buffers of writes whose commands are never submitted: wgpu holds them until the next submission.
    /// On a lost device this fails, and there is nothing to release.
    pub(super) fn release_writes(&self) {
        let _ = self.gpu.checked("release pending writes", || self.gpu.queue().submit([]));
    }

    /// Fills the whole arena with `word`; for tests that look for stray writes.
    pub fn fill_arena(&self, prepared: &Prepared, word: u32) {
        for slab in prepared.slabs() {
            let words = vec![word; slab.size() as usize / 4];
            self.gpu.queue().write_buffer(slab, 0, bytemuck::cast_slice(&words));
        }
    }

    /// The arena's words; for tests that look for stray writes.
    pub fn arena_words(&self, prepared: &Prepared) -> Result<Vec<Vec<u32>>> {
        prepared.slabs().iter().map(|slab| read_buffer(&self.gpu, slab, 0, slab.size())).collect()
    }
}
