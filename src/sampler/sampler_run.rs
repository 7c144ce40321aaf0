//! A run as a sampler's function sees it: it asks the model, and tells the caller of each step.

use std::cell::RefCell;
use std::collections::VecDeque;

use super::model::same_shape;
use super::step::slope;
use super::{Predicted, Predictor, SampleOptions};
use crate::latent::value::Fault;
use crate::latent::{Latent, Latents, Value};
use crate::{Error, ErrorKind, Remedy, Result};

/// What a run tells about a step when it is evaluated. On a device later steps may be under way by then; what
/// is read here is this step's all the same.
pub struct Step<'a> {
    /// From 0.
    pub index: usize,
    /// Number of steps of the run; a guess where a sampler chooses its steps as it goes.
    pub total: usize,
    /// The noise level of `x`.
    pub sigma: f32,
    x: &'a Value,
    denoised: &'a Value,
    latents: RefCell<&'a mut dyn Latents>,
}

impl Step<'_> {
    /// The noisy latent.
    ///
    /// # Errors
    /// The device's, from which it may have to be read.
    pub fn x(&self) -> Result<Latent> {
        self.latents.borrow_mut().read(self.x)
    }

    /// What the model sees in it: the preview.
    ///
    /// # Errors
    /// As [`x`](Self::x).
    pub fn denoised(&self) -> Result<Latent> {
        self.latents.borrow_mut().read(self.denoised)
    }

    /// The same where it is held.
    pub fn denoised_value(&self) -> &Value {
        self.denoised
    }
}

/// Called on every step; an error ends the run and is its result.
pub type OnStep<'a> = dyn FnMut(Step<'_>) -> Result<()> + 'a;

/// What a sampler's function drives: the model and the caller's eyes on it.
pub(super) struct SamplerRun<'a> {
    model: &'a mut dyn Predictor,
    on_step: &'a mut OnStep<'a>,
    pub options: &'a SampleOptions,
    pub total: usize,
    /// Steps that are evaluated and not yet told of.
    due: VecDeque<Due>,
    /// The noise level of each step.
    levels: Vec<f32>,
}

/// A step that is told of when evaluation number `evaluation` is done.
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

    /// Forms what later steps build upon: a sum of sums would grow with each of them.
    pub(super) fn store(&mut self, value: &Value) -> Result<Value> {
        self.latents().store(value)
    }

    /// The step's first prediction: asks the model and tells the caller. `x` is stored.
    pub(super) fn step(&mut self, index: usize, x: &mut Value, sigma: f32) -> Result<Predicted> {
        self.levels.resize(index + 1, sigma);
        let (out, evaluation) = self.evaluate(index, x, sigma)?;
        let (x, denoised, total) = (x.clone(), out.denoised.clone(), self.total);
        self.due.push_back(Due { index, total, sigma, x, denoised, evaluation });
        let ahead = self.model.ahead();
        self.tell(ahead as usize)?;
        Ok(out)
    }

    /// A prediction within step `index`.
    pub(super) fn predict(&mut self, index: usize, x: &Value, sigma: f32) -> Result<Predicted> {
        Ok(self.evaluate(index, &mut x.clone(), sigma)?.0)
    }

    /// The slope at another place within step `index`.
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

    /// Tells of steps that are done, and waits until at most `most` are not.
    fn tell(&mut self, most: usize) -> Result<()> {
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
        self.tell(0)?;
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
        // What comes after the last step is that step's result.
        let number = (index + 1).min(self.total);
        Err(Error::new(ErrorKind::NonFinite, format!("{what} holds NaN or infinity"))
            .at(format!("step {number} of {}{level}", self.total))
            .hint("lower the CFG scale and prompt weights")
            .remedy(Remedy::UseF32))
    }
}
