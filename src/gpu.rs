//! The device: the app's own or one we open, and what it can do.

mod barriers;
mod cache;
mod pipelines;
mod wanted;

use std::path::Path;
use std::sync::Arc;

use crate::kernels::{LEAST_MEMORY, Target, Variant};
use crate::plan::Capabilities;
use crate::{Error, ErrorKind, Result, kernels, shader};
use cache::Cache;
use pipelines::Pipelines;
use wanted::{COOPERATIVE, SHARED_LOADS, offers_cooperative};

/// An adapter that could be used.
#[derive(Debug, Clone)]
pub struct Adapter {
    /// Position in [`adapters`], usable as a choice in [`Gpu::open`] and [`OpenOptions`].
    pub index: usize,
    /// Name, backend, driver and type as the driver gives them.
    pub info: wgpu::AdapterInfo,
    /// What it supports.
    pub features: wgpu::Features,
    /// Its limits.
    pub limits: wgpu::Limits,
}

impl Adapter {
    /// Whether shaders run on the CPU.
    pub fn is_cpu(&self) -> bool {
        self.info.device_type == wgpu::DeviceType::Cpu
    }
}

/// How [`Gpu::open_with`] opens a device.
#[derive(Debug, Clone, Copy)]
pub struct OpenOptions<'a> {
    /// The adapter's number or a part of its name; None is the first that is not a CPU, else the
    /// first.
    pub adapter: Option<&'a str>,
    /// Whether cooperative matrices are used where the adapter has them. Without them the kernels are
    /// those of any GPU: for comparing, and for a driver that computes wrong with them.
    pub matrices: bool,
    /// Folder in which compiled pipelines are kept from one start to the next, where the adapter
    /// allows it; see [`Gpu::keep_pipelines_in`]. None keeps none.
    pub cache: Option<&'a Path>,
}

impl Default for OpenOptions<'_> {
    fn default() -> Self {
        Self { adapter: None, matrices: true, cache: None }
    }
}

/// A device with its queue. Cheap to clone; clones share the device.
#[derive(Debug, Clone)]
pub struct Gpu {
    device: wgpu::Device,
    queue: wgpu::Queue,
    capabilities: Capabilities,
    cache: Option<Arc<Cache>>,
    /// Shared by all clones.
    pipelines: Arc<Pipelines>,
    unused: Arc<[String]>,
}

impl Gpu {
    /// What an app's device is to be made with, so that nothing of `adapter` stays unused: features and limits that
    /// pay. An app adds what it needs itself and hands the device to [`from_adapter`](Self::from_adapter):
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
    /// It is the adapter's limits, times of dispatches for profiles, and
    /// * where the adapter has cooperative matrices, `Features::SHADER_F16`, `SUBGROUP`, `SUBGROUP_BARRIER` and
    ///   `EXPERIMENTAL_COOPERATIVE_MATRIX`: f16 is computed several times faster with them. wgpu calls them
    ///   experimental, and the descriptor says for the app that it knows;
    /// * `Features::SUBGROUP` and `SHADER_INT64`: on a driver that runs shaders on the CPU, all is computed several
    ///   times faster with them.
    pub fn device_descriptor(adapter: &wgpu::Adapter) -> wgpu::DeviceDescriptor<'static> {
        wanted::descriptor(adapter, true)
    }

    /// Uses a device that the app has made, of an adapter that is not known; `wgpu::Limits::default()` and no feature
    /// suffice. Cooperative matrices stay unused: [`from_adapter`](Self::from_adapter) takes them, and
    /// [`Report::unused`](crate::pipeline::report::Report::unused) tells what is left unused.
    /// No callback of the device is touched.
    pub fn from_device(device: wgpu::Device, queue: wgpu::Queue) -> Self {
        Self::of(None, device, queue)
    }

    /// The same for an app that knows the adapter. A device made by [`device_descriptor`](Self::device_descriptor)
    /// leaves nothing of it unused.
    pub fn from_adapter(adapter: &wgpu::Adapter, device: wgpu::Device, queue: wgpu::Queue) -> Self {
        Self::of(Some(adapter), device, queue)
    }

    fn of(adapter: Option<&wgpu::Adapter>, device: wgpu::Device, queue: wgpu::Queue) -> Self {
        let memory = device.limits().max_compute_workgroup_storage_size;
        let matrices = adapter.is_some_and(offers_cooperative) && device.features().contains(COOPERATIVE);
        let target = match device.adapter_info().device_type {
            _ if matrices && memory >= LEAST_MEMORY => Target::Cooperative { memory },
            wgpu::DeviceType::Cpu => Target::Cpu,
            _ => Target::Gpu,
        };
        let unused = wanted::left_unused(&device, adapter).into();
        let limits = device.limits();
        let capabilities = Capabilities {
            target,
            max_binding: limits.max_storage_buffer_binding_size,
            max_buffer: limits.max_buffer_size,
            alignment: u64::from(
                limits.min_storage_buffer_offset_alignment.max(limits.min_uniform_buffer_offset_alignment),
            ),
        };
        Self { device, queue, capabilities, cache: None, pipelines: Arc::default(), unused }
    }

    /// Opens an adapter: by number or a part of its name, else the first that is not a CPU, else
    /// the first.
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with).
    pub fn open(choice: Option<&str>) -> Result<Self> {
        Self::open_with(&OpenOptions { adapter: choice, ..Default::default() })
    }

    /// Opens an adapter by `options`.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] if the choice names none of them, [`ErrorKind::Device`] if there is none
    /// or it gives no device.
    pub fn open_with(options: &OpenOptions<'_>) -> Result<Self> {
        let instance = instance();
        let all = enumerate(&instance);
        let picked = pick(&all, options.adapter)?;
        let adapter = &all[picked];
        let mut descriptor = wanted::descriptor(adapter, options.matrices);
        let caches = adapter.features() & wgpu::Features::PIPELINE_CACHE;
        descriptor.required_features.set(caches, options.cache.is_some());
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).map_err(|e| {
            Error::new(ErrorKind::Device, "the adapter gives no device").at(adapter.get_info().name).cause(e)
        })?;
        let gpu = Self::from_adapter(adapter, device, queue);
        Ok(match options.cache {
            Some(folder) => gpu.keep_pipelines_in(folder),
            None => gpu,
        })
    }

    /// Keeps compiled pipelines in a file in `folder`, which is made if need be: they are read now and
    /// written by [`save_pipelines`](Self::save_pipelines), or when the last clone is dropped. A file
    /// that is damaged, of another driver or of another version counts as none, and one that cannot
    /// be written is left out: this costs time, and is logged. Without `Features::PIPELINE_CACHE` of
    /// the device nothing is kept.
    pub fn keep_pipelines_in(mut self, folder: &Path) -> Self {
        // Should the device fail to make a cache, pipelines are compiled as without.
        let cache = self.checked("make a cache of pipelines", || Cache::open(&self.device, folder));
        self.cache = cache.ok().flatten().map(Arc::new);
        // What was compiled before is not in the file.
        self.pipelines = Arc::default();
        self
    }

    /// Lets kernels be looked for in a cache of the app's own, of this device, and be added to it. The
    /// app reads and writes it.
    pub fn with_pipeline_cache(mut self, cache: wgpu::PipelineCache) -> Self {
        self.cache = Some(Arc::new(Cache::of_app(cache)));
        self.pipelines = Arc::default();
        self
    }

    /// Writes what was compiled since the pipelines were read, if they are kept in a folder.
    pub fn save_pipelines(&self) {
        if let Some(cache) = &self.cache {
            cache.save();
        }
    }

    /// Where compiled pipelines are looked for.
    pub(crate) fn pipeline_cache(&self) -> Option<&wgpu::PipelineCache> {
        self.cache.as_ref().map(|cache| cache.pipelines())
    }

    /// Compiles those of `variants` that no engine on this device has had a use for; `checked` as in
    /// [`Engine::checked`](crate::engine::Engine::checked).
    pub(crate) fn compile<'a>(
        &self,
        checked: bool,
        variants: impl Iterator<Item = &'a Variant>,
    ) -> Result<()> {
        self.pipelines.compile(self, checked, variants)
    }

    /// The pipeline of a variant that was compiled before.
    pub(crate) fn pipeline(&self, checked: bool, variant: &Variant) -> Result<wgpu::ComputePipeline> {
        self.pipelines.get(checked, variant)
    }

    /// In which way shaders are written for the device.
    pub(crate) fn offers(&self) -> shader::Offers {
        let has = |features| self.device.features().contains(features);
        shader::Offers {
            cooperative: has(COOPERATIVE),
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

    /// What the planner must know.
    #[doc(hidden)]
    pub fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// What the device lacks of its adapter that would make it faster, each in a line of plain words.
    pub fn unused(&self) -> &[String] {
        &self.unused
    }

    /// Bytes of all buffers of the device at this moment, those of the app included, as wgpu counts
    /// them.
    #[doc(hidden)]
    pub fn buffer_bytes(&self) -> u64 {
        self.device.get_internal_counters().hal.buffer_memory.read().max(0) as u64
    }

    /// Runs `f` and turns what the device reports meanwhile on this thread into an error.
    /// Uses error scopes, so the app's handlers see nothing of it.
    pub(crate) fn checked<T>(&self, what: &str, f: impl FnOnce() -> T) -> Result<T> {
        let scopes =
            [wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Validation]
                .map(|filter| self.device.push_error_scope(filter));
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
}

/// All adapters, in the driver's order.
pub fn adapters() -> Vec<Adapter> {
    enumerate(&instance())
        .iter()
        .enumerate()
        .map(|(index, a)| Adapter { index, info: a.get_info(), features: a.features(), limits: a.limits() })
        .collect()
}

fn instance() -> wgpu::Instance {
    // GL offers compute only in part and repeats the adapters of the other backends.
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
    // A number is never a part of a name, or `1` would find "LLVM 15".
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
