//! Terms of guidance: what is added to the prediction after classifier-free guidance.
//!
//! At each evaluation a term first says what it needs ([`Wants`]), and then returns the latent that is added, a
//! [`Value`]: for instance `scale · (D_c - P)` for a perturbed prediction P. It may request further predictions. All
//! arithmetic runs where the latents are, on the host or on the device.
//!
//! A custom term goes into a request beside the others:
//!
//! ```
//! use sagittal::guidance::Term;
//! use sagittal::guidance::term::{At, GuidanceTerm, GuidedStep, Wants};
//! use sagittal::latent::Value;
//!
//! /// Adds a tenth of the difference that the prompt makes.
//! #[derive(Debug)]
//! struct More;
//!
//! impl GuidanceTerm for More {
//!     fn wants(&self, _: &At<'_>) -> Option<Wants> {
//!         Some(Wants { uncond: true, ..Wants::default() })
//!     }
//!
//!     fn pull(&self, step: &mut GuidedStep<'_>) -> sagittal::Result<Option<Value>> {
//!         let sides = step.cond().zip(step.uncond());
//!         Ok(sides.map(|(cond, uncond)| cond.minus(uncond).scaled(0.1)))
//!     }
//! }
//!
//! let mut request = sagittal::Request::new("a lighthouse in a storm", sagittal::Size::square(512));
//! request.guidance.terms.push(Term::own(More));
//! request.check()?;
//! # Ok::<(), sagittal::Error>(())
//! ```
//!
//! # Shapes and units
//!
//! Latents are `[batch, channels, height, width]` in the UNet's scale, where the noise has the standard deviation σ and
//! a clean latent about 1. Attention is of the self-attention in the UNet's middle block: one map per prompt entry and
//! picture ([`Columns`]), 1 on average. It has an eighth of the latent's height and width in Stable Diffusion 1 and 2, a
//! quarter in XL and the embedded model.
//!
//! # Reading what happened
//!
//! With [`Request::evaluations`](crate::Request::evaluations) each evaluation is reported as
//! [`Progress::Evaluated`](crate::Progress::Evaluated), with all latents, the attention that any term has requested, and
//! what [`GuidedStep::note`] has recorded. A term that needs numbers on the host reads them from
//! [`GuidedStep::latents`] and brings a result back. A term with a factor of 0 leaves the bytes as they are; it also
//! saves its rows if [`GuidanceTerm::wants`] returns None.

use std::fmt;
use std::sync::Arc;

use super::backend::{Attention, Backend, Degrade, Group, GroupPrediction, Mask};
use super::{Columns, Entry, Perturbed, Sag};
use crate::graph::Perturbation;
use crate::latent::{Latents, Value};
use crate::sampler::Discrete;
use crate::{Error, Result};

/// A term of guidance.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Term {
    /// Self-Attention Guidance.
    Sag(Sag),
    /// Guidance away from a perturbed network: PAG or SEG.
    Perturbed(Perturbed),
    /// A custom term. It cannot be written by the feature `serde`: that is an error.
    #[cfg_attr(feature = "serde", serde(skip))]
    Own(Own),
}

impl Term {
    /// A custom term.
    pub fn own(term: impl GuidanceTerm + 'static) -> Self {
        Self::Own(Own(Arc::new(term)))
    }

    /// The same term, active during all of the sampling.
    pub(super) fn always(&self) -> Self {
        match self {
            Self::Sag(sag) => Self::Sag(Sag { start: 0.0, end: 1.0, ..*sag }),
            Self::Perturbed(of) => Self::Perturbed(Perturbed { start: 0.0, end: 1.0, ..*of }),
            Self::Own(own) => Self::Own(own.clone()),
        }
    }

    pub(super) fn of(&self) -> &dyn GuidanceTerm {
        match self {
            Self::Sag(term) => term,
            Self::Perturbed(term) => term,
            Self::Own(term) => &*term.0,
        }
    }
}

impl From<Sag> for Term {
    fn from(sag: Sag) -> Self {
        Self::Sag(sag)
    }
}

impl From<Perturbed> for Term {
    fn from(perturbed: Perturbed) -> Self {
        Self::Perturbed(perturbed)
    }
}

/// A custom term. Two are equal if they are clones of the same one.
#[derive(Clone)]
pub struct Own(Arc<dyn GuidanceTerm>);

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PartialEq for Own {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The point of a sampling at which an evaluation takes place.
#[derive(Debug, Clone, Copy)]
pub struct At<'a> {
    /// Noise level σ.
    pub sigma: f32,
    /// `[batch, channels, height, width]` of the latents.
    pub shape: [usize; 4],
    /// Scale of classifier-free guidance.
    pub cfg: f32,
    /// Noise levels and timesteps of the model.
    pub discrete: &'a Discrete,
}

impl At<'_> {
    /// Whether this is in the part of the sampling from `start` to `end`: 0 is the start of the sampling, 1 the end.
    pub fn is_within(&self, start: f64, end: f64) -> bool {
        self.discrete.is_within(self.sigma, start, end)
    }
}

/// A side of classifier-free guidance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// With the prompt.
    Cond,
    /// With the negative prompt.
    Uncond,
}

/// What a term needs from an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Wants {
    /// Record the attention of this side: [`GuidedStep::columns`].
    pub record: Option<Side>,
    /// Evaluate the negative prompt, also where classifier-free guidance does not need it.
    pub uncond: bool,
    /// Evaluate the prompt with a network that is perturbed in this way, such as [`Perturbed::attention`] of
    /// [`Perturbed::pag`]: see [`GuidedStep::perturbed`]. It takes one extra row per image.
    pub perturbation: Option<Perturbation>,
}

impl Wants {
    pub(super) fn uncond(&self) -> bool {
        self.uncond || self.record == Some(Side::Uncond)
    }

    /// Whether the term needs an active entry of the positive conditioning.
    pub(super) fn needs_prompt(&self) -> bool {
        self.perturbation.is_some()
    }
}

/// A term of guidance.
pub trait GuidanceTerm: fmt::Debug + Send + Sync {
    /// Checks the ranges of the settings.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage), naming the setting and its range.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// What the term needs at this evaluation; None if it is not active.
    fn wants(&self, at: &At<'_>) -> Option<Wants>;

    /// The latent that is added to the prediction, of the shape of [`GuidedStep::x`]; None adds nothing. It is called
    /// at evaluations for which [`wants`](Self::wants) has returned something.
    ///
    /// It is also called before a sampling, to find out the memory and work of a step, with latents that are never
    /// computed: what is read of them is zero, so guard divisions. The result must depend on the step alone, not on the
    /// number of calls.
    ///
    /// # Errors
    /// Any error ends the run.
    fn pull(&self, step: &mut GuidedStep<'_>) -> Result<Option<Value>>;
}

/// An evaluation as a term sees it, after classifier-free guidance. All latents have the same shape.
pub struct GuidedStep<'s> {
    pub(super) backend: &'s mut dyn Backend,
    pub(super) sides: [&'s [&'s Entry]; 2],
    pub(super) predictions: [Option<&'s GroupPrediction>; 2],
    pub(super) own: Option<&'s GroupPrediction>,
    pub(super) wants: Wants,
    pub(super) x: &'s Value,
    pub(super) sigma: f32,
    pub(super) cfg: &'s Value,
    pub(super) mask: Option<&'s [u8]>,
    pub(super) notes: &'s mut Notes,
}

/// The values that terms record for callers who look at evaluations.
#[derive(Default)]
pub(crate) struct Notes {
    pub sag: Option<SagNotes>,
    pub perturbed: Vec<Value>,
    pub own: Vec<(String, Value)>,
}

/// The inner values of a SAG step.
pub(crate) struct SagNotes {
    /// The side whose attention was used.
    pub side: Side,
    pub mask: Mask,
    pub degraded: Value,
    pub input: Value,
    pub prediction: Value,
}

impl GuidedStep<'_> {
    /// The noisy latent.
    pub fn x(&self) -> &Value {
        self.x
    }

    /// Its noise level σ.
    pub fn sigma(&self) -> f32 {
        self.sigma
    }

    /// The prediction with the prompt, D_c.
    pub fn cond(&self) -> Option<&Value> {
        self.side(Side::Cond)
    }

    /// The prediction with the negative prompt, D_u, if it was evaluated.
    pub fn uncond(&self) -> Option<&Value> {
        self.side(Side::Uncond)
    }

    fn side(&self, side: Side) -> Option<&Value> {
        self.predictions[side as usize].map(|p| &p.denoised)
    }

    /// The prediction after classifier-free guidance and [`Guidance::rescale`](super::Guidance::rescale), without what
    /// the terms add.
    pub fn cfg(&self) -> &Value {
        self.cfg
    }

    /// The prediction of the perturbed network, if the term has requested it in [`Wants::perturbation`].
    pub fn perturbed(&self) -> Option<&Value> {
        self.own.map(|p| &p.denoised)
    }

    fn attention(&self, side: Side) -> Option<&Attention> {
        self.predictions[side as usize].and_then(|p| p.attention.as_ref())
    }

    /// The attention of a side, if this or another term has requested it in [`Wants::record`]: see
    /// [`Evaluation::attention`](super::Evaluation::attention). It is read from the device, which takes time.
    ///
    /// # Errors
    /// An error of the device.
    pub fn columns(&mut self, side: Side) -> Result<Option<Vec<Columns>>> {
        let images = self.x.shape()[0];
        let attention = self.attention(side).cloned();
        attention.map(|attention| self.backend.read_attention(&attention, images)).transpose()
    }

    /// The operations on latents. [`Latents::store`] computes a sum once that is used several times.
    /// [`Latents::read`] and [`Latents::bring`] move a latent to the host and back, where anything can be computed; a
    /// read waits for the device, at every evaluation.
    pub fn latents(&mut self) -> &mut dyn Latents {
        self.backend
    }

    /// Another prediction with the prompts of a side, for the noisy latent `x` at the same noise level. It takes one
    /// extra row per image.
    ///
    /// # Errors
    /// Any error of the network.
    pub fn predict(&mut self, side: Side, x: &Value) -> Result<Value> {
        let x = self.backend.store(x)?;
        let group =
            Group { entries: self.sides[side as usize], record: false, perturbation: Perturbation::None };
        let predictions = self.backend.predict(&x, self.sigma, &[group])?;
        let prediction = predictions.into_iter().next();
        Ok(prediction.ok_or_else(|| Error::usage("the backend returned no prediction"))?.denoised)
    }

    /// Records a value by name for callers who look at evaluations: see
    /// [`Evaluation::own`](super::Evaluation::own).
    pub fn note(&mut self, name: impl Into<String>, value: &Value) {
        self.notes.own.push((name.into(), value.clone()));
    }
}

impl GuidanceTerm for Perturbed {
    fn check(&self) -> Result<()> {
        Perturbed::check(self)
    }

    fn wants(&self, at: &At<'_>) -> Option<Wants> {
        let acts = self.is_on() && at.is_within(self.start, self.end);
        acts.then_some(Wants { perturbation: Some(self.attention), ..Wants::default() })
    }

    /// `scale · (D_c - P)`, for PAG (arXiv 2403.17377) and SEG (arXiv 2408.00760).
    fn pull(&self, step: &mut GuidedStep<'_>) -> Result<Option<Value>> {
        let (Some(cond), Some(worse)) = (step.cond(), step.perturbed()) else { return Ok(None) };
        let (pull, worse) = (cond.minus(worse).scaled(self.scale), worse.clone());
        step.notes.perturbed.push(worse);
        Ok(Some(pull))
    }
}

impl Sag {
    /// The side whose attention is used.
    fn side(&self, cfg: f32) -> Side {
        if cfg == 1.0 && self.cond_at_cfg_1 { Side::Cond } else { Side::Uncond }
    }
}

impl GuidanceTerm for Sag {
    fn check(&self) -> Result<()> {
        Sag::check(self)
    }

    fn wants(&self, at: &At<'_>) -> Option<Wants> {
        let [_, _, height, width] = at.shape;
        let acts = self.acts_on((height, width)) && at.is_within(self.start, self.end);
        acts.then(|| Wants { record: Some(self.side(at.cfg)), ..Wants::default() })
    }

    /// `scale · (D_g - S)` (arXiv 2210.00939). The input of the additional row is D_g, the prediction blurred where
    /// attention is high, under the noise of the step; its prediction is S.
    fn pull(&self, step: &mut GuidedStep<'_>) -> Result<Option<Value>> {
        let Some(side) = step.wants.record else { return Ok(None) };
        let (Some(attention), Some(base)) = (step.attention(side).cloned(), step.side(side).cloned()) else {
            return Err(Error::usage("the network recorded no attention"));
        };
        // In a map of one position no position is above the mean.
        if attention.maps.iter().all(|map| *map == (1, 1)) {
            return Ok(None);
        }
        let (entries, mask) = (step.sides[side as usize], step.mask);
        let how = Degrade { entries, blur_sigma: self.blur_sigma, threshold: self.threshold, mask };
        let x = step.x.clone();
        let done = step.backend.degrade(&attention, &base, &x, &how)?;
        let prediction = step.predict(side, &done.input)?;
        let pull = done.degraded.minus(&prediction).scaled(self.scale);
        let (degraded, input) = (done.degraded, done.input);
        step.notes.sag = Some(SagNotes { side, mask: done.mask, degraded, input, prediction });
        Ok(Some(pull))
    }
}
