//! Weights on the device, re-laid for the kernels and packed into a few large buffers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use super::buffer;
use super::pipelines::Pipelines;
use super::upload::{Part, Place, Road};
use crate::gpu::Gpu;
use crate::graph::Weight;
use crate::kernels::Precision;
use crate::kernels::repack::{self, Stored};
use crate::{Error, ErrorKind, Result};

/// Where weights come from.
pub trait Source {
    /// The values of tensor `name`, which must have `shape`; an error if one is not finite.
    fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>>;

    /// The same tensor as it is stored, little-endian, for those that hold it so: it is then
    /// converted on the device. None sends the caller to [`read`](Self::read).
    fn raw(&self, _name: &str, _shape: &[usize]) -> Result<Option<(Stored, &[u8])>> {
        Ok(None)
    }
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
        pipelines: &Pipelines,
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
        let usage = wgpu::BufferUsages::STORAGE;
        let pages = gpu.checked("hold the weights", || {
            sizes.iter().map(|s| buffer(gpu, "weights", *s, usage)).collect::<Vec<_>>()
        })?;
        let mut road = Road::new(gpu, pipelines, weights.len())?;
        for (number, (weight, &(page, offset, bytes))) in weights.iter().zip(&places).enumerate() {
            let place = Place { page: &pages[page], offset, bytes };
            let to = repack::precision_of(weight, precision);
            let mut first = 0;
            for (name, shape) in weight.sources.iter().zip(&weight.shapes) {
                if cancel.load(Ordering::Relaxed) {
                    return Err(Error::cancelled());
                }
                let part = Part { weight, number, first, outs: shape[0], to };
                match source.raw(name, shape)? {
                    Some((stored, bytes)) => road.send(&part, &place, stored, bytes)?,
                    None => {
                        let values = source.read(name, shape)?;
                        road.send(&part, &place, Stored::F32, bytemuck::cast_slice(&values))?;
                    }
                }
                first += shape[0];
            }
        }
        let faulty = road.finish()?;
        if let Some(weight) = faulty.into_iter().map(|number| &weights[number]).next() {
            return Err(fault(weight, source));
        }
        Ok(Self { pages, places: weights.iter().cloned().zip(places).collect() })
    }
}

/// Why the device would not take `weight`.
fn fault(weight: &Weight, source: &dyn Source) -> Error {
    let mut largest = 0.0f32;
    for (name, shape) in weight.sources.iter().zip(&weight.shapes) {
        match source.read(name, shape) {
            Ok(values) => largest = values.iter().fold(largest, |a, b| a.max(b.abs())),
            // Names the tensor and the value that is not finite.
            Err(e) => return e,
        }
    }
    Error::new(ErrorKind::Model, "a weight does not fit f16")
        .at(weight.sources.join(" + "))
        .expected("values up to 65504")
        .found(largest.to_string())
        .hint("use --precision f32")
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
        let bytes = w.device_len() as u64 * repack::precision_of(w, precision).bytes();
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

/// `values` rounded to f16, little endian.
pub(super) fn to_f16(values: &[f32]) -> Vec<u8> {
    let halves: Vec<half::f16> = values.iter().map(|v| half::f16::from_f32(*v)).collect();
    bytemuck::cast_slice(&halves).to_vec()
}
