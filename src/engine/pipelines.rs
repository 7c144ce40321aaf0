//! Compiled kernels by variant. Several threads may ask at once: each variant is compiled by one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::gpu::Gpu;
use crate::kernels::Variant;
use crate::{Error, Result, shader};

/// Every variant compiled so far.
pub struct Pipelines {
    /// Whether shaders check what they do; see [`Engine::checked`](super::Engine::checked).
    checked: bool,
    /// None while a thread compiles it.
    known: Mutex<HashMap<Variant, Option<wgpu::ComputePipeline>>>,
    /// Told of every entry that changes.
    changed: Condvar,
}

/// A variant that this thread compiles. Unless it is kept, whoever waits for it is told to compile it
/// for themselves.
struct Claim<'a> {
    pipelines: &'a Pipelines,
    variant: &'a Variant,
}

impl Pipelines {
    /// None yet, all to be compiled with or without checks.
    pub fn new(checked: bool) -> Self {
        Self { checked, known: Mutex::default(), changed: Condvar::new() }
    }

    /// Compiles those of `variants` that are new, on all cores, and waits for those that other threads
    /// compile.
    pub fn compile<'a>(&self, gpu: &Gpu, variants: impl Iterator<Item = &'a Variant>) -> Result<()> {
        let wanted = self.unknown(variants);
        let go = AtomicBool::new(false);
        match threads(self.unclaimed(&wanted)) {
            0 => {}
            // A thread costs more than the look at what others have begun.
            1 => self.work(gpu, &wanted, &go)?,
            threads => std::thread::scope(|scope| {
                let work = || self.work(gpu, &wanted, &go);
                let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
                workers.into_iter().try_for_each(|w| {
                    w.join().unwrap_or_else(|_| Err(Error::internal("a shader compiler thread failed")))
                })
            })?,
        }
        wanted.iter().try_for_each(|variant| self.wait_for(gpu, variant))
    }

    /// Compiles `variants` in their order on all cores, as far as it comes before `stop` is set. What
    /// fails is left to those who need it.
    pub fn compile_until(&self, gpu: &Gpu, variants: &[&Variant], stop: &AtomicBool) {
        let wanted = self.unknown(variants.iter().copied());
        std::thread::scope(|scope| {
            for _ in 0..threads(self.unclaimed(&wanted)) {
                scope.spawn(|| {
                    if let Err(why) = self.work(gpu, &wanted, stop) {
                        log::debug!("a kernel was not compiled ahead: {why}");
                    }
                });
            }
        });
    }

    /// The pipeline of a variant that was compiled before.
    pub fn get(&self, variant: &Variant) -> Result<wgpu::ComputePipeline> {
        let known = self.lock().get(variant).cloned().flatten();
        known.ok_or_else(|| Error::internal(format!("{variant} was not compiled")))
    }

    /// Those of `variants` that are not there yet, each once.
    fn unknown<'a>(&self, variants: impl Iterator<Item = &'a Variant>) -> Vec<&'a Variant> {
        let known = self.lock();
        let mut unknown: Vec<&Variant> = Vec::new();
        for v in variants {
            if !known.get(v).is_some_and(Option::is_some) && !unknown.contains(&v) {
                unknown.push(v);
            }
        }
        unknown
    }

    /// How many of `variants` nobody compiles.
    fn unclaimed(&self, variants: &[&Variant]) -> usize {
        let known = self.lock();
        variants.iter().filter(|v| !known.contains_key(**v)).count()
    }

    /// Compiles one after the other of those of `variants` that nobody compiles.
    fn work(&self, gpu: &Gpu, variants: &[&Variant], stop: &AtomicBool) -> Result<()> {
        for variant in variants {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            if let Some(claim) = self.claim(variant) {
                claim.keep(make(gpu, variant, self.checked)?);
            }
        }
        Ok(())
    }

    fn claim<'a>(&'a self, variant: &'a Variant) -> Option<Claim<'a>> {
        let mut known = self.lock();
        if known.contains_key(variant) {
            return None;
        }
        known.insert(variant.clone(), None);
        Some(Claim { pipelines: self, variant })
    }

    /// Returns when `variant` is there; compiles it where another thread gave up.
    fn wait_for(&self, gpu: &Gpu, variant: &Variant) -> Result<()> {
        loop {
            let mut known = self.lock();
            while let Some(None) = known.get(variant) {
                known = self.changed.wait(known).unwrap_or_else(PoisonError::into_inner);
            }
            if known.contains_key(variant) {
                return Ok(());
            }
            drop(known);
            self.work(gpu, &[variant], &AtomicBool::new(false))?;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Variant, Option<wgpu::ComputePipeline>>> {
        // A panic elsewhere leaves the map whole: entries change in one step.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim<'_> {
    fn keep(self, pipeline: wgpu::ComputePipeline) {
        self.pipelines.lock().insert(self.variant.clone(), Some(pipeline));
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut known = self.pipelines.lock();
        if let Some(None) = known.get(self.variant) {
            known.remove(self.variant);
        }
        drop(known);
        self.pipelines.changed.notify_all();
    }
}

/// Threads for compiling `new` variants.
fn threads(new: usize) -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get()).min(new)
}

fn make(gpu: &Gpu, variant: &Variant, checked: bool) -> Result<wgpu::ComputePipeline> {
    let text = shader::source(variant)?;
    let label = variant.to_string();
    gpu.checked(&format!("compile {label}"), || {
        let descriptor = wgpu::ShaderModuleDescriptor {
            label: Some(&label),
            source: wgpu::ShaderSource::Wgsl(text.into()),
        };
        // SAFETY: all loops end, their bounds being parameters, and no kernel leaves its bindings:
        // the grid's excess returns early or is clamped, and the tests run every kernel on odd
        // shapes with a pattern around its results. Checks cost half the speed on CPU drivers.
        let checks = match checked {
            true => wgpu::ShaderRuntimeChecks::checked(),
            false => wgpu::ShaderRuntimeChecks::unchecked(),
        };
        let module = unsafe { gpu.device().create_shader_module_trusted(descriptor, checks) };
        gpu.device().create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&label),
            layout: None,
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                // Every kernel writes its workgroup memory before it reads it.
                zero_initialize_workgroup_memory: checked,
                ..Default::default()
            },
            cache: gpu.pipeline_cache(),
        })
    })
}
