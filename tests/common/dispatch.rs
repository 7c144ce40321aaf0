//! Single dispatches on buffers of a test's own, watched for stray writes.

use std::cell::RefCell;
use std::collections::HashMap;

use super::{Rng, gpu};
use sagittal::gpu::Gpu;
use sagittal::internals::kernels::latents::{Latents, OperandAt, SCALARS};
use sagittal::internals::kernels::{Buf, Call, Operand, Stretch, Variant};
use sagittal::internals::shader;
use wgpu::BufferUsages as Usage;

/// Around all that kernels read and write; as a float it is not a number, and spoils what reads it.
pub const SENTINEL: u32 = 0x7FC0_BEEF;

/// A device with the kernels compiled so far.
pub struct Runner {
    gpu: Gpu,
    pipelines: RefCell<HashMap<Variant, wgpu::ComputePipeline>>,
}

/// Buffers by number, as they are and as they were made.
#[derive(Default, Clone)]
pub struct Memory {
    now: Vec<Vec<u32>>,
    before: Vec<Vec<u32>>,
}

impl Memory {
    /// `words` inside a buffer with other things around them; an element is `unit` words.
    pub fn put(&mut self, words: &[u32], unit: usize) -> OperandAt {
        self.put_behind(1 + self.now.len() % 3, words, unit)
    }

    /// `words` from a buffer's start on.
    pub fn put_first(&mut self, words: &[u32]) -> Operand {
        self.put_behind(0, words, 4).operand
    }

    fn put_behind(&mut self, first: usize, words: &[u32], unit: usize) -> OperandAt {
        let mut all = vec![SENTINEL; first * unit];
        all.extend_from_slice(words);
        all.resize(all.len() + 4 * unit, SENTINEL);
        let stretch = Stretch { buf: Buf(self.now.len()), offset: 0, bytes: 4 * all.len() as u64 };
        self.now.push(all.clone());
        self.before.push(all);
        OperandAt { operand: Operand::Write(stretch), first }
    }

    /// Floats inside a buffer.
    pub fn floats(&mut self, values: &[f32], unit: usize) -> OperandAt {
        self.put(&bits(values), unit)
    }

    /// Room for `n` words.
    pub fn room(&mut self, n: usize, unit: usize) -> OperandAt {
        self.put(&vec![SENTINEL; n], unit)
    }

    /// Takes a result of `n` words out, so that [`finish`](Self::finish) does not find it.
    pub fn result(&mut self, at: OperandAt, n: usize, unit: usize) -> Vec<u32> {
        let Operand::Write(Stretch { buf: Buf(number), .. }) = at.operand else {
            panic!("a place of no buffer")
        };
        let range = at.first * unit..at.first * unit + n;
        let words = self.now[number][range.clone()].to_vec();
        self.now[number][range.clone()].copy_from_slice(&self.before[number][range]);
        words
    }

    /// The same as floats.
    pub fn floats_of(&mut self, at: OperandAt, n: usize, unit: usize) -> Vec<f32> {
        self.result(at, n, unit).into_iter().map(f32::from_bits).collect()
    }

    /// Checks that nothing but results was written.
    pub fn finish(self, what: &str) {
        for (number, (now, before)) in self.now.iter().zip(&self.before).enumerate() {
            let stray = now.iter().zip(before).filter(|(a, b)| a != b).count();
            assert_eq!(stray, 0, "{what}: words of buffer {number} written outside of all results");
        }
    }
}

impl Runner {
    pub fn new() -> Option<Self> {
        gpu().map(|gpu| Self { gpu, pipelines: RefCell::default() })
    }

    /// Runs `calls` one after the other; `scalars` are words.
    pub fn run(&self, calls: &[Call], memory: &mut Memory, scalars: &[u32]) {
        let device = self.gpu.device();
        let make = |words: &[u32], usage| {
            let size = 4 * words.len() as u64;
            let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: true };
            let buffer = device.create_buffer(&descriptor);
            let mut mapped = buffer.get_mapped_range_mut(..).expect("mapped");
            mapped.copy_from_slice(bytemuck::cast_slice(words));
            drop(mapped);
            buffer.unmap();
            buffer
        };
        let buffers: Vec<_> = memory.now.iter().map(|w| make(w, Usage::STORAGE | Usage::COPY_SRC)).collect();
        let mut all = scalars.to_vec();
        all.resize(4 * SCALARS, SENTINEL);
        let scalars = make(&all, Usage::UNIFORM);
        let mut encoder = device.create_command_encoder(&Default::default());
        for call in calls {
            let pipeline = self.pipeline(&call.variant);
            let params = make(&bytemuck::pod_collect_to_vec(&call.params), Usage::UNIFORM);
            // One for each binding: the same one would be bound for writing more than once.
            let unused: Vec<_> = call.operands.iter().map(|_| make(&[SENTINEL; 4], Usage::STORAGE)).collect();
            let bound = call.operands.iter().zip(&unused).map(|(operand, unused)| match operand {
                Operand::Read(s) | Operand::Write(s) => &buffers[s.buf.0],
                Operand::Scalars => &scalars,
                Operand::Unused | Operand::Weight(_) => unused,
            });
            let entries: Vec<_> = [&params]
                .into_iter()
                .chain(bound)
                .enumerate()
                .map(|(i, b)| wgpu::BindGroupEntry { binding: i as u32, resource: b.as_entire_binding() })
                .collect();
            let layout = &pipeline.get_bind_group_layout(0);
            let descriptor = wgpu::BindGroupDescriptor { label: None, layout, entries: &entries };
            let group = device.create_bind_group(&descriptor);
            let mut pass = encoder.begin_compute_pass(&Default::default());
            pass.set_pipeline(&pipeline);
            pass.set_bind_group(0, &group, &[]);
            let [x, y, z] = call.groups;
            pass.dispatch_workgroups(x, y, z);
        }
        let back: Vec<_> = buffers
            .iter()
            .map(|from| {
                let (size, usage) = (from.size(), Usage::MAP_READ | Usage::COPY_DST);
                let descriptor =
                    wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
                let to = device.create_buffer(&descriptor);
                encoder.copy_buffer_to_buffer(from, 0, &to, 0, size);
                to
            })
            .collect();
        self.gpu.queue().submit([encoder.finish()]);
        back.iter().for_each(|b| b.map_async(wgpu::MapMode::Read, .., |done| done.expect("mapped")));
        device.poll(wgpu::PollType::wait_indefinitely()).expect("done");
        for (words, buffer) in memory.now.iter_mut().zip(&back) {
            let mapped = buffer.get_mapped_range(..).expect("mapped");
            words.copy_from_slice(bytemuck::cast_slice(&mapped));
        }
    }

    /// With wgpu's checks: what lies outside a binding is then neither read nor written, but its last word is,
    /// which is a sentinel.
    fn pipeline(&self, variant: &Variant) -> wgpu::ComputePipeline {
        let make = || {
            let offers = shader::Offers { matrices: [].into(), shared_loads: false };
            let source = wgpu::ShaderSource::Wgsl(shader::source(variant, &offers).expect("a shader").into());
            let device = self.gpu.device();
            let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source });
            device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(&variant.to_string()),
                layout: None,
                module: &module,
                entry_point: Some("main"),
                compilation_options: Default::default(),
                cache: None,
            })
        };
        self.pipelines.borrow_mut().entry(variant.clone()).or_insert_with(make).clone()
    }
}

pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// Random latents as kernels hold them: `[image, cell, channels in whole quads]`, zeros in the padding.
pub fn random(rng: &mut Rng, l: &Latents, scale: f32) -> Vec<f32> {
    let stored = 4 * l.shape.quads();
    let value = |i: usize| if i % stored < l.shape.channels { rng.value() * scale } else { 0.0 };
    (0..l.cells() * stored).map(value).collect()
}

/// Checks that the padding channels are zeros.
pub fn is_padded(values: &[f32], l: &Latents) -> bool {
    let stored = 4 * l.shape.quads();
    values.chunks(stored).all(|cell| cell[l.shape.channels..].iter().all(|v| *v == 0.0))
}
