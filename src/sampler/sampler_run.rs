//! A run as a sampler's function sees it: it evaluates the model, and reports each step to the caller.

use std::cell::RefCell;
use std::collections::VecDeque;

use super::model::same_shape;
use super::step::slope;
use super::{Predicted, Predictor, SampleOptions};
use crate::latent::value::Fault;
use crate::latent::{Latent, Latents, Value};
use crate::{Error, ErrorKind, Remedy, Result};

/// A step of a run, reported when it has been evaluated. On a device later steps may have been submitted by then; the
/// values read here are still those of this step.
pub struct Step<'a> {
    /// From 0.
    pub index: usize,
    /// Number of steps of the run; an estimate for a sampler that chooses its steps adaptively.
    pub total: usize,
    /// The noise level σ of `x`.
    pub sigma: f32,
    x: &'a Value,
    denoised: &'a Value,
    latents: RefCell<&'a mut dyn Latents>,
}

impl Step<'_> {
    /// The noisy latent, read back if it is on a device.
    ///
    /// # Errors
    /// An error of the device.
    pub fn x(&self) -> Result<Latent> {
        self.latents.borrow_mut().read(self.x)
    }

    /// The denoised prediction of this step, for a preview.
    ///
    /// # Errors
    /// As [`x`](Self::x).
    pub fn denoised(&self) -> Result<Latent> {
        self.latents.borrow_mut().read(self.denoised)
    }

    /// The same without reading it back.
    #[doc(hidden)]
    pub fn denoised_value(&self) -> &Value {
        self.denoised
    }
}

/// Called on every step; an error ends the run and is its result.
pub type OnStep<'a> = dyn FnMut(Step<'_>) -> Result<()> + 'a;

/// The arguments of a sampler's function: the model, the options, and the caller's callback.
pub(super) struct SamplerRun<'a> {
    model: &'a mut dyn Predictor,
    on_step: &'a mut OnStep<'a>,
    pub options: &'a SampleOptions,
    pub total: usize,
    /// Steps that were evaluated and not yet reported.
    due: VecDeque<Due>,
    /// The noise level of each step.
    levels: Vec<f32>,
}

/// A step that is reported when evaluation number `evaluation` is done.
struct Due {
    index: usize,
    total: usize,
    sigma: f32,
    x: Value,
    denoised: Value,
    evaluation: u64,
}

impl<'a> SamplerRun<'a> {
    pub(super) fn new(
        model: &'a mut dyn Predictor,
        on_step: &'a mut OnStep<'a>,
        options: &'a SampleOptions,
        total: usize,
    ) -> Self {
        Self { model, on_step, options, total, due: VecDeque::new(), levels: Vec::new() }
    }
}

impl SamplerRun<'_> {
    pub(super) fn latents(&mut self) -> &mut dyn Latents {
        self.model.latents()
    }

    /// Computes a value that later steps use: otherwise sums would grow with each step.
    pub(super) fn store(&mut self, value: &Value) -> Result<Value> {
        self.latents().store(value)
    }

    /// The first prediction of a step, which is reported to the caller. `x` is stored.
    pub(super) fn step(&mut self, index: usize, x: &mut Value, sigma: f32) -> Result<Predicted> {
        self.levels.resize(index + 1, sigma);
        let (out, evaluation) = self.evaluate(index, x, sigma)?;
        let (x, denoised, total) = (x.clone(), out.denoised.clone(), self.total);
        self.due.push_back(Due { index, total, sigma, x, denoised, evaluation });
        let ahead = self.model.ahead();
        self.report(ahead as usize)?;
        Ok(out)
    }

    /// A further prediction within step `index`.
    pub(super) fn predict(&mut self, index: usize, x: &Value, sigma: f32) -> Result<Predicted> {
        Ok(self.evaluate(index, &mut x.clone(), sigma)?.0)
    }

    /// The slope at another point within step `index`.
    pub(super) fn slope_at(&mut self, index: usize, x: &Value, sigma: f32) -> Result<Value> {
        let mut x = x.clone();
        let (out, _) = self.evaluate(index, &mut x, sigma)?;
        Ok(slope(&x, &out.denoised, sigma))
    }

    /// A prediction of `x`'s shape, and the number of the evaluation.
    fn evaluate(&mut self, index: usize, x: &mut Value, sigma: f32) -> Result<(Predicted, u64)> {
        self.latents().step(index);
        *x = self.store(x)?;
        self.check_fault()?;
        let mut out = self.model.predict(x, sigma)?;
        for value in [Some(&out.denoised), out.uncond.as_ref()].into_iter().flatten() {
            same_shape("a prediction does not fit the noisy latent", x.shape(), value.shape())?;
        }
        out.denoised = self.store(&out.denoised)?;
        let evaluation = self.latents().submit()?;
        self.check_fault()?;
        Ok((out, evaluation))
    }

    /// Reports the steps that are done, and waits until at most `most` are not.
    fn report(&mut self, most: usize) -> Result<()> {
        while let Some(first) = self.due.front() {
            let evaluation = first.evaluation;
            let wanted = if self.due.len() > most { evaluation } else { 0 };
            let done = self.latents().done(wanted)?;
            self.check_fault()?;
            if done < evaluation {
                break;
            }
            let Some(Due { index, total, sigma, x, denoised, .. }) = self.due.pop_front() else { break };
            let latents = RefCell::new(self.model.latents());
            (self.on_step)(Step { index, total, sigma, x: &x, denoised: &denoised, latents })?;
        }
        Ok(())
    }

    /// The end of a run at noise level `sigma`.
    pub(super) fn finish(mut self, x: Value, sigma: f32) -> Result<Value> {
        let end = self.levels.len();
        self.levels.push(sigma);
        self.latents().step(end);
        let x = self.store(&x)?;
        let evaluation = self.latents().submit()?;
        self.report(0)?;
        self.latents().done(evaluation)?;
        self.check_fault()?;
        Ok(x)
    }

    fn check_fault(&mut self) -> Result<()> {
        let Some(fault) = self.latents().fault() else { return Ok(()) };
        let (what, index) = match fault {
            Fault::Prediction(index) => ("the model's prediction", index),
            Fault::Latent(index) => ("the noisy latent", index),
        };
        let level = self.levels.get(index).map_or_else(String::new, |sigma| format!(", sigma {sigma}"));
        // A latent after the last step is the result of that step.
        let number = (index + 1).min(self.total);
        Err(Error::new(ErrorKind::NonFinite, format!("{what} holds NaN or infinity"))
            .at(format!("step {number} of {}{level}", self.total))
            .hint("lower the CFG scale and prompt weights")
            .remedy(Remedy::UseF32))
    }
}
