//! Latents on the host, in f32: the reference for the device, and the latents of custom networks.

use super::Latent;
use super::value::{CellMask, Fault, Latents, Slots, Value};
use crate::Result;

/// The operations on latents in host memory.
#[derive(Debug, Default)]
pub struct HostLatents {
    held: Slots<Latent>,
    step: usize,
    evaluations: u64,
    fault: Option<Fault>,
}

impl HostLatents {
    /// Stores a latent.
    pub fn put(&mut self, latent: Latent) -> Value {
        let shape = latent.shape();
        Value::of(self.held.put(latent), shape)
    }

    /// Records a fault if the prediction is not finite.
    pub fn watch(&mut self, prediction: &Latent) {
        if !prediction.is_finite() {
            self.fault.get_or_insert(Fault::Prediction(self.step));
        }
    }

    /// The values of a sum: added in the order of its terms, each coefficient rounded to f32 first.
    pub fn form(&self, value: &Value) -> Result<Latent> {
        let [batch, channels, height, width] = value.shape();
        let mut sum: Option<Latent> = None;
        for (coefficient, slot) in value.terms()? {
            let (a, latent) = (*coefficient as f32, self.held.get(slot)?);
            match &mut sum {
                None if a == 1.0 => sum = Some(latent.clone()),
                None => sum = Some(latent.scaled(a)),
                Some(sum) => {
                    sum.data_mut().iter_mut().zip(latent.data()).for_each(|(s, v)| *s += a * v);
                }
            }
        }
        Ok(sum.unwrap_or_else(|| Latent::zeros(batch, channels, height, width)))
    }
}

impl Latents for HostLatents {
    fn bring_with(&mut self, _shape: [usize; 4], make: &mut dyn FnMut() -> Latent) -> Result<Value> {
        Ok(self.put(make()))
    }

    fn store(&mut self, value: &Value) -> Result<Value> {
        if value.stored().is_some() {
            return Ok(value.clone());
        }
        let latent = self.form(value)?;
        if !latent.is_finite() {
            self.fault.get_or_insert(Fault::Latent(self.step));
        }
        Ok(self.put(latent))
    }

    fn bring_mask_with(&mut self, _shape: [usize; 4], make: &mut dyn FnMut() -> Latent) -> Result<CellMask> {
        let mask = make();
        let (masks, size) = (mask.batch(), (mask.height(), mask.width()));
        Ok(CellMask { slot: self.held.put(mask), masks, size })
    }

    fn blend(&mut self, mask: &CellMask, drawn: &Value, kept: &Value) -> Result<Value> {
        drawn.plus(1.0, kept).terms()?;
        let (mut out, kept) = (self.form(drawn)?, self.form(kept)?);
        let weights = self.held.get(&mask.slot)?;
        let plane = (mask.size.0 * mask.size.1).max(1);
        for image in 0..out.batch() {
            let weights = weights.image(if mask.masks == 1 { 0 } else { image });
            let kept = kept.image(image).chunks_exact(plane);
            for (out, kept) in out.image_mut(image).chunks_exact_mut(plane).zip(kept) {
                for ((v, k), m) in out.iter_mut().zip(kept).zip(weights) {
                    *v = *v * m + k * (1.0 - m);
                }
            }
        }
        Ok(self.put(out))
    }

    fn error_norm(&mut self, values: [&Value; 3], absolute: f32, relative: f32) -> Result<f64> {
        let [low, high, before] = [self.form(values[0])?, self.form(values[1])?, self.form(values[2])?];
        let tolerated = low.zip(&before, |l, b| absolute.max(relative * l.abs().max(b.abs())))?;
        let off = low.zip(&high, |l, h| l - h)?.zip(&tolerated, |d, t| d / t)?;
        let squares: f64 = off.data().iter().map(|&v| f64::from(v).powi(2)).sum();
        Ok((squares / off.data().len().max(1) as f64).sqrt())
    }

    fn read(&mut self, value: &Value) -> Result<Latent> {
        self.form(value)
    }

    fn step(&mut self, step: usize) {
        self.step = step;
        self.held.collect(drop);
    }

    fn submit(&mut self) -> Result<u64> {
        self.evaluations += 1;
        Ok(self.evaluations)
    }

    fn done(&mut self, _wanted: u64) -> Result<u64> {
        Ok(self.evaluations)
    }

    fn fault(&self) -> Option<Fault> {
        self.fault
    }
}
