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
pub mod split;
pub mod storage;

use std::collections::BTreeMap;

use crate::graph::{Graph, Shape, Store, Tensor, TensorInfo, Weight, WeightId};
use crate::kernels::{Call, Operand, Precision, Stretch, Target, Variant, room};
use crate::{Error, Result};

pub use arena::Region;
pub use storage::Storage;

/// What the planner must know of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Which variants to choose.
    pub target: Target,
    /// Largest stretch of a buffer that can be bound, bytes.
    pub max_binding: u64,
    /// Largest buffer, bytes.
    pub max_buffer: u64,
    /// Places in buffers start on multiples of this, bytes.
    pub alignment: u64,
}

impl Capabilities {
    /// What every WebGPU device offers: 128 MiB bindings, 256 MiB buffers.
    pub fn baseline(target: Target) -> Self {
        Self { target, max_binding: 128 << 20, max_buffer: 256 << 20, alignment: 256 }
    }
}

/// How a plan is made.
#[derive(Debug, Clone)]
pub struct Options {
    /// Rows computed together.
    pub rows: usize,
    /// Storage of activations and weights.
    pub storage: Storage,
    /// The device.
    pub device: Capabilities,
    /// Unused bytes kept behind every tensor; tests fill them with a pattern to catch kernels
    /// that write past their result.
    pub guard: u64,
}

impl Options {
    /// Storage of activations.
    pub fn precision(&self) -> Precision {
        self.storage.precision()
    }
}

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
pub struct Slot {
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
    pub inputs: Vec<Slot>,
    /// Read by the caller after a run, or kept on the device.
    pub outputs: Vec<Slot>,
    /// Largest sum of tensors alive at one time: no arena can be smaller.
    pub lower_bound: u64,
    /// Name and bytes of every tensor, for reports and tests.
    pub tensors: Vec<(String, u64)>,
    /// What [`Bound::Weight`] refers to.
    pub weights: Vec<Weight>,
}

impl Plan {
    /// Plans `graph` for `options`.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`](crate::ErrorKind::Memory) naming the tensor, if one is larger than the device can
    /// bind; [`ErrorKind::Usage`](crate::ErrorKind::Usage) for
    /// no rows, an alignment that no device has, a tensor of no values or of another graph.
    pub fn new(graph: &Graph, options: &Options) -> Result<Plan> {
        let options = &check::checked(graph, options)?;
        let fused = fuse::fuse(graph, options);
        let lowered = lower::lower(graph, &fused, options)?;
        check::calls(&lowered, options)?;
        let mut lives = lifetimes(graph, &lowered.calls, lowered.sizes.len());
        // What other plans kept stays where it is.
        let is_result = |t: &Tensor| graph.outputs().iter().any(|(_, o)| o == t);
        let mut kept = Vec::new();
        for (_, t) in graph.inputs() {
            if graph.info(*t).kept && !is_result(t) && lives[t.0].take().is_some() {
                kept.push(t.0);
            }
        }
        let requests: Vec<arena::Request> = lives
            .iter()
            .zip(&lowered.sizes)
            .filter_map(|(life, (_, bytes))| {
                life.map(|(first, last)| arena::Request { bytes: *bytes, first, last })
            })
            .collect();
        let placed =
            arena::place(&requests, options.device.alignment, options.guard, options.device.max_buffer);
        let mut at = placed.regions.iter();
        let mut regions: Vec<Option<Region>> =
            lives.iter().map(|l| l.and_then(|_| at.next().copied())).collect();
        for (slab, buf) in kept.iter().enumerate() {
            regions[*buf] = Some(Region { slab, offset: 0, bytes: lowered.sizes[*buf].1 });
        }
        let region = |buf: usize| {
            regions[buf].ok_or_else(|| Error::internal(format!("{} has no place", lowered.sizes[buf].0)))
        };
        let slot = |(name, t): &(String, Tensor)| -> Result<Slot> {
            let TensorInfo { shape, store, kept, .. } = *graph.info(*t);
            Ok(Slot { name: name.clone(), shape, store, kept, region: region(t.0)? })
        };
        let stretch = |s: Stretch| -> Result<Region> {
            let whole = region(s.buf.0)?;
            Ok(Region { offset: whole.offset + s.offset, bytes: s.bytes, ..whole })
        };
        let bind = |o: &Operand| {
            Ok(match *o {
                Operand::Read(s) if kept.contains(&s.buf.0) => Bound::Kept(stretch(s)?),
                Operand::Read(s) | Operand::Write(s) => Bound::Arena(stretch(s)?),
                Operand::Weight(w) => Bound::Weight(w),
                Operand::Scalars => return Err(Error::internal("a network has no steps")),
                Operand::Unused => Bound::Unused,
            })
        };
        let written = |o: &Operand| match *o {
            Operand::Write(s) => lowered.stores[s.buf.0].map(|store| Ok((stretch(s)?, store))),
            _ => None,
        };
        let dispatch = |c: &Call| -> Result<Dispatch> {
            Ok(Dispatch {
                variant: c.variant.clone(),
                params: c.params.clone(),
                bindings: c.operands.iter().map(bind).collect::<Result<_>>()?,
                written: c.operands.iter().filter_map(written).collect::<Result<_>>()?,
                groups: c.groups,
                path: c.path.clone(),
                flops: c.flops,
            })
        };
        Ok(Plan {
            rows: options.rows,
            storage: options.storage.clone(),
            dispatches: lowered.calls.iter().map(dispatch).collect::<Result<_>>()?,
            slabs: placed.slabs,
            inputs: graph
                .inputs()
                .iter()
                .filter(|(_, t)| regions[t.0].is_some())
                .map(|input| slot(input).map(|s| Slot { kept: kept.contains(&input.1.0), ..s }))
                .collect::<Result<_>>()?,
            outputs: graph.outputs().iter().map(slot).collect::<Result<_>>()?,
            lower_bound: arena::lower_bound(&requests),
            tensors: lowered.sizes,
            weights: graph.weights().to_vec(),
        })
    }

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
    pub fn read_back(&self) -> impl Iterator<Item = &Slot> {
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
}

/// The sum, or the largest number where that is more.
fn sum(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, u64::saturating_add)
}

/// Bytes of a tensor for `rows` rows; `u64::MAX` where there are more.
pub fn tensor_bytes(info: &TensorInfo, rows: usize, precision: Precision) -> u64 {
    let positions = rows.saturating_mul(info.shape.positions()) as u64;
    let (quads, channels) = (info.shape.quads() as u64, info.shape.channels as u64);
    match info.store {
        Store::Elem => positions.saturating_mul(quads).saturating_mul(4 * precision.bytes()),
        Store::F32 => positions.saturating_mul(quads).saturating_mul(16),
        Store::Plain => positions.saturating_mul(channels).saturating_mul(4),
    }
}

/// First and last call in which each buffer holds something; None for those never used. Inputs
/// live from the start, outputs to the end.
fn lifetimes(graph: &Graph, calls: &[Call], count: usize) -> Vec<Option<(usize, usize)>> {
    let mut lives: Vec<Option<(usize, usize)>> = vec![None; count];
    let mut touch = |buf: usize, at: usize| {
        let life = lives[buf].get_or_insert((at, at));
        *life = (life.0.min(at), life.1.max(at));
    };
    for (at, call) in calls.iter().enumerate() {
        for operand in &call.operands {
            if let Operand::Read(s) | Operand::Write(s) = operand {
                touch(s.buf.0, at);
            }
        }
    }
    for (_, t) in graph.outputs() {
        touch(t.0, calls.len());
    }
    for (_, t) in graph.inputs() {
        if let Some(life) = &mut lives[t.0] {
            life.0 = 0;
        }
    }
    lives
}
