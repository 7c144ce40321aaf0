//! Weights on the device: re-laid for the kernels, packed into a few large buffers, and streamed if memory is short.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::buffers::buffer;
use super::staging_ring::{self, Converter, DeviceRange, StagingRing, WeightSlice};
use super::weight_streaming::{Pages, WINDOW};
use crate::graph::{Layout, Weight};
use crate::kernels::DeviceProfile;
use crate::kernels::repack::Stored;
use crate::plan::{Bound, Plan, Storage};
use crate::{Error, ErrorKind, Remedy, Result};

/// A source of weights.
pub trait WeightSource {
    /// The values of tensor `name`, which must have `shape`; an error if a value is not finite.
    fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>>;

    /// The same tensor in its stored format, little-endian, which is then converted on the device. None if the source
    /// cannot return it; the caller then uses [`read`](Self::read).
    fn raw(&self, _name: &str, _shape: &[usize]) -> Result<Option<(Stored, &[u8])>> {
        Ok(None)
    }

    /// Whether f16 can represent all values of tensor `name` exactly. On CPU drivers a network in f32 then stores it in
    /// f16.
    fn fits_f16(&self, _name: &str) -> bool {
        false
    }
}

/// Weights on the device, for every graph that needs no others.
pub struct Weights {
    pages: Pages,
    /// By page; streamed pages share the buffers of the window.
    buffers: Vec<wgpu::Buffer>,
    numbers: HashMap<Weight, usize>,
    weights: Vec<Weight>,
    storage: Storage,
    /// None if no page is streamed.
    streamed: Option<Mutex<Streamed>>,
}

/// The window of streamed pages.
struct Streamed {
    ring: StagingRing,
    /// The page in each buffer of the window.
    holds: [Option<usize>; WINDOW],
}

impl Weights {
    /// Bytes of device memory.
    pub fn bytes(&self) -> u64 {
        held_bytes(&self.pages)
    }

    /// How they are stored; plans that read them must be made for it.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Checks that they are stored as `plan` reads them.
    pub(super) fn check_storage(&self, plan: &Plan) -> Result<()> {
        if self.storage == plan.storage {
            return Ok(());
        }
        for dispatch in &plan.dispatches {
            for bound in &dispatch.bindings {
                let Bound::Weight(id) = *bound else { continue };
                let weight = &plan.weights[id.0];
                let [planned, own] = [&plan.storage, &self.storage].map(|s| s.of_weight(weight).name());
                if planned != own {
                    let name = weight.sources.join(" + ");
                    let what =
                        format!("{} reads {name} in {planned}, but it is stored in {own}", dispatch.path);
                    return Err(Error::usage(what));
                }
            }
        }
        Ok(())
    }

    fn number(&self, weight: &Weight) -> Result<usize> {
        let number = self.numbers.get(weight).copied();
        number.ok_or_else(|| Error::usage(format!("{} is not on the device", weight.sources.join(" + "))))
    }

    /// Bytes of a weight.
    pub(crate) fn bytes_of(&self, weight: &Weight) -> Result<u64> {
        self.place(weight).map(|(_, _, bytes)| bytes)
    }

    /// Buffer, offset and bytes of a weight.
    pub(super) fn place(&self, weight: &Weight) -> Result<(&wgpu::Buffer, u64, u64)> {
        let spot = self.pages.spots[self.number(weight)?];
        Ok((&self.buffers[spot.page], spot.offset, spot.bytes))
    }

    /// The page of a weight, if it is streamed.
    pub(super) fn streamed_page(&self, weight: &Weight) -> Result<Option<usize>> {
        let page = self.pages.spots[self.number(weight)?].page;
        Ok((page >= self.pages.resident).then_some(page))
    }

    /// Uploads `weights`; see [`Engine::upload`](super::Engine::upload). `arriving` is called when most memory is in use.
    pub(super) fn upload(
        device: &Converter<'_>,
        weights: &[Weight],
        source: &dyn WeightSource,
        storage: &Storage,
        most: Option<u64>,
        arriving: &mut dyn FnMut(),
        cancel: &AtomicBool,
    ) -> Result<Self> {
        let gpu = device.gpu;
        let profile = gpu.profile();
        let pages = Pages::new(&lengths(weights, storage)?, profile.alignment, most)?;
        for (weight, spot) in weights.iter().zip(&pages.spots) {
            if spot.bytes > profile.max_binding {
                return Err(Error::new(ErrorKind::Memory, "a weight is larger than this device can bind")
                    .at(weight.sources.join(" + "))
                    .expected(format!("at most {} bytes", profile.max_binding))
                    .found(format!("{} bytes", spot.bytes))
                    .remedy(Remedy::UseF16));
            }
        }
        let usage = wgpu::BufferUsages::STORAGE;
        let buffers = gpu.checked("make buffers for weights", || {
            let streamed = pages.sizes.len() - pages.resident;
            let window: Vec<_> = (0..WINDOW.min(streamed))
                .map(|_| buffer(gpu, "streamed weights", pages.slot_bytes(), usage))
                .collect();
            let of_page = |(page, size): (usize, &u64)| match pages.slot(page) {
                Some(slot) => window[slot].clone(),
                None => buffer(gpu, "weights", *size, usage),
            };
            pages.sizes.iter().enumerate().map(of_page).collect::<Vec<_>>()
        })?;
        let numbers = weights.iter().cloned().zip(0..).collect();
        let (weights, storage) = (weights.to_vec(), storage.clone());
        let mut held = Self { pages, buffers, numbers, weights, storage, streamed: None };
        let slot_bytes = staging_ring::slot_bytes(held.pages.all_bytes());
        let mut ring = StagingRing::new(gpu, held.weights.len(), slot_bytes)?;
        for page in 0..held.pages.resident {
            held.send(device, &mut ring, page, source, cancel)?;
        }
        arriving();
        held.check(ring.finish(device)?, source)?;
        if held.pages.resident < held.pages.sizes.len() {
            held.streamed = Some(Mutex::new(Streamed { ring, holds: [None; WINDOW] }));
        }
        Ok(held)
    }

    /// Uploads the weights of a page, without waiting for them.
    fn send(
        &self,
        device: &Converter<'_>,
        ring: &mut StagingRing,
        page: usize,
        source: &dyn WeightSource,
        cancel: &AtomicBool,
    ) -> Result<()> {
        let of_page = self.pages.spots.iter().enumerate().filter(|(_, spot)| spot.page == page);
        for (number, spot) in of_page {
            let weight = &self.weights[number];
            let place = DeviceRange { page: &self.buffers[page], offset: spot.offset, bytes: spot.bytes };
            let to = self.storage.of_weight(weight);
            let mut first = 0;
            for (name, shape) in weight.sources.iter().zip(&weight.shapes) {
                if cancel.load(Ordering::Relaxed) {
                    return Err(Error::cancelled());
                }
                let part = WeightSlice { weight, number, first, outs: shape[0], to };
                match source.raw(name, shape)? {
                    Some((stored, bytes)) => ring.send(device, &part, &place, stored, bytes)?,
                    None => {
                        let values = source.read(name, shape)?;
                        let bytes = bytemuck::cast_slice(&values);
                        ring.send(device, &part, &place, Stored::F32, bytes)?;
                    }
                }
                first += shape[0];
            }
        }
        Ok(())
    }

    /// Locks the window while a plan is recorded: until all that reads a page is submitted, no other run may replace
    /// it. None if all weights are resident.
    pub(super) fn window(&self) -> Option<Window<'_>> {
        let streamed = self.streamed.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Window { weights: self, streamed })
    }

    /// Checks the weights that were streamed since the last call.
    pub(super) fn check_streamed(&self, device: &Converter<'_>, source: &dyn WeightSource) -> Result<()> {
        let Some(streamed) = &self.streamed else { return Ok(()) };
        let mut streamed = streamed.lock().unwrap_or_else(PoisonError::into_inner);
        self.check(streamed.ring.finish(device)?, source)
    }

    /// The error of the first faulty weight, if there is one.
    fn check(&self, faulty: Vec<usize>, source: &dyn WeightSource) -> Result<()> {
        faulty.first().map_or(Ok(()), |number| Err(fault(&self.weights[*number], source)))
    }
}

/// The window of streamed weights, locked.
pub(super) struct Window<'w> {
    weights: &'w Weights,
    streamed: MutexGuard<'w, Streamed>,
}

impl Window<'_> {
    /// Uploads the pages of `wanted` that are not in the window, in the order of the queue.
    pub(super) fn load(
        &mut self,
        device: &Converter<'_>,
        wanted: &[usize],
        source: &dyn WeightSource,
        cancel: &AtomicBool,
    ) -> Result<()> {
        let Self { weights, streamed } = self;
        for &page in wanted {
            let Some(slot) = weights.pages.slot(page).filter(|slot| streamed.holds[*slot] != Some(page))
            else {
                continue;
            };
            // Until it is complete, the buffer holds no page, in case of an error.
            streamed.holds[slot] = None;
            weights.send(device, &mut streamed.ring, page, source, cancel)?;
            streamed.ring.submit(device)?;
            streamed.holds[slot] = Some(page);
        }
        Ok(())
    }
}

/// Bytes of device memory that [`Weights::upload`] would use.
pub(super) fn held(
    profile: &DeviceProfile,
    weights: &[Weight],
    storage: &Storage,
    most: Option<u64>,
) -> Result<u64> {
    Ok(held_bytes(&Pages::new(&lengths(weights, storage)?, profile.alignment, most)?))
}

/// More values than any device can store, and few enough that sums of their bytes do not overflow.
const MOST_VALUES: usize = 1 << 40;

/// Bytes of each weight.
fn lengths(weights: &[Weight], storage: &Storage) -> Result<Vec<u64>> {
    let length = |w: &Weight| {
        check(w)?;
        Ok(w.device_len() as u64 * storage.of_weight(w).bytes())
    };
    weights.iter().map(length).collect()
}

/// Checks that `weight` has a shape for each source that fits its layout, and that the shapes differ only in outputs.
fn check(weight: &Weight) -> Result<()> {
    let fits = |shape: &Vec<usize>| {
        matches!(
            (weight.layout, shape.as_slice()),
            (Layout::Vector, [_])
                | (Layout::Linear, [_, _] | [_, _, 1, 1])
                | (Layout::Conv3x3 | Layout::Conv3x3Doubled, [_, _, 3, 3])
        )
    };
    let alike = |shape: &Vec<usize>| shape.get(1) == weight.shapes.first().and_then(|first| first.get(1));
    let shaped = weight.shapes.iter().all(|shape| fits(shape) && alike(shape) && !shape.contains(&0));
    let each = !weight.sources.is_empty() && weight.sources.len() == weight.shapes.len();
    if shaped && each && weight.device_len() <= MOST_VALUES {
        return Ok(());
    }
    Err(Error::usage("a weight has a wrong shape")
        .at(weight.sources.join(" + "))
        .expected(format!("a shape of {:?} for each source", weight.layout))
        .found(format!("{:?}", weight.shapes)))
}

/// Streamed weights need the staging ring as long as they exist.
fn held_bytes(pages: &Pages) -> u64 {
    let streamed = pages.resident < pages.sizes.len();
    pages.device_bytes() + if streamed { staging_ring::ring_bytes(pages.all_bytes()) } else { 0 }
}

/// Why `weight` is faulty.
fn fault(weight: &Weight, source: &dyn WeightSource) -> Error {
    let mut largest = 0.0f32;
    for (name, shape) in weight.sources.iter().zip(&weight.shapes) {
        match source.read(name, shape) {
            Ok(values) => largest = values.iter().fold(largest, |a, b| a.max(b.abs())),
            // This error names the tensor and the value that is not finite.
            Err(e) => return e,
        }
    }
    let expected = match weight.layout {
        Layout::Conv3x3Doubled => "values up to 65504, also in sums of up to four taps",
        _ => "values up to 65504",
    };
    Error::new(ErrorKind::Model, "a weight does not fit f16")
        .at(weight.sources.join(" + "))
        .expected(expected)
        .found(largest.to_string())
        .remedy(Remedy::UseF32)
}
