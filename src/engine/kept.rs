//! Results that stay on the device, for other plans to read.

use std::sync::atomic::AtomicBool;

use super::run::to_device;
use super::{Engine, Prepared, Source, Weights, buffer, wait};
use crate::plan::Slot;
use crate::{Error, Result};

/// What a plan of one row kept, by name.
pub struct Kept {
    tensors: Vec<(String, wgpu::Buffer)>,
}

impl Engine {
    /// Runs a plan of one row whose results are all kept. Weights may take turns, as in
    /// [`run_in_turn`](Self::run_in_turn).
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_and_keep(
        &self,
        prepared: &Prepared,
        weights: (&Weights, &dyn Source),
        inputs: &[(&str, &[f32])],
        cancel: &AtomicBool,
    ) -> Result<Kept> {
        use wgpu::BufferUsages as U;
        self.run_in_turn(prepared, weights, inputs, cancel)?;
        self.gpu.checked("keep results", || {
            let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
            let mut tensors = Vec::new();
            for o in prepared.plan.outputs.iter().filter(|o| o.kept) {
                let kept = buffer(&self.gpu, "kept", o.region.bytes, U::COPY_SRC | U::COPY_DST);
                let slab = &prepared.arena.slabs[o.region.slab];
                encoder.copy_buffer_to_buffer(slab, o.region.offset, &kept, 0, o.region.bytes);
                tensors.push((o.name.clone(), kept));
            }
            let index = self.gpu.queue().submit([encoder.finish()]);
            // Until then the arena cannot leave, for which others may have no room.
            wait(&self.gpu, index)?;
            Ok(Kept { tensors })
        })?
    }

    /// Keeps values of one row from the host as if a plan had made them: for what `prepared` takes.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn keep(&self, prepared: &Prepared, values: &[(&str, &[f32])]) -> Result<Kept> {
        use wgpu::BufferUsages as U;
        let keep = |slot: &Slot| {
            let (_, values) = values
                .iter()
                .find(|(name, _)| *name == slot.name)
                .ok_or_else(|| Error::internal(format!("input {} is missing", slot.name)))?;
            let bytes = to_device(slot, values, 1, prepared.plan.precision())?;
            let kept = buffer(&self.gpu, "kept", bytes.len() as u64, U::COPY_SRC | U::COPY_DST);
            self.gpu.queue().write_buffer(&kept, 0, &bytes);
            Ok((slot.name.clone(), kept))
        };
        let slots = prepared.plan.inputs.iter().filter(|i| i.kept);
        let tensors = self.gpu.checked("keep values", || slots.map(keep).collect::<Result<_>>())??;
        Ok(Kept { tensors })
    }

    /// Runs a plan with inputs that other plans kept, one [`Kept`] a row, beside those from the
    /// host. With `turns`, weights and where they come from, they may take turns.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_on_kept(
        &self,
        prepared: &Prepared,
        turns: Option<(&Weights, &dyn Source)>,
        inputs: &[(&str, &[f32])],
        kept: &[&Kept],
        cancel: &AtomicBool,
    ) -> Result<Vec<(String, Vec<f32>)>> {
        let results = self.run_with(prepared, turns, (inputs, kept), cancel)?;
        if let Some((weights, source)) = turns {
            weights.check_turns(&self.on_device(), source)?;
        }
        Ok(results)
    }
}

impl Prepared {
    /// Brings what other plans kept to the rows of this one.
    pub(super) fn bring(&self, encoder: &mut wgpu::CommandEncoder, kept: &[&Kept]) -> Result<()> {
        for slot in self.plan.inputs.iter().filter(|i| i.kept) {
            let bytes = slot.region.bytes / self.plan.rows as u64;
            let mut at = slot.region.offset;
            for row in kept {
                let tensor = row.tensors.iter().find(|(n, t)| *n == slot.name && t.size() == bytes);
                let (_, from) = tensor.filter(|_| kept.len() == self.plan.rows).ok_or_else(|| {
                    Error::internal(format!("what was kept is no {} of {} rows", slot.name, self.plan.rows))
                })?;
                encoder.copy_buffer_to_buffer(from, 0, &self.arena.slabs[slot.region.slab], at, bytes);
                at += bytes;
            }
        }
        Ok(())
    }
}
