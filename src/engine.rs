//! The only part that dispatches: pipelines, buffers and submissions for a [`Plan`].

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
use crate::kernels::{Precision, Target, Uniforms, Variant};
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
pub use timestamps::Passed;
pub use traffic::Traffic;
pub(crate) use traffic::{Readback, Upload};
pub use weights::{WeightSource, Weights};

/// Runs plans on a device. Shaders are compiled once a device and kept.
pub struct Engine {
    gpu: Gpu,
    /// Whether shaders check what they do.
    checked: bool,
    /// One small buffer for each binding number that a variant does not use: one for all would be
    /// bound for reading and for writing at once, which the device refuses.
    unused: Vec<wgpu::Buffer>,
    /// Work that one submission may hold; follows the measured speed.
    budget: AtomicU64,
    /// The most bytes of buffers that the device was seen to hold beyond `before`.
    peak: AtomicU64,
    /// What it held before: the app's buffers and wgpu's own.
    before: u64,
    /// Whether runs look for what is not finite.
    tracing: AtomicBool,
    traffic: Traffic,
    /// Memory for activations that nobody uses.
    spare: Arc<arena::Spare>,
    /// Whether streams take the time of their passes.
    clocked: AtomicBool,
    times: Mutex<Vec<Vec<Passed>>>,
}

impl Engine {
    /// An engine on `gpu`.
    pub fn new(gpu: Gpu) -> Result<Self> {
        Self::with(gpu, false)
    }

    /// An engine whose shaders check what they do, which costs up to half the speed: no access leaves
    /// its binding, every loop ends, workgroup memory starts as zeros. All this is so in shaders without
    /// checks too, and the results are the same but for rounding; the tests hold them to it. For a driver
    /// that is suspected.
    pub fn checked(gpu: Gpu) -> Result<Self> {
        Self::with(gpu, true)
    }

    fn with(gpu: Gpu, checked: bool) -> Result<Self> {
        let before = gpu.buffer_bytes();
        let unused = gpu.checked("make small buffers", || {
            let usage = wgpu::BufferUsages::STORAGE;
            (0..8).map(|_| buffer(&gpu, "unused", 256, usage)).collect()
        })?;
        // A first guess that the slowest devices take in about the time of a submission.
        let budget = match gpu.capabilities().target {
            Target::Cpu => 1_000_000_000,
            Target::Gpu | Target::Matrices { .. } => 50_000_000_000,
        };
        Ok(Self {
            gpu,
            checked,
            unused,
            budget: AtomicU64::new(budget),
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
        let target = self.gpu.capabilities().target;
        Storage::of(weights, precision, target, |name| source.fits_f16(name))
    }

    /// Brings `weights` of a graph to the device, read from `source`, to be stored as `storage` says: see
    /// [`storage`](Self::storage). With `most` bytes too few for
    /// all, some stay where they are and are brought over in turn at each run: see
    /// [`PlanRun::turns`].
    pub fn upload(
        &self,
        weights: &[crate::graph::Weight],
        source: &dyn WeightSource,
        storage: &Storage,
        most: Option<u64>,
        cancel: &AtomicBool,
    ) -> Result<Weights> {
        Weights::upload(
            &self.converter(),
            weights,
            source,
            storage,
            most,
            &mut || self.look_at_memory(),
            cancel,
        )
    }

    /// Bytes that [`upload`](Self::upload) would hold on the device.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`](crate::ErrorKind::Memory) if the weights do not fit `most`, even by turns.
    pub fn weight_bytes(
        &self,
        weights: &[crate::graph::Weight],
        storage: &Storage,
        most: Option<u64>,
    ) -> Result<u64> {
        weights::held(&self.gpu.capabilities(), weights, storage, most)
    }

    /// The most bytes of buffers that came to the device at one time so far, as wgpu counts them:
    /// the engine's, and what the app makes meanwhile.
    pub fn peak_bytes(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    /// Lets [`peak_bytes`](Self::peak_bytes) begin anew, to see what one piece of work takes.
    pub fn forget_peak(&self) {
        self.peak.store(0, Ordering::Relaxed);
    }

    /// What moved between host and device so far.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Looks at the memory where it is at its highest: while weights are under way, while a plan runs.
    fn look_at_memory(&self) {
        let now = self.gpu.buffer_bytes().saturating_sub(self.before);
        self.peak.fetch_max(now, Ordering::Relaxed);
    }

    fn converter(&self) -> Converter<'_> {
        Converter { gpu: &self.gpu, checked: self.checked }
    }

    /// Memory for latents of a sampling.
    pub(crate) fn latent_buffer(&self, bytes: u64) -> Result<wgpu::Buffer> {
        self.gpu.checked("make room for latents", || buffer(&self.gpu, "latents", bytes, TENSORS))
    }

    /// Makes `plan` ready to run with `weights` in `arena`, which must hold it.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if the plan is for other weights or for weights stored otherwise, for another
    /// arena or another kind of device;
    /// the device's.
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

    /// Compiles all that these plans and single dispatches run, on all cores at once.
    ///
    /// # Errors
    /// The device's.
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
        let mut params = Uniforms::new(gpu.capabilities().alignment);
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
                    "{} needs weights that take turns with each other",
                    d.path
                )));
            }
            dispatches.push(PreparedDispatch { pipeline, bindings, streamed_pages: pages });
        }
        Ok(Prepared::new(plan, arena, dispatches))
    }

    /// Memory for `plan`: what the last work has left, if the plan fits there.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`](crate::ErrorKind::Memory) if the device has none.
    pub fn arena(&self, plan: &Plan) -> Result<Arena> {
        self.arena_of(&plan.slabs)
    }

    /// Memory of buffers of these sizes or larger ones.
    pub(crate) fn arena_of(&self, slabs: &[u64]) -> Result<Arena> {
        Arena::new(&self.gpu, &self.spare, slabs)
    }

    /// Gives the device back the memory for activations that the last work has left, which is otherwise kept for
    /// the next.
    pub fn release_spare_memory(&self) {
        drop(self.spare.take());
        // Work that was cancelled before its first submission has written too.
        self.let_go_of_writes();
    }

    /// Brings bytes over; every way there but that of weights leads through here.
    pub(crate) fn write(&self, what: Upload, to: &wgpu::Buffer, offset: u64, bytes: &[u8]) {
        self.gpu.queue().write_buffer(to, offset, bytes);
        self.traffic.uploaded(what, bytes.len() as u64);
    }

    /// What was written for commands that nobody submits, recorded or not, would hold its buffers until something is
    /// submitted. A device that is lost refuses it, and holds nothing either.
    pub(super) fn let_go_of_writes(&self) {
        let _ = self.gpu.checked("let go of what was written", || self.gpu.queue().submit([]));
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
