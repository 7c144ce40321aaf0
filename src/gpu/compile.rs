//! Compiles shaders, on all cores at once.

use std::borrow::Cow;

use super::{Gpu, barriers};
use crate::kernels::Variant;
use crate::{Error, Result, shader};

impl Gpu {
    /// Compiles those of `variants` that no engine on this device has needed so far; `checked` as in
    /// [`Engine::checked`](crate::engine::Engine::checked).
    pub(crate) fn compile<'a>(
        &self,
        checked: bool,
        variants: impl Iterator<Item = &'a Variant>,
    ) -> Result<()> {
        let new = self.pipelines.missing(checked, variants);
        if new.is_empty() {
            return Ok(());
        }
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(new.len());
        let made: Vec<Result<Vec<_>>> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|t| {
                    let mine: Vec<&Variant> = new.iter().skip(t).step_by(threads).copied().collect();
                    scope.spawn(move || {
                        mine.into_iter().map(|v| Ok((v.clone(), pipeline(self, v, checked)?))).collect()
                    })
                })
                .collect();
            workers
                .into_iter()
                .map(|w| w.join().unwrap_or_else(|_| Err(Error::internal("a shader compiler thread failed"))))
                .collect()
        });
        for compiled in made {
            self.pipelines.add(checked, compiled?);
        }
        Ok(())
    }

    /// The pipeline of a variant that was compiled before.
    pub(crate) fn pipeline(&self, checked: bool, variant: &Variant) -> Result<wgpu::ComputePipeline> {
        self.pipelines.get(checked, variant)
    }
}

/// Parses a shader with cooperative matrices of f16, which only Vulkan has.
fn module(text: &str, label: &str) -> Result<wgpu::naga::Module> {
    barriers::module(text).map_err(|e| Error::internal(format!("{label}: {}", e.emit_to_string(text))))
}

fn pipeline(gpu: &Gpu, variant: &Variant, checked: bool) -> Result<wgpu::ComputePipeline> {
    let offers = gpu.offers();
    let text = shader::source(variant, &offers)?;
    let label = variant.to_string();
    let source = match variant.is_cooperative() && !offers.writes_out(variant) {
        true => wgpu::ShaderSource::Naga(Cow::Owned(module(&text, &label)?)),
        false => wgpu::ShaderSource::Wgsl(text.into()),
    };
    gpu.checked(&format!("compile {label}"), || {
        let descriptor = wgpu::ShaderModuleDescriptor { label: Some(&label), source };
        // SAFETY: all loops end, since their bounds are parameters, and no kernel accesses memory outside its
        // bindings: excess invocations of the grid return early or are clamped, and the tests run every kernel on odd
        // shapes with a pattern around its results. Runtime checks cost half the speed on CPU drivers.
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
