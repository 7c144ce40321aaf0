//! The settings of guidance.

use super::{Perturbed, Sag, Term};
use crate::{Error, Result};

/// What guidance does with the predictions of a network.
#[derive(Debug, Clone, PartialEq)]
pub struct Guidance {
    /// Scale of classifier-free guidance; 1 is none.
    pub cfg: f32,
    /// How much, 0 to 1, of the contrast that classifier-free guidance adds is taken back (Lin et al. 2023,
    /// arXiv 2305.08891, section 3.4), as ComfyUI's *RescaleCFG* does; the terms come after it.
    pub rescale: Option<f32>,
    /// What is added, in this order.
    pub terms: Vec<Term>,
}

impl Default for Guidance {
    /// CFG 7, and SAG as ComfyUI's node has it.
    fn default() -> Self {
        Self::new(7.0).with(Sag::default())
    }
}

impl Guidance {
    /// Classifier-free guidance alone.
    pub fn new(cfg: f32) -> Self {
        Self { cfg, rescale: None, terms: Vec::new() }
    }

    /// With another term.
    pub fn with(mut self, term: impl Into<Term>) -> Self {
        self.terms.push(term.into());
        self
    }

    /// The settings of Self-Attention Guidance; off where it is not among the terms.
    pub fn sag(&self) -> Sag {
        let found =
            self.terms.iter().find_map(|term| if let Term::Sag(sag) = term { Some(*sag) } else { None });
        found.unwrap_or(Sag::off())
    }

    /// Sets those of the term that is there; else it becomes the first.
    pub fn set_sag(&mut self, sag: Sag) {
        match self.terms.iter_mut().find(|term| matches!(term, Term::Sag(_))) {
            Some(term) => *term = sag.into(),
            None => self.terms.insert(0, sag.into()),
        }
    }

    /// The perturbed networks that are led away from, in order.
    pub fn perturbed(&self) -> impl Iterator<Item = &Perturbed> {
        self.terms.iter().filter_map(|term| if let Term::Perturbed(of) = term { Some(of) } else { None })
    }

    /// The same whose terms act all the time, as far as it is known when they do.
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
            return Err(Error::usage("the share of CFG's contrast to take back is outside its range")
                .expected("0 to 1")
                .found(rescale.to_string()));
        }
        self.terms.iter().try_for_each(|term| term.of().check())
    }
}
