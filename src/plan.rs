//! From a graph to a list of dispatches with places in memory: pure arithmetic, no GPU.
//!
//! [`Plan::new`] fuses ([`fuse`]), splits what is too large to be bound ([`split`]), chooses kernels
//! and their variants ([`lower`]) and lays the tensors into an arena ([`arena`]). The exact bytes and dispatches are known before anything
//! runs; [`chunk`] turns them into rows per call.

pub mod arena;
mod check;
pub mod chunk;
pub mod fuse;
pub mod lower;
mod options;
mod passes;
pub mod split;
pub mod storage;

use std::collections::BTreeMap;

use crate::graph::{Shape, Store, TensorInfo, Weight, WeightId};
use crate::kernels::{MAX_GROUPS, Precision, Variant, room};
use crate::{Error, Result};

pub use crate::gpu::capabilities::Capabilities;
pub use arena::Region;
pub use options::{PlanOptions, tensor_bytes};
pub use storage::Storage;

/// What a dispatch's binding holds once everything has its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// A stretch of the arena.
    Arena(Region),
    /// A stretch of what another plan kept, of all rows; the slab is the number among inputs of that kind.
    Kept(Region),
    /// A weight.
    Weight(WeightId),
    /// Nothing: any buffer will do.
    Unused,
}

/// One dispatch, ready for the engine.
#[derive(Debug, Clone)]
pub struct Dispatch {
    /// What is run.
    pub variant: Variant,
    /// The uniform parameters, binding 0.
    pub params: Vec<u8>,
    /// Bindings from 1 on.
    pub bindings: Vec<Bound>,
    /// What it writes of tensors, and how that is stored; temporaries are not among it.
    pub written: Vec<(Region, Store)>,
    /// Workgroups.
    pub groups: [u32; 3],
    /// The layer's path.
    pub path: String,
    /// Multiply-adds counted twice.
    pub flops: u64,
}

/// A named input or output and its place.
#[derive(Debug, Clone)]
pub struct PlanSlot {
    /// The graph's name for it.
    pub name: String,
    /// Shape in one row.
    pub shape: Shape,
    /// Storage.
    pub store: Store,
    /// Whether it stays on the device from one run to another: an input that another plan has kept, a result that
    /// is kept for others.
    pub kept: bool,
    /// Place of all rows, row-major: in the arena, or for a kept input in a buffer of its own, whose number among
    /// such is the slab.
    pub region: Region,
}

/// A network made ready for a number of rows on a kind of device.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Rows computed together.
    pub rows: usize,
    /// Storage of activations and weights.
    pub storage: Storage,
    /// In order.
    pub dispatches: Vec<Dispatch>,
    /// Sizes of the arena's buffers, bytes.
    pub slabs: Vec<u64>,
    /// Filled by the caller before a run.
    pub inputs: Vec<PlanSlot>,
    /// Read by the caller after a run, or kept on the device.
    pub outputs: Vec<PlanSlot>,
    /// Largest sum of tensors alive at one time: no arena can be smaller.
    pub lower_bound: u64,
    /// Name and bytes of every tensor, for reports and tests.
    pub tensors: Vec<(String, u64)>,
    /// What [`Bound::Weight`] refers to.
    pub weights: Vec<Weight>,
}

impl Plan {
    /// Lets an arena of buffers of these sizes hold this plan too.
    pub fn enlarge(&self, slabs: &mut Vec<u64>) {
        slabs.resize(slabs.len().max(self.slabs.len()), 0);
        slabs.iter_mut().zip(&self.slabs).for_each(|(size, wanted)| *size = (*size).max(*wanted));
    }

    /// Storage of activations.
    pub fn precision(&self) -> Precision {
        self.storage.precision()
    }

    /// Bytes of the arena.
    pub fn arena_bytes(&self) -> u64 {
        sum(self.slabs.iter().copied())
    }

    /// Results that are read back.
    pub fn read_back(&self) -> impl Iterator<Item = &PlanSlot> {
        self.outputs.iter().filter(|o| !o.kept)
    }

    /// The place of the input or result of that name.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if there is none.
    pub fn slot(&self, name: &str) -> Result<Region> {
        let slot = self.inputs.iter().chain(&self.outputs).find(|slot| slot.name == name);
        Ok(slot.ok_or_else(|| Error::usage(format!("the network has no {name}")))?.region)
    }

    /// Bytes of the results that stay on the device.
    pub fn kept_bytes(&self) -> u64 {
        sum(self.outputs.iter().filter(|o| o.kept).map(|o| o.region.bytes))
    }

    /// Bytes of what other plans kept for all rows, where that has to be put side by side.
    pub fn kept_input_bytes(&self) -> u64 {
        let kept = self.inputs.iter().filter(|i| i.kept).map(|i| i.region.bytes);
        if self.rows == 1 { 0 } else { sum(kept) }
    }

    /// Bytes of the dispatches' parameters, which are written through a copy.
    pub fn params_bytes(&self, alignment: u64) -> u64 {
        sum(self.dispatches.iter().map(|d| room(d.params.len(), alignment))).saturating_mul(2)
    }

    /// Bytes that a run takes beside the arena: parameters, and what goes in and comes out.
    pub fn side_bytes(&self, alignment: u64) -> u64 {
        let inputs = self.inputs.iter().filter(|i| !i.kept);
        let slots = inputs.chain(self.read_back()).map(|s| s.region.bytes);
        sum(slots.chain([self.params_bytes(alignment)]))
    }

    /// Bytes that the dispatches are bound to, each for itself: what they read and write, weights included.
    pub fn bound_bytes(&self) -> u64 {
        let of = |bound: &Bound| match *bound {
            Bound::Arena(region) | Bound::Kept(region) => region.bytes,
            Bound::Weight(id) => self.weights.get(id.0).map_or(0, |weight| {
                (weight.device_len() as u64).saturating_mul(self.storage.of_weight(weight).bytes())
            }),
            Bound::Unused => 0,
        };
        sum(self.dispatches.iter().flat_map(|d| &d.bindings).map(of))
    }

    /// Multiply-adds counted twice, all dispatches.
    pub fn flops(&self) -> u64 {
        sum(self.dispatches.iter().map(|d| d.flops))
    }

    /// Dispatches of each kernel variant.
    pub fn variants(&self) -> BTreeMap<String, usize> {
        let mut count = BTreeMap::new();
        for d in &self.dispatches {
            *count.entry(d.variant.to_string()).or_default() += 1;
        }
        count
    }

    /// Whether all of its parts are within its buffers: its fields may be anybody's.
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |at: &str| Err(Error::usage("a plan contradicts itself").at(at));
        if self.rows == 0 {
            return wrong("rows");
        }
        let within = |r: &Region| {
            let end = r.offset.checked_add(r.bytes);
            r.bytes > 0 && self.slabs.get(r.slab).is_some_and(|size| end.is_some_and(|end| end <= *size))
        };
        for dispatch in &self.dispatches {
            let bound = |bound: &Bound| match bound {
                Bound::Arena(region) => within(region),
                Bound::Weight(id) => id.0 < self.weights.len(),
                Bound::Kept(_) | Bound::Unused => true,
            };
            let written = dispatch.written.iter().all(|(region, _)| within(region));
            let groups = dispatch.groups.iter().all(|n| *n <= MAX_GROUPS);
            if !dispatch.bindings.iter().all(bound) || !written || !groups {
                return wrong(&dispatch.path);
            }
        }
        let holds = |slot: &PlanSlot| {
            let PlanSlot { shape, store, .. } = *slot;
            let info = TensorInfo { shape, store, path: String::new(), slice: None, kept: slot.kept };
            tensor_bytes(&info, self.rows, self.precision()) <= slot.region.bytes
        };
        for slot in self.inputs.iter().chain(&self.outputs) {
            let kept_input = slot.kept && self.inputs.iter().any(|input| std::ptr::eq(input, slot));
            if !holds(slot) || !(kept_input || within(&slot.region)) {
                return wrong(&slot.name);
            }
        }
        Ok(())
    }
}

/// The sum, or the largest number where that is more.
fn sum(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, u64::saturating_add)
}
