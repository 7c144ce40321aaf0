//! A latent as samplers and guidance compute with it, wherever its numbers are.
//!
//! Nearly all arithmetic of a sampling step is linear: slopes, extrapolations, guidance and noise are sums of
//! latents with coefficients that the host knows. A [`Value`] is such a sum, written down and not yet computed.
//! What cannot be a sum is an operation of [`Latents`], and so is forming the sum itself, which an
//! implementation does in one go: on the host, or on the device without anything read back.

use std::cell::RefCell;
use std::rc::Rc;

use super::Latent;
use crate::{Error, Result};

/// A latent that an implementation of [`Latents`] holds, by its number there. It is free for other use when the
/// last clone is dropped.
#[derive(Debug, Clone)]
pub struct Slot(Rc<Token>);

#[derive(Debug)]
struct Token {
    number: usize,
    freed: Rc<RefCell<Vec<usize>>>,
}

impl Slot {
    /// Its number; no two slots in use have the same.
    pub fn number(&self) -> usize {
        self.0.number
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        // Nobody can hold the list at this moment: it is borrowed for single pushes and swaps only.
        if let Ok(mut freed) = self.freed.try_borrow_mut() {
            freed.push(self.number);
        }
    }
}

/// Numbers for an implementation's latents, each with something of its own.
#[derive(Debug)]
pub struct Slots<T> {
    held: Vec<Option<T>>,
    free: Vec<usize>,
    freed: Rc<RefCell<Vec<usize>>>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { held: Vec::new(), free: Vec::new(), freed: Rc::default() }
    }
}

impl<T> Slots<T> {
    /// A slot that holds `what`.
    pub fn put(&mut self, what: T) -> Slot {
        self.collect(|_| {});
        let number = self.free.pop().unwrap_or(self.held.len());
        match self.held.get_mut(number) {
            Some(held) => *held = Some(what),
            None => self.held.push(Some(what)),
        }
        Slot(Rc::new(Token { number, freed: self.freed.clone() }))
    }

    /// Takes out what nobody can ask for any more.
    pub fn collect(&mut self, mut gone: impl FnMut(T)) {
        for number in self.freed.take() {
            if let Some(what) = self.held.get_mut(number).and_then(Option::take) {
                gone(what);
                self.free.push(number);
            }
        }
    }

    /// What `slot` holds.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for a slot of another implementation.
    pub fn get(&self, slot: &Slot) -> Result<&T> {
        let own = Rc::ptr_eq(&slot.0.freed, &self.freed);
        let held = self.held.get(slot.number()).and_then(Option::as_ref).filter(|_| own);
        held.ok_or_else(|| Error::usage("a latent of another sampling"))
    }
}

/// `Σ coefficient · latent`, all of one shape `[batch, channels, height, width]`.
#[derive(Debug, Clone)]
pub struct Value {
    shape: [usize; 4],
    /// In the order in which they were first named; no latent twice. Coefficients are products of many, so they
    /// are kept in f64 until they are used.
    terms: Vec<(f64, Slot)>,
}

impl Value {
    /// A latent that is held.
    #[doc(hidden)]
    pub fn of(slot: Slot, shape: [usize; 4]) -> Self {
        Self { shape, terms: vec![(1.0, slot)] }
    }

    /// All zeros.
    pub fn zero(shape: [usize; 4]) -> Self {
        Self { shape, terms: Vec::new() }
    }

    /// Its first `count` terms, and the others.
    #[doc(hidden)]
    pub fn split_at(&self, count: usize) -> (Self, Self) {
        let (first, rest) = self.terms.split_at(count.min(self.terms.len()));
        let of = |terms: &[(f64, Slot)]| Self { shape: self.shape, terms: terms.to_vec() };
        (of(first), of(rest))
    }

    /// `[batch, channels, height, width]`.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// The sum's terms.
    #[doc(hidden)]
    pub fn terms(&self) -> &[(f64, Slot)] {
        &self.terms
    }

    /// The one latent that this is, with a coefficient of 1.
    #[doc(hidden)]
    pub fn stored(&self) -> Option<&Slot> {
        match self.terms.as_slice() {
            [(coefficient, slot)] if *coefficient == 1.0 => Some(slot),
            _ => None,
        }
    }

    /// `Σ coefficient · value`. Values of different shapes are a fault of the caller: the first one's counts, and
    /// the implementation will refuse the sum.
    pub fn combine<C: Into<f64> + Copy>(terms: &[(C, &Value)]) -> Self {
        let shape = terms.first().map_or([0; 4], |(_, value)| value.shape);
        let mut sum = Self { shape, terms: Vec::new() };
        for (coefficient, value) in terms {
            sum.add((*coefficient).into(), value);
        }
        sum.terms.retain(|(coefficient, _)| *coefficient != 0.0);
        sum
    }

    fn add(&mut self, coefficient: f64, value: &Value) {
        for (own, slot) in &value.terms {
            let own = own * coefficient;
            match self.terms.iter_mut().find(|(_, s)| s.number() == slot.number()) {
                Some((sum, _)) => *sum += own,
                None => self.terms.push((own, slot.clone())),
            }
        }
    }

    /// `self + a · other`.
    pub fn plus(&self, a: impl Into<f64>, other: &Value) -> Self {
        Self::combine(&[(1.0, self), (a.into(), other)])
    }

    /// `self - other`.
    pub fn minus(&self, other: &Value) -> Self {
        self.plus(-1.0, other)
    }

    /// `a · self`.
    pub fn scaled(&self, a: impl Into<f64> + Copy) -> Self {
        Self::combine(&[(a, self)])
    }
}

/// Weights of each cell, 0 to 1, that an implementation holds: where an inpainting draws.
#[derive(Debug, Clone)]
pub struct CellMask {
    /// Holds `[masks, height, width]`.
    pub slot: Slot,
    /// One for all pictures, or one for each.
    pub masks: usize,
    /// Height and width.
    pub size: (usize, usize),
}

/// Which of a step's latents a fault was found in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The network's prediction of this step.
    Prediction(usize),
    /// A latent that was formed in this step.
    Latent(usize),
}

/// The operations on latents that samplers and guidance are made of. The host's are the reference; those of a
/// device record work for it and come back at once.
pub trait Latents {
    /// Brings a latent over, `[batch, channels, height, width]`, which `make` makes where it is needed: a
    /// rehearsal does without.
    ///
    /// # Errors
    /// The device's.
    fn bring_with(&mut self, shape: [usize; 4], make: &mut dyn FnMut() -> Latent) -> Result<Value>;

    /// Brings a latent over.
    ///
    /// # Errors
    /// The device's.
    fn bring(&mut self, latent: &Latent) -> Result<Value> {
        self.bring_with(latent.shape(), &mut || latent.clone())
    }

    /// Forms a sum. What is held already stays where it is. Nothing but the values' own shapes is looked at.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for terms of another shape; the device's.
    fn store(&mut self, value: &Value) -> Result<Value>;

    /// Brings weights of cells over, `[1 or batch, 1, height, width]`, which `make` makes as for
    /// [`bring_with`](Self::bring_with).
    ///
    /// # Errors
    /// The device's.
    fn bring_mask_with(&mut self, shape: [usize; 4], make: &mut dyn FnMut() -> Latent) -> Result<CellMask>;

    /// Brings weights of cells over.
    ///
    /// # Errors
    /// The device's.
    fn bring_mask(&mut self, mask: &Latent) -> Result<CellMask> {
        self.bring_mask_with(mask.shape(), &mut || mask.clone())
    }

    /// Tells which step (from 0) what follows belongs to.
    fn step(&mut self, step: usize);

    /// `mask · drawn + (1 - mask) · kept`, cell by cell.
    ///
    /// # Errors
    /// As [`store`](Self::store).
    fn blend(&mut self, mask: &CellMask, drawn: &Value, kept: &Value) -> Result<Value>;

    /// The root mean square of `(low - high) / max(absolute, relative · max(|low|, |before|))` over all values: what
    /// an adaptive solver steers by. The only number that a sampling waits for.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn error_norm(&mut self, values: [&Value; 3], absolute: f32, relative: f32) -> Result<f64>;

    /// Reads a value. On a device this waits for all that was recorded.
    ///
    /// # Errors
    /// The device's.
    fn read(&mut self, value: &Value) -> Result<Latent>;

    /// Ends an evaluation: what was recorded goes to the device. The number of evaluations so far.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled), or the device's.
    fn submit(&mut self) -> Result<u64>;

    /// How many evaluations are done. Waits until `wanted` are.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    fn done(&mut self, wanted: u64) -> Result<u64>;

    /// Evaluations that may be submitted before the first of them is done.
    fn ahead(&self) -> u64 {
        0
    }

    /// The first fault in what is done.
    fn fault(&self) -> Option<Fault>;
}
