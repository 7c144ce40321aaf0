//! From a graph to a list of dispatches with their regions of memory: pure arithmetic, without a GPU.
//!
//! [`Plan::new`] fuses nodes ([`fuse`]), splits tensors that are too large to be bound ([`split`]), chooses kernels and
//! their variants ([`lower`]), and places the tensors in an arena ([`arena`]). The exact bytes and dispatches are known
//! before anything runs; [`chunk`] derives from them how many rows a call computes.

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

pub use arena::Region;
pub use options::{PlanOptions, tensor_bytes};
pub use storage::Storage;

/// What a binding of a dispatch refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// A region of the arena.
    Arena(Region),
    /// A region of a kept tensor of other plans, for all rows; its slab is the number among the kept inputs.
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
    /// The tensors that it writes, and how they are stored; without temporaries.
    pub written: Vec<(Region, Store)>,
    /// Workgroups.
    pub groups: [u32; 3],
    /// The layer's path.
    pub path: String,
    /// Floating-point operations; a multiply-add is two.
    pub flops: u64,
}

/// A named input or output, and its region of memory.
#[derive(Debug, Clone)]
pub struct PlanSlot {
    /// Its name in the graph.
    pub name: String,
    /// Shape in one row.
    pub shape: Shape,
    /// Storage.
    pub store: Store,
    /// Whether it stays on the device between runs: an input that another plan has kept, or a result that is kept for
    /// other plans.
    pub kept: bool,
    /// The memory of all rows, row-major: in the arena; or for a kept input in its own buffer, and the slab is the number
    /// among the kept inputs.
    pub region: Region,
}

/// A network planned for a number of rows on a kind of device.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Rows computed together.
    pub rows: usize,
    /// Storage of activations and weights.
    pub storage: Storage,
    /// In the order in which they run.
    pub dispatches: Vec<Dispatch>,
    /// Sizes of the arena's buffers, bytes.
    pub slabs: Vec<u64>,
    /// Filled by the caller before a run.
    pub inputs: Vec<PlanSlot>,
    /// Read back by the caller after a run, or kept on the device.
    pub outputs: Vec<PlanSlot>,
    /// Largest sum of tensors that are needed at the same time: no arena can be smaller.
    pub lower_bound: u64,
    /// Name and bytes of every tensor, for reports and tests.
    pub tensors: Vec<(String, u64)>,
    /// What [`Bound::Weight`] refers to.
    pub weights: Vec<Weight>,
}

impl Plan {
    /// Enlarges the sizes of an arena's buffers so that this plan fits too.
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

    /// The region of the input or result of this name.
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

    /// Bytes of the kept inputs of all rows, if they have to be joined: with one row they are not copied.
    pub fn kept_input_bytes(&self) -> u64 {
        let kept = self.inputs.iter().filter(|i| i.kept).map(|i| i.region.bytes);
        if self.rows == 1 { 0 } else { sum(kept) }
    }

    /// Bytes of the parameters of the dispatches, which are written through a copy.
    pub fn params_bytes(&self, alignment: u64) -> u64 {
        sum(self.dispatches.iter().map(|d| room(d.params.len(), alignment))).saturating_mul(2)
    }

    /// Bytes that a run needs beside the arena: parameters, inputs and results.
    pub fn side_bytes(&self, alignment: u64) -> u64 {
        let inputs = self.inputs.iter().filter(|i| !i.kept);
        let slots = inputs.chain(self.read_back()).map(|s| s.region.bytes);
        sum(slots.chain([self.params_bytes(alignment)]))
    }

    /// Bytes of the bindings of each dispatch, added up: what they read and write, including weights.
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

    /// Floating-point operations of all dispatches; a multiply-add is two.
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

    /// Checks that all regions are within the buffers: a caller may have changed the fields.
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |at: &str| Err(Error::usage("a plan is inconsistent").at(at));
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

/// The sum; `u64::MAX` if it overflows.
fn sum(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, u64::saturating_add)
}
