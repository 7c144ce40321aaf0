//! The device: opened here, or made by the app; and what it can do.

mod barriers;
mod compile;
mod features;
mod kernel_choice;
mod pipeline_cache;
mod pipelines;
mod subgroup_width;
pub(crate) mod verdicts;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::kernels::{CostTable, DeviceProfile, LEAST_MEMORY, Precision};
use crate::{Error, ErrorKind, Result, kernels, shader};
use features::{COOPERATIVE, SHARED_LOADS, offers_cooperative};
use pipeline_cache::Cache;
use pipelines::Pipelines;
use verdicts::Verdicts;

/// An adapter that wgpu has found.
#[derive(Debug, Clone)]
pub struct Adapter {
    /// Position in [`adapters`], usable as a choice in [`Gpu::open`] and [`OpenOptions`].
    pub index: usize,
    /// Name, backend, driver and type as the driver gives them.
    pub info: wgpu::AdapterInfo,
    /// The features that it supports.
    pub features: wgpu::Features,
    /// Its limits.
    pub limits: wgpu::Limits,
    /// Its cooperative matrices of all types.
    pub matrices: Vec<wgpu::wgt::CooperativeMatrixProperties>,
}

impl Adapter {
    /// Whether its driver runs shaders on the CPU.
    pub fn is_cpu(&self) -> bool {
        self.info.device_type == wgpu::DeviceType::Cpu
    }
}

/// How [`Gpu::open_with`] opens a device.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenOptions<'a> {
    /// The number of the adapter or a part of its name, in any case of letters. None chooses the first that is not a
    /// CPU driver, or else the first.
    pub adapter: Option<&'a str>,
    /// Whether to use cooperative matrices, for f16. None uses those of GPUs; Some(true) those of CPU drivers too, which
    /// are slower with them; Some(false) none, to compare, or if a driver computes wrong results with them.
    pub matrices: Option<bool>,
    /// What kernels cost on the device, from `sagittal bench --tune`. None takes the file of the adapter in the folder
    /// below, or else what is compiled in. Other costs may choose other kernels, whose results differ by rounding.
    pub costs: Option<&'a Path>,
    /// A folder in which compiled pipelines are cached from one start to the next, if the adapter supports it; see
    /// [`Gpu::keep_pipelines_in`]. With None they are not cached.
    pub cache: Option<&'a Path>,
}

/// Two submissions of a tenth of a second. Windows resets a GPU after two seconds, and a cancelled run waits for what is
/// submitted.
const LONGEST_WAIT: Duration = Duration::from_millis(200);

/// A device with its queue. Cloning is cheap; clones share the device and its compiled pipelines.
#[derive(Debug, Clone)]
pub struct Gpu {
    device: wgpu::Device,
    queue: wgpu::Queue,
    profile: DeviceProfile,
    cache: Option<Arc<Cache>>,
    /// Shared by all clones.
    pipelines: Arc<Pipelines>,
    unused: Arc<[String]>,
    longest_wait: Duration,
    /// Where it is kept what its kernels were found to do.
    kept: Option<Arc<Kept>>,
}

/// What is kept of a device from one start to the next, beside compiled pipelines.
#[derive(Debug)]
struct Kept {
    /// The file of [`Verdicts`].
    path: PathBuf,
    /// Shared by all clones.
    verdicts: Mutex<Verdicts>,
}

impl Gpu {
    /// The descriptor that an app should make its device with, so that this library can use all that speeds it up on
    /// `adapter`. The app adds what it needs itself and passes the device to [`from_adapter`](Self::from_adapter):
    ///
    /// ```no_run
    /// # fn open(adapter: &wgpu::Adapter) -> Result<sagittal::Gpu, wgpu::RequestDeviceError> {
    /// let mut wanted = sagittal::Gpu::device_descriptor(adapter);
    /// wanted.required_features |= wgpu::Features::DEPTH_CLIP_CONTROL & adapter.features();
    /// let (device, queue) = pollster::block_on(adapter.request_device(&wanted))?;
    /// Ok(sagittal::Gpu::from_adapter(adapter, device, queue))
    /// # }
    /// ```
    ///
    /// It requires the limits of the adapter, timestamps for profiles if the adapter has them, and
    /// * if the adapter has cooperative matrices, `Features::SHADER_F16`, `SUBGROUP`, `SUBGROUP_BARRIER` and
    ///   `EXPERIMENTAL_COOPERATIVE_MATRIX`: f16 is several times faster with them. wgpu calls them experimental, and
    ///   the descriptor enables experimental features for the app;
    /// * if the adapter has them, `Features::SUBGROUP` and `SHADER_INT64`: a driver that runs shaders on the CPU is
    ///   several times faster with them.
    pub fn device_descriptor(adapter: &wgpu::Adapter) -> wgpu::DeviceDescriptor<'static> {
        features::descriptor(adapter, true)
    }

    /// Uses a device that the app has made. `wgpu::Limits::default()` without features is enough. Without its adapter,
    /// cooperative matrices are not used: [`from_adapter`](Self::from_adapter) uses them, and
    /// [`Report::unused`](crate::pipeline::report::Report::unused) lists what is not used. The callbacks of the device
    /// are not changed.
    pub fn from_device(device: wgpu::Device, queue: wgpu::Queue) -> Self {
        Self::of(None, device, queue, None)
    }

    /// The same for an app that has the adapter, too. With a device made by
    /// [`device_descriptor`](Self::device_descriptor) all that helps is used.
    pub fn from_adapter(adapter: &wgpu::Adapter, device: wgpu::Device, queue: wgpu::Queue) -> Self {
        Self::of(Some(adapter), device, queue, None)
    }

    fn of(
        adapter: Option<&wgpu::Adapter>,
        device: wgpu::Device,
        queue: wgpu::Queue,
        wanted: Option<bool>,
    ) -> Self {
        let (limits, info) = (device.limits(), device.adapter_info());
        let workgroup_memory = limits.max_compute_workgroup_storage_size;
        let kinds = adapter.map(features::matrices);
        let usable = device.features().contains(COOPERATIVE) && workgroup_memory >= LEAST_MEMORY;
        let kinds = kinds.filter(|_| usable).unwrap_or_default();
        let matrices = features::of_width(&device, &queue, &kinds);
        let unused = features::left_unused(&device, adapter).into();
        let mut profile = DeviceProfile {
            cpu: info.device_type == wgpu::DeviceType::Cpu,
            subgroups: [info.subgroup_min_size, info.subgroup_max_size],
            f16: device.features().contains(wgpu::Features::SHADER_F16),
            prefers_matrices: wanted == Some(true) && !matrices.is_empty(),
            matrices,
            workgroup_memory,
            max_binding: limits.max_storage_buffer_binding_size,
            max_buffer: limits.max_buffer_size,
            alignment: u64::from(
                limits.min_storage_buffer_offset_alignment.max(limits.min_uniform_buffer_offset_alignment),
            ),
            costs: CostTable::of_gpus(),
            distrusted: Arc::default(),
            asked: None,
        };
        profile.costs = profile.compiled_in_costs();
        Self {
            device,
            queue,
            profile,
            cache: None,
            pipelines: Arc::default(),
            unused,
            longest_wait: LONGEST_WAIT,
            kept: None,
        }
    }

    /// Opens an adapter by its number or a part of its name; with None the first that is not a CPU driver, or else the
    /// first.
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with).
    pub fn open(choice: Option<&str>) -> Result<Self> {
        Self::open_with(&OpenOptions { adapter: choice, ..Default::default() })
    }

    /// Opens an adapter by `options`.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] if no adapter has this number or name; [`ErrorKind::Device`] if there is no adapter, or if
    /// it cannot make the device.
    pub fn open_with(options: &OpenOptions<'_>) -> Result<Self> {
        let instance = instance();
        let all = enumerate(&instance);
        let picked = pick(&all, options.adapter)?;
        let adapter = &all[picked];
        if options.matrices == Some(true) && !offers_cooperative(adapter) {
            return Err(Error::usage("the adapter has no cooperative matrices that there are kernels for")
                .at(adapter.get_info().name)
                .hint("leave the choice to the device"));
        }
        let mut descriptor = features::descriptor(adapter, options.matrices != Some(false));
        let caches = adapter.features() & wgpu::Features::PIPELINE_CACHE;
        descriptor.required_features.set(caches, options.cache.is_some());
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).map_err(|e| {
            Error::new(ErrorKind::Device, "the adapter gives no device").at(adapter.get_info().name).cause(e)
        })?;
        let gpu = Self::of(Some(adapter), device, queue, options.matrices);
        let gpu = match options.cache {
            Some(folder) => gpu.keep_pipelines_in(folder),
            None => gpu,
        };
        Ok(match options.costs {
            Some(file) => gpu.with_costs(CostTable::read(file)?),
            None => gpu,
        })
    }

    /// Caches compiled pipelines in a file in `folder`, which is created if necessary. They are read now, and written
    /// by [`save_pipelines`](Self::save_pipelines) and when the last clone is dropped. A file that is damaged, or of
    /// another driver or version, is ignored, and so is an error in writing: both are logged, and cost only time.
    /// Without `Features::PIPELINE_CACHE` of the device no pipelines are cached.
    ///
    /// Beside them it is kept what kernels were found to do on this adapter and driver. When a first model is made, those
    /// that were not checked before run once on random data beside plain ones, which takes up to two seconds; wrong or
    /// slower ones are not used, and a warning is logged. Without such a folder nothing is checked.
    pub fn keep_pipelines_in(mut self, folder: &Path) -> Self {
        // If the device fails to make a cache, pipelines are compiled without one.
        let cache = self.checked("make a cache of pipelines", || Cache::open(&self.device, folder));
        self.cache = cache.ok().flatten().map(Arc::new);
        // Pipelines that were compiled before are not in the file.
        self.pipelines = Arc::default();
        let path = self.kept_file(folder, "kernels");
        let verdicts = Verdicts::read(&path, &kernels::fingerprint()).unwrap_or_default();
        self.kept = Some(Arc::new(Kept { path, verdicts: Mutex::new(verdicts) }));
        self.distrust();
        let tuned = self.kept_file(folder, "costs");
        if tuned.is_file() {
            match CostTable::read(&tuned) {
                Ok(costs) => self.profile.costs = Arc::new(costs),
                Err(e) => log::warn!("{e}; the compiled-in costs are used"),
            }
        }
        self
    }

    /// The file in `folder` of what is kept of this adapter with its driver, for this version.
    fn kept_file(&self, folder: &Path, what: &str) -> PathBuf {
        let info = self.device.adapter_info();
        let all = format!("{} {} {}", info.name, info.driver, info.driver_info);
        let backend = format!("{:?}", info.backend).to_lowercase();
        let key = format!(
            "{backend}-{:04x}-{:04x}-{:08x}",
            info.vendor,
            info.device,
            crc32fast::hash(all.as_bytes())
        );
        folder.join(format!("{key}-{}.{what}.json", env!("CARGO_PKG_VERSION")))
    }

    /// What its kernels were found to do, if that is kept: see [`trust`](crate::trust).
    pub(crate) fn verdicts(&self) -> Option<Verdicts> {
        let kept = self.kept.as_ref()?;
        Some(kept.verdicts.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// The same device with what was found of its kernels, which is written to its file.
    pub(crate) fn with_verdicts(mut self, found: Verdicts) -> Self {
        if let Some(kept) = &self.kept {
            found.write(&kept.path, &kernels::fingerprint(), &self.device.adapter_info().name);
            *kept.verdicts.lock().unwrap_or_else(PoisonError::into_inner) = found;
        }
        self.distrust();
        self
    }

    /// Takes what was found of the kernels to its profile. Who asks for matrices gets them.
    fn distrust(&mut self) {
        let Some(verdicts) = self.verdicts() else { return };
        let mut distrusted = verdicts.distrusted();
        if self.profile.prefers_matrices {
            distrusted.retain(|name| !name.contains("cooperative"));
        }
        self.profile.distrusted = Arc::new(distrusted);
    }

    /// Uses a pipeline cache of the app, which must be of this device: compiled pipelines are looked up in it and added
    /// to it. The app loads and saves it.
    pub fn with_pipeline_cache(mut self, cache: wgpu::PipelineCache) -> Self {
        self.cache = Some(Arc::new(Cache::of_app(cache)));
        self.pipelines = Arc::default();
        self
    }

    /// The longest time for which other work on the queue, such as an app's frames, should wait for that of the library;
    /// the default is 200 ms. Pictures do not depend on it.
    ///
    /// Set it before a model is made: the model keeps the `Gpu` that it was given. Work is submitted in pieces that take
    /// half of this time by the measured speed of the device, and work for at most this time is under way. A single
    /// dispatch is not divided, so on a slow device the wait may be longer than a short time that is asked for: with 10 ms
    /// frames waited at most 6 ms on an H200, and for Mesa's software driver 14 ms while sampling and 169 ms while
    /// decoding. Short times cost speed, since each piece has a cost of its own.
    pub fn with_longest_wait(mut self, wait: Duration) -> Self {
        self.longest_wait = wait;
        self
    }

    /// The time that one submission should take.
    pub(crate) fn longest_submission(&self) -> Duration {
        self.longest_wait / 2
    }

    /// Writes the pipelines that were compiled since the cache was read or written, if there is a cache: see
    /// [`keep_pipelines_in`](Self::keep_pipelines_in).
    pub fn save_pipelines(&self) {
        if let Some(cache) = &self.cache {
            cache.save();
        }
    }

    /// The cache that compiled pipelines are looked up in.
    pub(crate) fn pipeline_cache(&self) -> Option<&wgpu::PipelineCache> {
        self.cache.as_ref().map(|cache| cache.pipelines())
    }

    /// The ways of writing shaders that the device supports.
    pub(crate) fn offers(&self) -> shader::Offers {
        let has = |features| self.device.features().contains(features);
        shader::Offers {
            matrices: self.profile.matrices.clone(),
            shared_loads: has(SHARED_LOADS) && self.device.adapter_info().subgroup_min_size >= kernels::LANES,
        }
    }

    /// The device.
    pub fn device(&self) -> &wgpu::Device {
        &self.device
    }

    /// Its queue.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.queue
    }

    /// What the planner must know of the device.
    #[doc(hidden)]
    pub fn profile(&self) -> &DeviceProfile {
        &self.profile
    }

    /// How networks are stored where nothing else is asked for.
    #[doc(hidden)]
    pub fn usual_precision(&self) -> Precision {
        self.profile.usual_precision()
    }

    /// What the adapter has that the device was made without, and that would make it faster: a line of text for each.
    pub fn unused(&self) -> &[String] {
        &self.unused
    }

    /// Bytes of all buffers of the device now, including those of the app, as wgpu counts them.
    #[doc(hidden)]
    pub fn buffer_bytes(&self) -> u64 {
        self.device.get_internal_counters().hal.buffer_memory.read().max(0) as u64
    }

    /// [`checked`] on this device.
    pub(crate) fn checked<T>(&self, what: &str, f: impl FnOnce() -> T) -> Result<T> {
        checked(&self.device, what, f)
    }
}

/// Runs `f`, and returns an error that `device` reports meanwhile on this thread. It uses error scopes, so that
/// the handlers of the app are not called.
fn checked<T>(device: &wgpu::Device, what: &str, f: impl FnOnce() -> T) -> Result<T> {
    let scopes = [wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Validation]
        .map(|filter| device.push_error_scope(filter));
    let value = f();
    let mut first = None;
    // Scopes end in the reverse order of their start.
    for scope in scopes.into_iter().rev() {
        first = first.or(pollster::block_on(scope.pop()));
    }
    match first {
        None => Ok(value),
        Some(e) => {
            let memory = matches!(e, wgpu::Error::OutOfMemory { .. });
            let kind = if memory { ErrorKind::Memory } else { ErrorKind::Device };
            Err(Error::new(kind, format!("the device failed to {what}")).cause(e))
        }
    }
}

/// All adapters, in the order of the drivers.
pub fn adapters() -> Vec<Adapter> {
    enumerate(&instance())
        .iter()
        .enumerate()
        .map(|(index, a)| Adapter {
            index,
            info: a.get_info(),
            features: a.features(),
            limits: a.limits(),
            matrices: a.cooperative_matrix_properties(),
        })
        .collect()
}

fn instance() -> wgpu::Instance {
    // GL supports compute only in part, and would list the adapters of the other backends again.
    let backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: backends.with_env(),
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    })
}

fn enumerate(instance: &wgpu::Instance) -> Vec<wgpu::Adapter> {
    pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()))
}

fn pick(all: &[wgpu::Adapter], choice: Option<&str>) -> Result<usize> {
    if all.is_empty() {
        return Err(Error::new(ErrorKind::Device, "no GPU adapter found").hint(
            "install a Vulkan driver; on Debian and Ubuntu `apt-get install mesa-vulkan-drivers` brings one \
             that runs on the CPU",
        ));
    }
    let infos: Vec<_> = all.iter().map(wgpu::Adapter::get_info).collect();
    let Some(choice) = choice else {
        return Ok(infos.iter().position(|i| i.device_type != wgpu::DeviceType::Cpu).unwrap_or(0));
    };
    // A number is never looked up in names: `1` would find "LLVM 15".
    let wanted = choice.to_lowercase();
    let found = match choice.parse::<usize>() {
        Ok(number) => (number < all.len()).then_some(number),
        Err(_) if wanted.is_empty() => None,
        Err(_) => infos.iter().position(|i| i.name.to_lowercase().contains(&wanted)),
    };
    found.ok_or_else(|| {
        let names: Vec<_> = infos.iter().enumerate().map(|(i, a)| format!("{i}: {}", a.name)).collect();
        Error::usage("no such device").expected(names.join(", ")).found(choice)
    })
}
