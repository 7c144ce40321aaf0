//! Guidance away from a network whose self-attention is perturbed: PAG and SEG.
//!
//! `R + (D_c - P) · scale`, where D_c is the prediction with the prompt and P the same prediction of the perturbed
//! network. It needs no negative prompt and works at CFG scale 1. It can be combined with SAG: each of the two has rows
//! of its own.

use crate::graph::{Perturbation, Width};
use crate::{Error, Result};

/// Settings of PAG or SEG: `scale · (D_c - P)` is added to the prediction, where P is the prediction with the prompt
/// of a perturbed network.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Perturbed {
    /// How the self-attention of the middle block is perturbed.
    pub attention: Perturbation,
    /// Strength, 0 to 100. 0 turns it off; otherwise it takes one extra row per image.
    pub scale: f32,
    /// Where in the sampling it starts to act: 0 is the start, 1 the end.
    pub start: f64,
    /// Where in the sampling it stops acting, on the same scale.
    pub end: f64,
}

impl Perturbed {
    /// Perturbed-Attention Guidance (Ahn et al. 2024, arXiv 2403.17377), as ComfyUI's node
    /// *PerturbedAttentionGuidance* computes it. The default scale there is 3.
    pub fn pag(scale: f32) -> Self {
        Self { attention: Perturbation::Identity, scale, start: 0.0, end: 1.0 }
    }

    /// Smoothed Energy Guidance (Hong 2024, arXiv 2408.00760): the queries are blurred by a Gaussian of standard
    /// deviation `sigma`, in positions of the middle block's map. 0 turns it off; 9999 and more, also infinity, replaces
    /// the queries by their mean. The default scale of the paper's code is 3.
    pub fn seg(scale: f32, sigma: f32) -> Self {
        let attention = match sigma {
            0.0 => Perturbation::None,
            _ => Perturbation::BlurredQueries(Width::new(sigma)),
        };
        Self { attention, ..Self::pag(scale) }
    }

    /// Whether it can have any effect during a sampling.
    pub fn is_on(&self) -> bool {
        self.scale != 0.0 && self.attention != Perturbation::None
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage), naming the setting and its range.
    pub fn check(&self) -> Result<()> {
        let name = match self.attention {
            Perturbation::BlurredQueries(_) => "SEG",
            Perturbation::Identity | Perturbation::None => "PAG",
        };
        let wrong = |what: &str, expected: &str, found: String| {
            Err(Error::usage(format!("the {name} {what} is outside its range"))
                .expected(expected)
                .found(found))
        };
        if !(0.0..=100.0).contains(&self.scale) {
            return wrong("scale", "0 to 100", self.scale.to_string());
        }
        match self.attention {
            Perturbation::BlurredQueries(width) if width.sigma().is_nan() || width.sigma() <= 0.0 => {
                return wrong("blur sigma", "0 or more", width.sigma().to_string());
            }
            _ => {}
        }
        if !(self.start >= 0.0 && self.start < self.end && self.end <= 1.0) {
            let found = format!("{} to {}", self.start, self.end);
            return wrong("range", "a start from 0 and an end after it, at most 1", found);
        }
        Ok(())
    }
}
