//! Uploads weights: they are copied in the format of the file into a ring of mapped staging buffers, and converted and
//! re-laid on the device by `repack.wgsl`.
//!
//! The host copies each byte once, and needs only the memory of the ring, for a file of any size.

use wgpu::BufferUsages as U;

use super::buffers::{buffer, entry, lost, read_buffer, wait};
use crate::gpu::Gpu;
use crate::graph::Weight;
use crate::kernels::repack::{self, Stored};
use crate::kernels::{Precision, Uniforms, Variant, room};
use crate::{Error, Result};

/// With a few staging buffers, copies, transfers and conversions overlap.
const BUFFERS: usize = 3;

/// Bytes of a staging buffer for weights of `total` bytes: an eighth, but enough to be worth a submission, and not more
/// than is worth its memory.
pub fn slot_bytes(total: u64) -> u64 {
    (total / 8).next_multiple_of(1 << 20).clamp(1 << 20, 16 << 20)
}

/// Device memory that the upload of weights of `total` bytes needs: the staging buffers, and one that the device reads.
pub fn ring_bytes(total: u64) -> u64 {
    // Parameters are written through a copy; all else is small.
    (BUFFERS as u64 + 1) * slot_bytes(total) + 2 * params_bytes(256) + (64 << 10)
}

/// Most conversions of a staging buffer: each has its parameters in one small buffer.
const MOST_CONVERSIONS: usize = 512;

/// Bytes of the parameters of [`MOST_CONVERSIONS`] conversions.
fn params_bytes(alignment: u64) -> u64 {
    MOST_CONVERSIONS as u64 * room(std::mem::size_of::<repack::Params>(), alignment)
}

/// A device, and whether its shaders have runtime checks.
#[derive(Clone, Copy)]
pub struct Converter<'a> {
    pub gpu: &'a Gpu,
    pub checked: bool,
}

/// Some output features of a weight.
pub struct WeightSlice<'a> {
    pub weight: &'a Weight,
    /// The number of the weight, by which its faults are counted.
    pub number: usize,
    /// First output feature, a multiple of four, and how many.
    pub first: usize,
    pub outs: usize,
    /// Storage on the device.
    pub to: Precision,
}

/// Where a weight is stored on the device.
pub struct DeviceRange<'a> {
    pub page: &'a wgpu::Buffer,
    pub offset: u64,
    pub bytes: u64,
}

/// A ring of mapped staging buffers, and the conversions that are pending.
pub struct StagingRing {
    slots: Vec<StagingBuffer>,
    slot_bytes: u64,
    /// The buffer that is being filled, and how far.
    at: usize,
    filled: u64,
    conversions: Vec<Conversion>,
    /// The bytes of the staging buffer in device memory, which the conversions read.
    raw: wgpu::Buffer,
    params: wgpu::Buffer,
    faults: wgpu::Buffer,
}

struct StagingBuffer {
    buffer: wgpu::Buffer,
    /// The submission that reads it; None while it is mapped.
    pending: Option<wgpu::SubmissionIndex>,
}

struct Conversion {
    variant: Variant,
    params: repack::Params,
    groups: [u32; 3],
    offset: u64,
    bytes: u64,
    place: (wgpu::Buffer, u64, u64),
}

impl StagingRing {
    /// A ring for this number of weights, with buffers of `slot_bytes`.
    pub fn new(gpu: &Gpu, weights: usize, slot_bytes: u64) -> Result<Self> {
        gpu.checked("make staging buffers", || {
            let mapped = || {
                gpu.device().create_buffer(&wgpu::BufferDescriptor {
                    label: Some("staging"),
                    size: slot_bytes,
                    usage: U::MAP_WRITE | U::COPY_SRC,
                    mapped_at_creation: true,
                })
            };
            let alignment = gpu.profile().alignment;
            Self {
                slots: (0..BUFFERS).map(|_| StagingBuffer { buffer: mapped(), pending: None }).collect(),
                slot_bytes,
                at: 0,
                filled: 0,
                conversions: Vec::new(),
                raw: buffer(gpu, "raw weights", slot_bytes, U::STORAGE | U::COPY_DST),
                params: buffer(gpu, "params", params_bytes(alignment), U::UNIFORM | U::COPY_DST),
                faults: buffer(gpu, "faults", 8 * weights.max(1) as u64, U::STORAGE | U::COPY_SRC),
            }
        })
    }

    /// Uploads `bytes`, the values of `part` in the order of the file, to `place`.
    pub fn send(
        &mut self,
        device: &Converter<'_>,
        part: &WeightSlice<'_>,
        place: &DeviceRange<'_>,
        stored: Stored,
        bytes: &[u8],
    ) -> Result<()> {
        let line = repack::places(part.weight) * stored.bytes();
        let name = || part.weight.sources.join(" + ");
        if bytes.len() != line * part.outs {
            return Err(Error::usage("the source of a weight returned a wrong number of values")
                .at(name())
                .expected(format!("{} bytes", line * part.outs))
                .found(bytes.len().to_string()));
        }
        if !part.first.is_multiple_of(4) {
            return Err(Error::usage("joined weights must begin at multiples of 4").at(name()));
        }
        let alignment = device.gpu.profile().alignment;
        let mut sent = 0;
        while sent < part.outs {
            // Each conversion begins at a multiple of four output features.
            let room = (self.slot_bytes - self.filled) as usize / line.max(1) / 4 * 4;
            let outs = room.min(part.outs - sent);
            if outs == 0 || self.conversions.len() == MOST_CONVERSIONS {
                if self.filled == 0 {
                    return Err(Error::internal("four outputs of a weight are larger than a staging buffer"));
                }
                self.submit(device)?;
                continue;
            }
            let stretch = &bytes[sent * line..(sent + outs) * line];
            self.fill(device.gpu, stretch)?;
            let (params, groups) = repack::call(part.weight, part.first + sent, outs, part.number);
            self.conversions.push(Conversion {
                variant: repack::variant(stored, part.to, part.weight.layout),
                params,
                groups,
                offset: self.filled,
                bytes: (stretch.len() as u64).next_multiple_of(4),
                place: (place.page.clone(), place.offset, place.bytes),
            });
            self.filled = (self.filled + stretch.len() as u64).next_multiple_of(alignment);
            sent += outs;
        }
        Ok(())
    }

    /// Copies `stretch` into the staging buffer.
    fn fill(&mut self, gpu: &Gpu, stretch: &[u8]) -> Result<()> {
        let slot = &mut self.slots[self.at];
        if let Some(index) = slot.pending.take() {
            let (send, receive) = std::sync::mpsc::channel();
            // The receiver may be gone if the device is lost meanwhile.
            slot.buffer.map_async(wgpu::MapMode::Write, .., move |r| drop(send.send(r)));
            wait(gpu, index)?;
            receive.recv().map_err(|_| lost())?.map_err(|e| lost().cause(e))?;
        }
        let end = (self.filled + stretch.len() as u64).next_multiple_of(4);
        let mut view = slot.buffer.get_mapped_range_mut(self.filled..end).map_err(|e| lost().cause(e))?;
        view.slice(..stretch.len()).copy_from_slice(stretch);
        Ok(())
    }

    /// Submits the conversions of the buffer, and continues with the next buffer.
    pub fn submit(&mut self, device: &Converter<'_>) -> Result<()> {
        let conversions = std::mem::take(&mut self.conversions);
        if conversions.is_empty() {
            return Ok(());
        }
        device.gpu.compile(device.checked, conversions.iter().map(|c| &c.variant))?;
        let index = device.gpu.checked("upload weights", || self.encode(device, &conversions))??;
        self.slots[self.at].pending = Some(index);
        self.at = (self.at + 1) % BUFFERS;
        self.filled = 0;
        Ok(())
    }

    fn encode(&self, device: &Converter<'_>, conversions: &[Conversion]) -> Result<wgpu::SubmissionIndex> {
        let gpu = device.gpu;
        let mut params = Uniforms::new(gpu.profile().alignment);
        let places: Vec<_> = conversions
            .iter()
            .map(|conversion| params.push(bytemuck::bytes_of(&conversion.params)))
            .collect();
        gpu.queue().write_buffer(&self.params, 0, params.bytes());
        let staging = &self.slots[self.at].buffer;
        staging.unmap();
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(staging, 0, &self.raw, 0, self.filled.min(self.slot_bytes));
        let mut pass = encoder.begin_compute_pass(&Default::default());
        for (conversion, (first, size)) in conversions.iter().zip(places) {
            let pipeline = device.gpu.pipeline(device.checked, &conversion.variant)?;
            let (page, offset, bytes) = &conversion.place;
            let group = gpu.device().create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some("repack"),
                layout: &pipeline.get_bind_group_layout(0),
                entries: &[
                    entry(0, &self.params, first, size),
                    entry(1, &self.raw, conversion.offset, conversion.bytes),
                    entry(2, page, *offset, *bytes),
                    entry(3, &self.faults, 0, self.faults.size()),
                ],
            });
            pass.set_pipeline(&pipeline);
            pass.set_bind_group(0, &group, &[]);
            pass.dispatch_workgroups(conversion.groups[0], conversion.groups[1], conversion.groups[2]);
        }
        drop(pass);
        Ok(gpu.queue().submit([encoder.finish()]))
    }

    /// Waits until all is uploaded. Returns the numbers of the weights with a value that is not finite or does not fit
    /// their storage.
    pub fn finish(&mut self, device: &Converter<'_>) -> Result<Vec<usize>> {
        self.submit(device)?;
        let counts = read_buffer(device.gpu, &self.faults, 0, self.faults.size())?;
        Ok(counts.chunks_exact(2).enumerate().filter(|(_, c)| c[0] + c[1] > 0).map(|(i, _)| i).collect())
    }
}
