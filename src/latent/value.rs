//! Latents as samplers and guidance compute with them, on the host or on a device.
//!
//! Nearly all arithmetic of a sampling step is linear: slopes, extrapolations, guidance and noise are sums of latents
//! with coefficients that the host knows. A [`Value`] is such a sum, not yet computed. [`Latents::store`] computes it
//! in one pass, on the host or on the device, without reading anything back; the operations that are not linear are
//! the other methods of [`Latents`].

use std::cell::RefCell;
use std::rc::Rc;

use super::Latent;
use crate::{Error, Result};

/// The number of a latent that an implementation of [`Latents`] stores. Its memory can be used again when the last
/// clone is dropped.
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
        // The list is borrowed for single pushes and swaps only, so this never fails.
        if let Ok(mut freed) = self.freed.try_borrow_mut() {
            freed.push(self.number);
        }
    }
}

/// The latents that an implementation stores, by number.
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
    /// Stores `what`.
    pub fn put(&mut self, what: T) -> Slot {
        self.collect(|_| {});
        let number = self.free.pop().unwrap_or(self.held.len());
        match self.held.get_mut(number) {
            Some(held) => *held = Some(what),
            None => self.held.push(Some(what)),
        }
        Slot(Rc::new(Token { number, freed: self.freed.clone() }))
    }

    /// Removes the latents whose slots were all dropped.
    pub fn collect(&mut self, mut gone: impl FnMut(T)) {
        for number in self.freed.take() {
            if let Some(what) = self.held.get_mut(number).and_then(Option::take) {
                gone(what);
                self.free.push(number);
            }
        }
    }

    /// The latent of `slot`.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for a slot of another implementation.
    pub fn get(&self, slot: &Slot) -> Result<&T> {
        let own = Rc::ptr_eq(&slot.0.freed, &self.freed);
        let held = self.held.get(slot.number()).and_then(Option::as_ref).filter(|_| own);
        held.ok_or_else(|| Error::usage("a latent of another sampling"))
    }
}

/// A latent as a sum `Σ coefficient · latent`, not yet computed; all latents have the same shape
/// `[batch, channels, height, width]`.
#[derive(Debug, Clone)]
pub struct Value {
    shape: [usize; 4],
    /// The shape of a term that differs: such a sum cannot be computed.
    misfit: Option<[usize; 4]>,
    /// In the order in which the latents first appeared; each latent once. Coefficients are products of many factors,
    /// so they are f64 until they are used.
    terms: Vec<(f64, Slot)>,
}

impl Value {
    /// A stored latent.
    #[doc(hidden)]
    pub fn of(slot: Slot, shape: [usize; 4]) -> Self {
        Self { shape, misfit: None, terms: vec![(1.0, slot)] }
    }

    /// All zeros.
    pub fn zero(shape: [usize; 4]) -> Self {
        Self { shape, misfit: None, terms: Vec::new() }
    }

    /// Its first `count` terms, and the remaining ones.
    #[doc(hidden)]
    pub fn split_at(&self, count: usize) -> (Self, Self) {
        let (first, rest) = self.terms.split_at(count.min(self.terms.len()));
        let of = |terms: &[(f64, Slot)]| Self { terms: terms.to_vec(), ..*self };
        (of(first), of(rest))
    }

    /// `[batch, channels, height, width]`.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// The terms of the sum.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if they differ in shape.
    #[doc(hidden)]
    pub fn terms(&self) -> Result<&[(f64, Slot)]> {
        match self.misfit {
            None => Ok(&self.terms),
            Some(other) => Err(Error::usage("a sum of latents of different shapes")
                .expected(format!("latents of {:?}", self.shape))
                .found(format!("one of {other:?}"))),
        }
    }

    /// The latent that this value is, if it is a single stored latent with a coefficient of 1.
    #[doc(hidden)]
    pub fn stored(&self) -> Option<&Slot> {
        match self.terms.as_slice() {
            [(coefficient, slot)] if *coefficient == 1.0 && self.misfit.is_none() => Some(slot),
            _ => None,
        }
    }

    /// `Σ coefficient · value`. All values must have the same shape: the result gets that of the first, and computing a
    /// sum of different shapes is an error.
    pub fn combine<C: Into<f64> + Copy>(terms: &[(C, &Value)]) -> Self {
        let shape = terms.first().map_or([0; 4], |(_, value)| value.shape);
        let mut sum = Self::zero(shape);
        for (coefficient, value) in terms {
            let misfit = value.misfit.or((value.shape != shape).then_some(value.shape));
            sum.misfit = sum.misfit.or(misfit);
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

/// A weight of each cell, 0 to 1, that an implementation stores: where inpainting draws.
#[derive(Debug, Clone)]
pub struct CellMask {
    /// `[masks, height, width]`.
    pub slot: Slot,
    /// 1 if all images share a mask, or one mask for each image.
    pub masks: usize,
    /// Height and width, cells.
    pub size: (usize, usize),
}

/// The first latent that holds NaN or infinity, with its step from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The network's prediction of this step.
    Prediction(usize),
    /// A latent that was computed in this step.
    Latent(usize),
}

/// The operations on latents that samplers and guidance are built from. Those on the host are the reference; those on
/// a device record work and return without waiting for it.
pub trait Latents {
    /// Uploads a latent of shape `[batch, channels, height, width]`. `make` is called if its values are needed; a
    /// forecast of memory does not call it.
    ///
    /// # Errors
    /// An error of the device.
    #[doc(hidden)]
    fn bring_with(&mut self, shape: [usize; 4], make: &mut dyn FnMut() -> Latent) -> Result<Value>;

    /// Uploads a latent.
    ///
    /// # Errors
    /// An error of the device.
    fn bring(&mut self, latent: &Latent) -> Result<Value> {
        self.bring_with(latent.shape(), &mut || latent.clone())
    }

    /// Computes a sum and stores the result. A value that is stored already is returned as it is.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if the terms differ in shape; an error of the device.
    fn store(&mut self, value: &Value) -> Result<Value>;

    /// Uploads a mask of shape `[1 or batch, 1, height, width]`; `make` as for [`bring_with`](Self::bring_with).
    ///
    /// # Errors
    /// An error of the device.
    #[doc(hidden)]
    fn bring_mask_with(&mut self, shape: [usize; 4], make: &mut dyn FnMut() -> Latent) -> Result<CellMask>;

    /// Uploads a mask, `[1 or batch, 1, height, width]`.
    ///
    /// # Errors
    /// An error of the device.
    fn bring_mask(&mut self, mask: &Latent) -> Result<CellMask> {
        self.bring_mask_with(mask.shape(), &mut || mask.clone())
    }

    /// Says which step, from 0, the following operations belong to.
    #[doc(hidden)]
    fn step(&mut self, step: usize);

    /// `mask · drawn + (1 - mask) · kept`, cell by cell.
    ///
    /// # Errors
    /// As [`store`](Self::store).
    fn blend(&mut self, mask: &CellMask, drawn: &Value, kept: &Value) -> Result<Value>;

    /// The root mean square of `(low - high) / max(absolute, relative · max(|low|, |before|))` over all values, for
    /// `values` = `[low, high, before]`: the error by which an adaptive solver chooses its steps. It is the only number
    /// that a sampling waits for.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    #[doc(hidden)]
    fn error_norm(&mut self, values: [&Value; 3], absolute: f32, relative: f32) -> Result<f64>;

    /// Reads a value back. On a device this waits for all recorded work.
    ///
    /// # Errors
    /// An error of the device.
    fn read(&mut self, value: &Value) -> Result<Latent>;

    /// Ends an evaluation: submits the recorded work to the device. Returns the number of evaluations so far.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled), or an error of the device.
    #[doc(hidden)]
    fn submit(&mut self) -> Result<u64>;

    /// The number of evaluations that are done. Waits until it is at least `wanted`.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    #[doc(hidden)]
    fn done(&mut self, wanted: u64) -> Result<u64>;

    /// Evaluations that may be submitted before the first of them is done.
    #[doc(hidden)]
    fn ahead(&self) -> u64 {
        0
    }

    /// The first fault found in the evaluations that are done.
    #[doc(hidden)]
    fn fault(&self) -> Option<Fault>;
}
