//! Compiled kernels by variant, one set for all that runs on a device: a second model compiles only what
//! the first had no use for.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Mutex;

use super::{Gpu, barriers};
use crate::kernels::Variant;
use crate::{Error, Result, shader};

/// Every variant compiled so far, without checks and with them.
#[derive(Debug, Default)]
pub struct Pipelines {
    known: [Mutex<Known>; 2],
}

type Known = HashMap<Variant, wgpu::ComputePipeline>;

impl Pipelines {
    /// Compiles those of `variants` that are new, on all cores; `checked` as in
    /// [`Engine::checked`](crate::engine::Engine::checked).
    pub fn compile<'a>(
        &self,
        gpu: &Gpu,
        checked: bool,
        variants: impl Iterator<Item = &'a Variant>,
    ) -> Result<()> {
        let mut new: Vec<&Variant> = Vec::new();
        {
            let known = self.lock(checked);
            for v in variants {
                if !known.contains_key(v) && !new.contains(&v) {
                    new.push(v);
                }
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(new.len());
        let made: Vec<Result<Vec<_>>> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|t| {
                    let mine: Vec<&Variant> = new.iter().skip(t).step_by(threads).copied().collect();
                    scope.spawn(move || {
                        mine.into_iter().map(|v| Ok((v.clone(), make(gpu, v, checked)?))).collect()
                    })
                })
                .collect();
            workers
                .into_iter()
                .map(|w| w.join().unwrap_or_else(|_| Err(Error::internal("a shader compiler thread failed"))))
                .collect()
        });
        for part in made {
            self.lock(checked).extend(part?);
        }
        Ok(())
    }

    /// The pipeline of a variant that was compiled before.
    pub fn get(&self, checked: bool, variant: &Variant) -> Result<wgpu::ComputePipeline> {
        let known = self.lock(checked).get(variant).cloned();
        known.ok_or_else(|| Error::internal(format!("{variant} was not compiled")))
    }

    fn lock(&self, checked: bool) -> std::sync::MutexGuard<'_, Known> {
        // A panic elsewhere leaves the map whole: entries are added in one step.
        self.known[usize::from(checked)].lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Cooperative matrices of f16 are Vulkan's alone.
fn module(text: &str, label: &str) -> Result<wgpu::naga::Module> {
    barriers::module(text).map_err(|e| Error::internal(format!("{label}: {}", e.emit_to_string(text))))
}

fn make(gpu: &Gpu, variant: &Variant, checked: bool) -> Result<wgpu::ComputePipeline> {
    let text = shader::source(variant, gpu.offers())?;
    let label = variant.to_string();
    let source = match variant.is_cooperative() && gpu.offers().cooperative {
        true => wgpu::ShaderSource::Naga(Cow::Owned(module(&text, &label)?)),
        false => wgpu::ShaderSource::Wgsl(text.into()),
    };
    gpu.checked(&format!("compile {label}"), || {
        let descriptor = wgpu::ShaderModuleDescriptor { label: Some(&label), source };
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
