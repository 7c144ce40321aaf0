//! Weights on the device, re-laid for the kernels and packed into a few large buffers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use super::buffer;
use crate::gpu::Gpu;
use crate::graph::{Layout, Weight};
use crate::kernels::Precision;
use crate::{Error, ErrorKind, Result};

/// Where weights come from.
pub trait Source {
    /// The values of tensor `name`, which must have `shape`.
    fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>>;
}

/// Weights on the device. They serve every graph that asks for no others.
pub struct Weights {
    pages: Vec<wgpu::Buffer>,
    /// Page, offset and bytes.
    places: HashMap<Weight, (usize, u64, u64)>,
}

/// Weights share buffers up to this size; a larger weight has one of its own.
const PAGE: u64 = 64 << 20;

impl Weights {
    /// Bytes of all buffers.
    pub fn bytes(&self) -> u64 {
        self.pages.iter().map(wgpu::Buffer::size).sum()
    }

    /// Buffer, offset and bytes of a weight.
    pub(super) fn place(&self, weight: &Weight) -> Result<(&wgpu::Buffer, u64, u64)> {
        let &(page, offset, bytes) = self
            .places
            .get(weight)
            .ok_or_else(|| Error::internal(format!("{} is not on the device", weight.sources.join(" + "))))?;
        Ok((&self.pages[page], offset, bytes))
    }

    pub(super) fn upload(
        gpu: &Gpu,
        weights: &[Weight],
        source: &dyn Source,
        precision: Precision,
        cancel: &AtomicBool,
    ) -> Result<Self> {
        let capabilities = gpu.capabilities();
        let (sizes, places) = layout(weights, precision, capabilities.alignment);
        for (weight, &(_, _, bytes)) in weights.iter().zip(&places) {
            if bytes > capabilities.max_binding {
                return Err(Error::new(ErrorKind::Memory, "a weight is larger than this device can bind")
                    .at(weight.sources.join(" + "))
                    .expected(format!("at most {} bytes", capabilities.max_binding))
                    .found(format!("{bytes} bytes"))
                    .hint("use f16"));
            }
        }
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
        let pages = gpu.checked("hold the weights", || {
            sizes.iter().map(|s| buffer(gpu, "weights", *s, usage)).collect::<Vec<_>>()
        })?;
        for (weight, &(page, offset, _)) in weights.iter().zip(&places) {
            if cancel.load(Ordering::Relaxed) {
                return Err(Error::cancelled());
            }
            let bytes = packed(weight, source, precision)?;
            gpu.checked("take a weight", || gpu.queue().write_buffer(&pages[page], offset, &bytes))?;
        }
        // Bring the copies under way now, or they pile up in staging memory.
        gpu.queue().submit([]);
        Ok(Self { pages, places: weights.iter().cloned().zip(places).collect() })
    }
}

/// Bytes that the weights of a graph take on the device.
pub fn device_bytes(weights: &[Weight], precision: Precision, alignment: u64) -> u64 {
    layout(weights, precision, alignment).0.iter().sum()
}

/// Page sizes, and page, offset and bytes of each weight.
fn layout(weights: &[Weight], precision: Precision, alignment: u64) -> (Vec<u64>, Vec<(usize, u64, u64)>) {
    let mut sizes: Vec<u64> = Vec::new();
    let mut places = Vec::with_capacity(weights.len());
    for w in weights {
        let bytes = w.device_len() as u64 * stored(w, precision).bytes();
        let room = bytes.next_multiple_of(alignment);
        if sizes.last().is_none_or(|size| size + room > PAGE) {
            sizes.push(0);
        }
        let page = sizes.len() - 1;
        places.push((page, sizes[page], bytes));
        sizes[page] += room;
    }
    (sizes, places)
}

fn stored(weight: &Weight, precision: Precision) -> Precision {
    match weight.layout {
        Layout::Vector => Precision::F32,
        _ => precision,
    }
}

/// The bytes of `weight` as the kernels read them.
fn packed(weight: &Weight, source: &dyn Source, precision: Precision) -> Result<Vec<u8>> {
    let (inp, out) = (weight.in_features(), weight.out_features());
    let (inp4, out4) = (inp.next_multiple_of(4), out.next_multiple_of(4));
    let mut values = vec![0.0f32; weight.device_len()];
    let mut first = 0;
    for (name, shape) in weight.sources.iter().zip(&weight.shapes) {
        let data = source.read(name, shape)?;
        let taps = if weight.layout == Layout::Conv3x3 { 9 } else { 1 };
        // File: [out][in][tap]. Device: [tap][in][out].
        for (o, per_out) in data.chunks_exact(inp * taps).enumerate() {
            for (i, per_in) in per_out.chunks_exact(taps).enumerate() {
                for (tap, v) in per_in.iter().enumerate() {
                    values[(tap * inp4 + i) * out4 + first + o] = *v;
                }
            }
        }
        first += shape[0];
    }
    if stored(weight, precision) == Precision::F32 {
        return Ok(bytemuck::cast_slice(&values).to_vec());
    }
    let bytes = to_f16(&values);
    if let Some(bad) = values.iter().find(|v| v.abs() > 65504.0) {
        return Err(Error::new(ErrorKind::Model, "a weight does not fit f16")
            .at(weight.sources.join(" + "))
            .expected("values up to 65504")
            .found(bad.to_string())
            .hint("use --precision f32"));
    }
    Ok(bytes)
}

/// `values` rounded to f16, little endian.
pub(super) fn to_f16(values: &[f32]) -> Vec<u8> {
    let halves: Vec<half::f16> = values.iter().map(|v| half::f16::from_f32(*v)).collect();
    bytemuck::cast_slice(&halves).to_vec()
}
