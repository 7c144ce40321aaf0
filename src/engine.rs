//! The only part that dispatches: pipelines, buffers and submissions for a [`Plan`].

mod arena;
mod clock;
mod kept;
mod pages;
mod run;
mod stream;
mod timing;
mod trace;
mod upload;
mod weights;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::gpu::Gpu;
use crate::kernels::{Precision, Target, Uniforms, Variant};
use crate::plan::{Bound, Plan, Region, Storage};
use crate::{Error, ErrorKind, Result};
pub use arena::{Arena, MOST_SPARE};
pub use clock::Passed;
pub use kept::{Kept, MOST_ROWS};
pub use run::Run;
pub use stream::{Fetch, Spot, Stream, Traffic};
pub(crate) use stream::{Readback, Upload};
use upload::OnDevice;
pub use upload::ring_bytes;
pub use weights::{Source, Weights};

/// What tensors of one's own are used for: kernels work on them, copies go in and out.
const TENSORS: wgpu::BufferUsages = {
    use wgpu::BufferUsages as U;
    U::STORAGE.union(U::COPY_SRC).union(U::COPY_DST)
};

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

/// A plan with its memory and bindings on the device.
pub struct Prepared {
    plan: Arc<Plan>,
    arena: Arena,
    steps: Vec<Step>,
    /// What was put side by side of other plans' results, and bound.
    rows: Mutex<Vec<Arc<kept::Rows>>>,
    /// Held by whoever runs the plan by itself, since a run needs the arena to itself.
    running: Mutex<()>,
}

struct Step {
    pipeline: wgpu::ComputePipeline,
    bindings: Bindings,
    /// Pages of weights that must be brought over first, where weights take turns.
    turning: Vec<usize>,
}

/// Where a dispatch's bindings are.
enum Bindings {
    /// The same in every run.
    Fixed(wgpu::BindGroup),
    /// Among them is what other plans kept, which is bound for each run: by binding number.
    Open(Vec<Bindable>),
}

/// What a binding holds.
enum Bindable {
    Buffer(wgpu::Buffer, u64, u64),
    Kept(Region),
}

impl Prepared {
    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }
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
            Target::Gpu | Target::Cooperative { .. } => 50_000_000_000,
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
        source: &dyn Source,
        precision: Precision,
    ) -> Storage {
        let target = self.gpu.capabilities().target;
        Storage::of(weights, precision, target, |name| source.fits_f16(name))
    }

    /// Brings `weights` of a graph to the device, read from `source`, to be stored as `storage` says: see
    /// [`storage`](Self::storage). With `most` bytes too few for
    /// all, some stay where they are and are brought over in turn at each run: see
    /// [`Run::turns`].
    pub fn upload(
        &self,
        weights: &[crate::graph::Weight],
        source: &dyn Source,
        storage: &Storage,
        most: Option<u64>,
        cancel: &AtomicBool,
    ) -> Result<Weights> {
        Weights::upload(
            &self.on_device(),
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
    /// [`ErrorKind::Memory`] if the weights do not fit `most`, even by turns.
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

    fn on_device(&self) -> OnDevice<'_> {
        OnDevice { gpu: &self.gpu, checked: self.checked }
    }

    /// Memory for latents of a sampling.
    pub(crate) fn latent_buffer(&self, bytes: u64) -> Result<wgpu::Buffer> {
        self.gpu.checked("make room for latents", || buffer(&self.gpu, "latents", bytes, TENSORS))
    }

    /// Makes `plan` ready to run with `weights` in `arena`, which must hold it.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] if the plan is for other weights or for weights stored otherwise, for another
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
        let mut steps = Vec::with_capacity(plan.dispatches.len());
        for (d, (offset, size)) in plan.dispatches.iter().zip(places) {
            let pipeline = self.gpu.pipeline(self.checked, &d.variant)?;
            let mut held = vec![Bindable::Buffer(uniform.clone(), offset, size)];
            let mut turning = Vec::new();
            for (i, bound) in d.bindings.iter().enumerate() {
                held.push(match *bound {
                    Bound::Arena(r) => Bindable::Buffer(arena.slabs()[r.slab].clone(), r.offset, r.bytes),
                    Bound::Kept(r) => Bindable::Kept(r),
                    Bound::Weight(w) => {
                        let (page, offset, bytes) = weights.place(&plan.weights[w.0])?;
                        turning.extend(weights.turning_page(&plan.weights[w.0])?);
                        Bindable::Buffer(page.clone(), offset, bytes)
                    }
                    Bound::Unused => {
                        let many = || Error::usage("a dispatch binds more than devices do").at(&d.path);
                        Bindable::Buffer(self.unused.get(i).ok_or_else(many)?.clone(), 0, 256)
                    }
                });
            }
            let bindings = match held.iter().any(|b| matches!(b, Bindable::Kept(_))) {
                true => Bindings::Open(held),
                false => Bindings::Fixed(group(gpu, &pipeline, &held, &[])?),
            };
            turning.sort_unstable();
            turning.dedup();
            if turning.windows(2).any(|p| p[1] - p[0] >= pages::WINDOW) {
                return Err(Error::internal(format!(
                    "{} needs weights that take turns with each other",
                    d.path
                )));
            }
            steps.push(Step { pipeline, bindings, turning });
        }
        Ok(Prepared { plan, arena, steps, rows: Mutex::default(), running: Mutex::default() })
    }

    /// Fills the whole arena with `word`; for tests that look for stray writes.
    pub fn fill_arena(&self, prepared: &Prepared, word: u32) {
        for slab in prepared.arena.slabs() {
            let words = vec![word; slab.size() as usize / 4];
            self.gpu.queue().write_buffer(slab, 0, bytemuck::cast_slice(&words));
        }
    }

    /// The arena's words; for tests that look for stray writes.
    pub fn arena_words(&self, prepared: &Prepared) -> Result<Vec<Vec<u32>>> {
        prepared.arena.slabs().iter().map(|slab| read_buffer(&self.gpu, slab, 0, slab.size())).collect()
    }
}

/// A bind group of `held`, by binding number; `kept` are the buffers of what other plans kept.
fn group(
    gpu: &Gpu,
    pipeline: &wgpu::ComputePipeline,
    held: &[Bindable],
    kept: &[wgpu::Buffer],
) -> Result<wgpu::BindGroup> {
    let of = |(number, bindable): (usize, &'_ Bindable)| -> Result<(u32, wgpu::Buffer, u64, u64)> {
        let number = number as u32;
        Ok(match bindable {
            Bindable::Buffer(buffer, offset, size) => (number, buffer.clone(), *offset, *size),
            Bindable::Kept(region) => {
                let missing = || Error::usage("what a plan kept is missing");
                (number, kept.get(region.slab).ok_or_else(missing)?.clone(), region.offset, region.bytes)
            }
        })
    };
    let held: Vec<_> = held.iter().enumerate().map(of).collect::<Result<_>>()?;
    let entries: Vec<_> =
        held.iter().map(|(n, buffer, offset, size)| entry(*n, buffer, *offset, *size)).collect();
    Ok(gpu.device().create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some("plan"),
        layout: &pipeline.get_bind_group_layout(0),
        entries: &entries,
    }))
}

/// The words of `bytes` of a buffer from `offset` on, when all that was submitted is done.
fn read_buffer(gpu: &Gpu, from: &wgpu::Buffer, offset: u64, bytes: u64) -> Result<Vec<u32>> {
    use wgpu::BufferUsages as U;
    let copy = buffer(gpu, "copy", bytes, U::MAP_READ | U::COPY_DST);
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    encoder.copy_buffer_to_buffer(from, offset, &copy, 0, bytes);
    let index = gpu.queue().submit([encoder.finish()]);
    copy.slice(..).map_async(wgpu::MapMode::Read, |_| {});
    wait(gpu, index)?;
    let view = copy.slice(..).get_mapped_range().map_err(|e| lost().cause(e))?;
    Ok(bytemuck::pod_collect_to_vec(&view[..]))
}

/// Waits for a submission.
fn wait(gpu: &Gpu, index: wgpu::SubmissionIndex) -> Result<()> {
    let poll = wgpu::PollType::Wait { submission_index: Some(index), timeout: None };
    gpu.device().poll(poll).map(|_| ()).map_err(|e| lost().cause(e))
}

fn lost() -> Error {
    Error::new(ErrorKind::Device, "the device was lost").hint("make a new device and load the model again")
}

fn buffer(gpu: &Gpu, label: &str, size: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
    gpu.device().create_buffer(&wgpu::BufferDescriptor {
        label: Some(label),
        size: size.next_multiple_of(4),
        usage,
        mapped_at_creation: false,
    })
}

fn entry(binding: u32, buffer: &wgpu::Buffer, offset: u64, size: u64) -> wgpu::BindGroupEntry<'_> {
    let size = wgpu::BufferSize::new(size);
    wgpu::BindGroupEntry {
        binding,
        resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size }),
    }
}
