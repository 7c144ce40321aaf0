//! The steps from a graph to a plan, in their order: fuse, split and lower, find out how long each tensor is
//! needed, give each a place in the arena, bind every dispatch to these places.

use super::{Bound, Dispatch, Plan, PlanOptions, PlanSlot, Region, arena, check, fuse, lower};
use crate::graph::{Graph, Tensor, TensorInfo};
use crate::kernels::{Call, Operand, Stretch};
use crate::{Error, Result};

impl Plan {
    /// Plans `graph` for `options`.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`](crate::ErrorKind::Memory) naming the tensor, if one is larger than the device can
    /// bind; [`ErrorKind::Usage`](crate::ErrorKind::Usage) for
    /// no rows, an alignment that no device has, a tensor of no values or of another graph.
    pub fn new(graph: &Graph, options: &PlanOptions) -> Result<Plan> {
        let options = &check::checked(graph, options)?;
        let fused = fuse::fuse(graph, options);
        let lowered = lower::lower(graph, &fused, options)?;
        check::calls(&lowered.calls, &lowered.sizes, &lowered.stores, options)?;
        let mut lives = lifetimes(graph, &lowered.calls, lowered.sizes.len());
        // Kept inputs stay in their own buffers.
        let is_result = |t: &Tensor| graph.outputs().iter().any(|(_, o)| o == t);
        let mut kept = Vec::new();
        for (_, t) in graph.inputs() {
            if graph.info(*t).kept && !is_result(t) && lives[t.0].take().is_some() {
                kept.push(t.0);
            }
        }
        let requests: Vec<arena::TensorLifetime> = lives
            .iter()
            .zip(&lowered.sizes)
            .filter_map(|(life, (_, bytes))| {
                life.map(|(first, last)| arena::TensorLifetime { bytes: *bytes, first, last })
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
            regions[buf].ok_or_else(|| Error::internal(format!("{} has no memory", lowered.sizes[buf].0)))
        };
        let slot = |(name, t): &(String, Tensor)| -> Result<PlanSlot> {
            let TensorInfo { shape, store, kept, .. } = *graph.info(*t);
            Ok(PlanSlot { name: name.clone(), shape, store, kept, region: region(t.0)? })
        };
        let stretch = |s: Stretch| -> Result<Region> {
            let of = region(s.buf.0)?;
            Ok(Region { offset: of.offset + s.offset, bytes: s.bytes, ..of })
        };
        let bind = |o: &Operand| {
            Ok(match *o {
                Operand::Read(s) if kept.contains(&s.buf.0) => Bound::Kept(stretch(s)?),
                Operand::Read(s) | Operand::Write(s) => Bound::Arena(stretch(s)?),
                Operand::Weight(w) => Bound::Weight(w),
                Operand::Scalars => {
                    return Err(Error::internal("a dispatch of a network reads scalars of a step"));
                }
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
                .map(|input| slot(input).map(|s| PlanSlot { kept: kept.contains(&input.1.0), ..s }))
                .collect::<Result<_>>()?,
            outputs: graph.outputs().iter().map(slot).collect::<Result<_>>()?,
            lower_bound: arena::lower_bound(&requests),
            tensors: lowered.sizes,
            weights: graph.weights().to_vec(),
        })
    }
}

/// The first and last call in which each buffer is needed; None if it is never used. Inputs are needed from the start,
/// outputs to the end.
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
