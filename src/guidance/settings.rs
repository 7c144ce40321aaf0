//! The settings of guidance.

use super::{Perturbed, Sag, Term};
use crate::{Error, Result};

/// The settings of guidance.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
pub struct Guidance {
    /// Scale of classifier-free guidance; 1 turns it off. `R = D_u + (D_c - D_u) · cfg`.
    pub cfg: f32,
    /// Rescaled guidance, 0 to 1: how much of the contrast that classifier-free guidance adds is removed (Lin et al.
    /// 2023, arXiv 2305.08891, section 3.4), as ComfyUI's *RescaleCFG* does. The terms are added after it.
    pub rescale: Option<f32>,
    /// The terms that are added to the result, in this order.
    pub terms: Vec<Term>,
}

impl Default for Guidance {
    /// CFG 7, and SAG with the defaults of ComfyUI's node.
    fn default() -> Self {
        Self::new(7.0).with(Sag::default())
    }
}

impl Guidance {
    /// Classifier-free guidance alone.
    pub fn new(cfg: f32) -> Self {
        Self { cfg, rescale: None, terms: Vec::new() }
    }

    /// Adds a term.
    pub fn with(mut self, term: impl Into<Term>) -> Self {
        self.terms.push(term.into());
        self
    }

    /// The settings of Self-Attention Guidance; [`Sag::off`] if it is not among the terms.
    pub fn sag(&self) -> Sag {
        let found =
            self.terms.iter().find_map(|term| if let Term::Sag(sag) = term { Some(*sag) } else { None });
        found.unwrap_or(Sag::off())
    }

    /// Sets the settings of Self-Attention Guidance: of the term that exists, or as a new first term.
    pub fn set_sag(&mut self, sag: Sag) {
        match self.terms.iter_mut().find(|term| matches!(term, Term::Sag(_))) {
            Some(term) => *term = sag.into(),
            None => self.terms.insert(0, sag.into()),
        }
    }

    /// The terms of perturbed networks (PAG and SEG), in order.
    pub fn perturbed(&self) -> impl Iterator<Item = &Perturbed> {
        self.terms.iter().filter_map(|term| if let Term::Perturbed(of) = term { Some(of) } else { None })
    }

    /// The same settings with SAG, PAG and SEG active during all of the sampling. Custom terms stay as they are.
    pub(crate) fn always(&self) -> Self {
        Self { terms: self.terms.iter().map(Term::always).collect(), ..self.clone() }
    }

    /// Checks all ranges.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage), naming the setting and its range.
    pub fn check(&self) -> Result<()> {
        if !self.cfg.is_finite() {
            return Err(Error::usage("the CFG scale is not a number").found(self.cfg.to_string()));
        }
        if let Some(rescale) = self.rescale.filter(|r| !(0.0..=1.0).contains(r)) {
            return Err(Error::usage("the CFG rescale is outside its range")
                .expected("0 to 1")
                .found(rescale.to_string()));
        }
        self.terms.iter().try_for_each(|term| term.of().check())
    }
}
