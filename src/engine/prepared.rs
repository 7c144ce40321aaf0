//! A plan on the device: its pipelines, its memory, and the buffers that each dispatch is bound to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::arena::Arena;
use super::buffers::{TENSORS, buffer, entry};
use super::persistent_tensors::{KeptTensors, MOST_ROWS, RowBindings};
use super::submission_size::Budget;
use crate::gpu::Gpu;
use crate::plan::{Plan, PlanSlot, Region};
use crate::{Error, Result};

/// A plan with its memory and bindings on the device.
pub struct Prepared {
    plan: Arc<Plan>,
    arena: Arena,
    dispatches: Vec<PreparedDispatch>,
    budget: Budget,
    /// Bindings to the persistent tensors of rows, the last used ones last.
    rows: Mutex<Vec<Arc<RowBindings>>>,
    /// Held while the plan runs by itself, since a run needs the arena to itself.
    running: Mutex<()>,
}

/// A dispatch with its pipeline and bindings.
pub(super) struct PreparedDispatch {
    pub pipeline: wgpu::ComputePipeline,
    pub bindings: Bindings,
    /// Pages of streamed weights that must be uploaded before it.
    pub streamed_pages: Vec<usize>,
}

/// The bindings of a dispatch.
pub(super) enum Bindings {
    /// The same in every run.
    Fixed(wgpu::BindGroup),
    /// Among them are persistent tensors of other plans, which are bound for each run: by binding number.
    PerRun(Vec<Bindable>),
}

/// What a binding holds.
pub(super) enum Bindable {
    /// Buffer, offset and bytes.
    Buffer(wgpu::Buffer, u64, u64),
    /// A region of a persistent tensor; its slab is the tensor's number.
    Kept(Region),
}

impl Prepared {
    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(super) fn new(
        budget: Budget,
        plan: Arc<Plan>,
        arena: Arena,
        dispatches: Vec<PreparedDispatch>,
    ) -> Self {
        Self { plan, arena, dispatches, budget, rows: Mutex::default(), running: Mutex::default() }
    }

    /// The work of one submission.
    pub(super) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// The buffers of the arena.
    pub(super) fn slabs(&self) -> &[wgpu::Buffer] {
        self.arena.slabs()
    }

    /// The buffer of a region of the arena.
    pub(crate) fn slab(&self, region: Region) -> &wgpu::Buffer {
        &self.arena.slabs()[region.slab]
    }

    /// Waits until the plan does not run by itself.
    pub(super) fn alone(&self) -> MutexGuard<'_, ()> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pages of streamed weights that dispatch `i` needs.
    pub(super) fn pages(&self, i: usize) -> &[usize] {
        self.dispatches.get(i).map_or(&[], |d| &d.streamed_pages)
    }

    /// Adds dispatch `i` to `pass`, reading the persistent tensors of `rows`.
    pub(super) fn encode(
        &self,
        pass: &mut wgpu::ComputePass<'_>,
        i: usize,
        rows: Option<&Arc<RowBindings>>,
    ) -> Result<()> {
        let [x, y, z] = self.plan.dispatches[i].groups;
        let dispatch = &self.dispatches[i];
        let group = match &dispatch.bindings {
            Bindings::Fixed(group) => Some(group),
            Bindings::PerRun(_) => rows.and_then(|rows| rows.group(i)),
        };
        let missing =
            || Error::usage(format!("{} reads a tensor that no plan has kept", self.plan.dispatches[i].path));
        pass.set_pipeline(&dispatch.pipeline);
        pass.set_bind_group(0, group.ok_or_else(missing)?, &[]);
        pass.dispatch_workgroups(x, y, z);
        Ok(())
    }

    /// New buffers for the persistent results of the plan, to be filled by copies on the device.
    pub(super) fn persistent_results(&self, gpu: &Gpu) -> KeptTensors {
        let kept = self.plan.outputs.iter().filter(|o| o.kept);
        let room = |o: &PlanSlot| (o.name.clone(), buffer(gpu, "kept", o.region.bytes, TENSORS));
        KeptTensors::new(kept.map(room).collect())
    }

    /// The persistent tensors of the rows of this plan, joined and bound, if the plan reads any. The work that has
    /// made them must be submitted.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if they are not what the plan reads; an error of the device.
    pub(super) fn rows(&self, gpu: &Gpu, kept: &[&KeptTensors]) -> Result<Option<Arc<RowBindings>>> {
        if !self.plan.inputs.iter().any(|i| i.kept) {
            return Ok(None);
        }
        let mut known = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = known.iter().position(|rows| rows.is_of(kept)) {
            let rows = known.remove(at);
            known.push(rows.clone());
            return Ok(Some(rows));
        }
        // Bindings to tensors that no longer exist are dropped first.
        known.retain(|rows| rows.is_alive());
        if known.len() >= MOST_ROWS {
            known.remove(0);
        }
        let rows = Arc::new(gpu.checked("bind kept tensors", || self.bind_rows(gpu, kept))??);
        known.push(rows.clone());
        Ok(Some(rows))
    }

    /// The bindings that were used last.
    pub(super) fn last_rows(&self) -> Option<Arc<RowBindings>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).last().cloned()
    }

    /// Copies the persistent tensors of all rows into one buffer for each input, and binds them.
    fn bind_rows(&self, gpu: &Gpu, kept: &[&KeptTensors]) -> Result<RowBindings> {
        use wgpu::BufferUsages as U;
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        let mut buffers = Vec::new();
        for slot in self.plan.inputs.iter().filter(|i| i.kept) {
            let bytes = slot.region.bytes / self.plan.rows as u64;
            let of_row = |row: &&KeptTensors| {
                let tensor = row.buffers().iter().find(|(n, t)| *n == slot.name && t.size() == bytes);
                tensor.filter(|_| kept.len() == self.plan.rows).map(|(_, t)| t.clone()).ok_or_else(|| {
                    Error::usage(format!(
                        "the kept tensors do not fit the input {} of {} rows",
                        slot.name, self.plan.rows
                    ))
                })
            };
            let parts: Vec<wgpu::Buffer> = kept.iter().map(of_row).collect::<Result<_>>()?;
            buffers.push(match parts.as_slice() {
                [] => return Err(Error::usage(format!("no tensor was kept for the input {}", slot.name))),
                [one] => one.clone(),
                parts => {
                    let all = buffer(gpu, "kept", slot.region.bytes, U::COPY_DST | U::STORAGE);
                    for (row, from) in (0..).zip(parts) {
                        encoder.copy_buffer_to_buffer(from, 0, &all, row * bytes, bytes);
                    }
                    all
                }
            });
        }
        gpu.queue().submit([encoder.finish()]);
        let mut groups = HashMap::new();
        for (i, dispatch) in self.dispatches.iter().enumerate() {
            if let Bindings::PerRun(held) = &dispatch.bindings {
                groups.insert(i, group(gpu, &dispatch.pipeline, held, &buffers)?);
            }
        }
        Ok(RowBindings::new(kept, groups))
    }
}

/// A bind group of `held`, by binding number; `kept` are the persistent tensors of other plans.
pub(super) fn group(
    gpu: &Gpu,
    pipeline: &wgpu::ComputePipeline,
    held: &[Bindable],
    kept: &[wgpu::Buffer],
) -> Result<wgpu::BindGroup> {
    let of = |(number, bindable): (usize, &'_ Bindable)| -> Result<(u32, wgpu::Buffer, u64, u64)> {
        let number = number as u32;
        Ok(match bindable {
            Bindable::Buffer(buffer, offset, size) => (number, buffer.clone(), *offset, *size),
            Bindable::Kept(region) => {
                let missing = || Error::usage("a kept tensor is missing");
                (number, kept.get(region.slab).ok_or_else(missing)?.clone(), region.offset, region.bytes)
            }
        })
    };
    let held: Vec<_> = held.iter().enumerate().map(of).collect::<Result<_>>()?;
    let entries: Vec<_> =
        held.iter().map(|(n, buffer, offset, size)| entry(*n, buffer, *offset, *size)).collect();
    Ok(gpu.device().create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some("plan"),
        layout: &pipeline.get_bind_group_layout(0),
        entries: &entries,
    }))
}
