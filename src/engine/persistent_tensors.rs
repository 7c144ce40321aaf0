//! Results that stay on the device, for other plans to read.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, Weak};

use super::run::to_device;
use super::{Bindings, Engine, Prepared, TENSORS, Upload, buffer, group};
use crate::plan::Slot;
use crate::{Error, Result};

/// Most combinations of rows that stay bound: those of a step, and of the next if they take turns.
pub const MOST_ROWS: usize = 16;

/// What a plan of one row kept, by name.
pub struct Kept(Arc<Vec<(String, wgpu::Buffer)>>);

/// What was kept for each row of a plan, as one buffer for each input, with the bindings to it.
pub struct Rows {
    /// Of each row.
    of: Vec<Weak<Vec<(String, wgpu::Buffer)>>>,
    /// By dispatch.
    groups: HashMap<usize, wgpu::BindGroup>,
}

impl Rows {
    /// The bindings of dispatch `i`.
    pub(super) fn group(&self, i: usize) -> Option<&wgpu::BindGroup> {
        self.groups.get(&i)
    }

    fn is_of(&self, kept: &[&Kept]) -> bool {
        let same = |(a, b): (&Weak<_>, &&Kept)| std::ptr::eq(a.as_ptr(), Arc::as_ptr(&b.0));
        self.of.len() == kept.len() && self.of.iter().zip(kept).all(same)
    }
}

impl Kept {
    /// The results of `prepared`, which has run: buffers that a copy on the device is to fill.
    pub(super) fn room(engine: &Engine, prepared: &Prepared) -> Self {
        let kept = prepared.plan.outputs.iter().filter(|o| o.kept);
        let room = |o: &Slot| (o.name.clone(), buffer(&engine.gpu, "kept", o.region.bytes, TENSORS));
        Self(Arc::new(kept.map(room).collect()))
    }

    /// By name, in the order of the plan's results.
    pub(super) fn buffers(&self) -> &[(String, wgpu::Buffer)] {
        &self.0
    }
}

impl Engine {
    /// Keeps values of one row from the host as if a plan had made them: for what `prepared` takes.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn keep(&self, prepared: &Prepared, values: &[(&str, &[f32])]) -> Result<Kept> {
        let keep = |slot: &Slot| {
            let (_, values) = values
                .iter()
                .find(|(name, _)| *name == slot.name)
                .ok_or_else(|| Error::usage(format!("input {} is missing", slot.name)))?;
            let bytes = to_device(slot, values, 1, prepared.plan.precision())?;
            let kept = buffer(&self.gpu, "kept", bytes.len() as u64, TENSORS);
            self.write(Upload::SetUp, &kept, 0, &bytes);
            Ok((slot.name.clone(), kept))
        };
        let slots = prepared.plan.inputs.iter().filter(|i| i.kept);
        let tensors = self.gpu.checked("keep values", || slots.map(keep).collect::<Result<_>>())??;
        Ok(Kept(Arc::new(tensors)))
    }
}

impl Prepared {
    /// What other plans kept for the rows of this one, put side by side and bound, if this plan reads any. What
    /// has made it must be submitted.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if it is not what the plan reads; the device's.
    pub(super) fn rows(&self, engine: &Engine, kept: &[&Kept]) -> Result<Option<Arc<Rows>>> {
        if !self.plan.inputs.iter().any(|i| i.kept) {
            return Ok(None);
        }
        let mut known = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = known.iter().position(|rows| rows.is_of(kept)) {
            // The last one used stands last.
            let rows = known.remove(at);
            known.push(rows.clone());
            return Ok(Some(rows));
        }
        // What nobody can ask for any more makes room.
        known.retain(|rows| rows.of.iter().all(|of| of.strong_count() > 0));
        if known.len() >= MOST_ROWS {
            known.remove(0);
        }
        let rows = Arc::new(engine.gpu.checked("bind what was kept", || self.side_by_side(engine, kept))??);
        known.push(rows.clone());
        Ok(Some(rows))
    }

    /// What was read last.
    pub(super) fn last_rows(&self) -> Option<Arc<Rows>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).last().cloned()
    }

    fn side_by_side(&self, engine: &Engine, kept: &[&Kept]) -> Result<Rows> {
        use wgpu::BufferUsages as U;
        let gpu = &engine.gpu;
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        let mut buffers = Vec::new();
        for slot in self.plan.inputs.iter().filter(|i| i.kept) {
            let bytes = slot.region.bytes / self.plan.rows as u64;
            let of_row = |row: &&Kept| {
                let tensor = row.0.iter().find(|(n, t)| *n == slot.name && t.size() == bytes);
                tensor.filter(|_| kept.len() == self.plan.rows).map(|(_, t)| t.clone()).ok_or_else(|| {
                    Error::usage(format!("what was kept is no {} of {} rows", slot.name, self.plan.rows))
                })
            };
            let parts: Vec<wgpu::Buffer> = kept.iter().map(of_row).collect::<Result<_>>()?;
            buffers.push(match parts.as_slice() {
                [] => return Err(Error::usage(format!("nothing was kept of {}", slot.name))),
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
        for (i, step) in self.steps.iter().enumerate() {
            if let Bindings::Open(held) = &step.bindings {
                groups.insert(i, group(gpu, &step.pipeline, held, &buffers)?);
            }
        }
        let of = kept.iter().map(|kept| Arc::downgrade(&kept.0)).collect();
        Ok(Rows { of, groups })
    }
}
