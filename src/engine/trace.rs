//! Finds the first result of a run that is not finite: each dispatch is submitted alone, and its results are read back
//! before the next.

use std::sync::atomic::Ordering;

use super::buffers::read_buffer;
use super::{Engine, Prepared};
use crate::graph::Store;
use crate::kernels::Precision;
use crate::{Error, ErrorKind, Remedy, Result};

impl Engine {
    /// Turns on or off that runs check the result of every layer, and end at the first that is not finite, with an
    /// [`ErrorKind::NonFinite`] that names the layer. The results are the same; it takes many times as long, since the
    /// host waits for each dispatch.
    pub fn trace_nonfinite(&self, on: bool) {
        self.tracing.store(on, Ordering::Relaxed);
    }

    pub(super) fn is_tracing(&self) -> bool {
        self.tracing.load(Ordering::Relaxed)
    }

    /// Checks the results of dispatch `i`, which was submitted.
    pub(super) fn look_at_results(&self, prepared: &Prepared, i: usize) -> Result<()> {
        let (plan, dispatch) = (prepared.plan(), &prepared.plan().dispatches[i]);
        for (region, store) in &dispatch.written {
            let slab = prepared.slab(*region);
            let words = read_buffer(&self.gpu, slab, region.offset, region.bytes)?;
            let halves = *store == Store::Elem && plan.precision() == Precision::F16;
            let values: Vec<f32> = match halves {
                true => bytemuck::cast_slice::<u32, half::f16>(&words).iter().map(|v| v.to_f32()).collect(),
                false => words.into_iter().map(f32::from_bits).collect(),
            };
            let Some(found) = not_finite(&values) else { continue };
            let at = format!(
                "{}, dispatch {} of {}: {}",
                dispatch.path,
                i + 1,
                plan.dispatches.len(),
                dispatch.variant
            );
            let error =
                Error::new(ErrorKind::NonFinite, "a layer's result is not finite").at(at).found(found);
            return Err(match halves {
                true => error.expected("values up to 65504, where f16 ends").remedy(Remedy::UseF32),
                false => {
                    error.hint("the results of all layers before it are finite: check the weights of this layer, and its LoRAs")
                }
            });
        }
        Ok(())
    }
}

/// Checks an input of a run.
pub(super) fn input(name: &str, values: &[f32]) -> Result<()> {
    match not_finite(values) {
        None => Ok(()),
        Some(found) => Err(Error::new(ErrorKind::NonFinite, "an input of the network is not finite")
            .at(format!("input {name}"))
            .found(found)
            .hint("it became so in the step before: lower the CFG scale")),
    }
}

/// The first value that is not finite, its position, and how many there are.
fn not_finite(values: &[f32]) -> Option<String> {
    let at = values.iter().position(|v| !v.is_finite())?;
    let count = values.iter().filter(|v| !v.is_finite()).count();
    Some(format!("{} at element {at}, {count} of {} in all", values[at], values.len()))
}
