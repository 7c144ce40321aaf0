//! Conditioning: texts, and where, when and how much each of them counts.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::latent::Latent;
use crate::{Error, Result};

/// Far more tokens than any prompt has. A larger number is a mistake, and sizes would overflow.
const MOST_TOKENS: usize = 1 << 20;

/// One entry of the conditioning: an encoded text with an area, a part of the sampling and a weight.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The text encoder's result, `[tokens, channels]`.
    pub context: Arc<Vec<f32>>,
    /// Number of tokens.
    pub tokens: usize,
    /// The additional vector of networks that have one: for SDXL the pooled text and the sizes.
    pub vector: Option<Arc<Vec<f32>>>,
    /// Where it counts; everywhere if None. ComfyUI gives an entry with an area a counterpart on the other side of
    /// the conditioning: [`Conditioning::with_opposites`].
    pub area: Option<Area>,
    /// How much it counts at each latent cell, `[height, width]`; 1 if None. A mask in pixels is resized to cells by [`Mask::to_latent`](crate::image::Mask::to_latent).
    pub mask: Option<Arc<Vec<f32>>>,
    /// A factor on the weight.
    pub strength: f32,
    /// Where in the sampling it starts to count: 0 is the start, 1 the end.
    pub start: f64,
    /// Where in the sampling it stops counting, on the same scale.
    pub end: f64,
}

/// Both sides of classifier-free guidance.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Conditioning {
    /// The prompt: what the picture should show. The order of the entries does not matter.
    pub positive: Vec<Entry>,
    /// The negative prompt: what it should not show. The order of the entries does not matter.
    pub negative: Vec<Entry>,
}

/// A rectangle of latent cells (8 pixels each).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Area {
    /// First row.
    pub y: usize,
    /// First column.
    pub x: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

/// Identifies a prompt by the addresses of its values. As long as these are not dropped, no other prompt has the
/// same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PromptAddress {
    context: *const Vec<f32>,
    vector: Option<*const Vec<f32>>,
}

impl Entry {
    /// Identifies its prompt; entries that differ in other fields have the same.
    pub(crate) fn prompt(&self) -> PromptAddress {
        PromptAddress { context: Arc::as_ptr(&self.context), vector: self.vector.as_ref().map(Arc::as_ptr) }
    }

    /// A text that counts everywhere, during all of the sampling, with strength 1. `context` is `[tokens, channels]`.
    pub fn new(context: Vec<f32>, tokens: usize) -> Self {
        Self {
            context: Arc::new(context),
            tokens,
            vector: None,
            area: None,
            mask: None,
            strength: 1.0,
            start: 0.0,
            end: 1.0,
        }
    }

    /// Checks all that does not depend on the latent's size.
    pub(super) fn check(&self) -> Result<()> {
        let wrong = |what: &str, expected: &str, found: String| {
            Err(Error::usage(what).at("conditioning entry").expected(expected).found(found))
        };
        if self.tokens > MOST_TOKENS {
            let most = format!("at most {MOST_TOKENS} tokens");
            return wrong("the context is too long", &most, self.tokens.to_string());
        }
        if self.tokens == 0 || !self.context.len().is_multiple_of(self.tokens) {
            let found = format!("{} values for {} tokens", self.context.len(), self.tokens);
            return wrong("the context does not fit its tokens", "a vector for each token", found);
        }
        if !self.strength.is_finite() {
            return wrong("the strength is not a number", "a finite factor", self.strength.to_string());
        }
        match self.mask.as_ref().and_then(|m| m.iter().find(|v| !v.is_finite())) {
            Some(v) => wrong("the mask is not finite", "a weight for each cell", v.to_string()),
            None => Ok(()),
        }
    }

    /// Checks that a mask has a weight for each cell of a latent of this height and width.
    pub(super) fn check_mask(&self, (height, width): (usize, usize)) -> Result<()> {
        match &self.mask {
            Some(mask) if mask.len() != height * width => {
                Err(Error::usage("the mask does not fit the latent")
                    .at("conditioning entry")
                    .expected(format!("{height}x{width} weights"))
                    .found(mask.len().to_string()))
            }
            _ => Ok(()),
        }
    }

    /// The entry's rectangle, clipped to a latent of this height and width.
    pub(crate) fn area_in(&self, (height, width): (usize, usize)) -> Area {
        let all = Area { y: 0, x: 0, height, width };
        self.area.map_or(all, |a| {
            let (y, x) = (a.y.min(height - 1), a.x.min(width - 1));
            Area { y, x, height: a.height.clamp(1, height - y), width: a.width.clamp(1, width - x) }
        })
    }

    /// The weight of each cell of `area`, `[height, width]`. The edges of a rectangle that are inside the latent fade
    /// linearly over up to 8 cells, as in ComfyUI, unless the entry has a mask.
    pub(super) fn weights(&self, area: Area, (full_height, full_width): (usize, usize)) -> Vec<f32> {
        let mut weights = vec![self.strength; area.height * area.width];
        if let Some(mask) = &self.mask {
            for (i, w) in weights.iter_mut().enumerate() {
                let (y, column) = (area.y + i / area.width, area.x + i % area.width);
                *w *= mask.get(y * full_width + column).copied().unwrap_or(0.0);
            }
            return weights;
        }
        if self.area.is_none() {
            return weights;
        }
        let fade = |at: usize, first: usize, len: usize, full: usize| {
            let over = (len / 4).min(8);
            let step = |t: usize| if t < over { (1.0 / over as f32) * (t + 1) as f32 } else { 1.0 };
            let before = if first != 0 { step(at) } else { 1.0 };
            before * if first + len < full { step(len - 1 - at) } else { 1.0 }
        };
        for (i, w) in weights.iter_mut().enumerate() {
            *w *= fade(i / area.width, area.y, area.height, full_height);
            *w *= fade(i % area.width, area.x, area.width, full_width);
        }
        weights
    }

    /// A total order of entries by their content. Sums over entries run in this order, so that they do not depend on
    /// the order in which the entries were given.
    pub(super) fn canonical_order(&self, other: &Self) -> Ordering {
        let bits = |v: &Option<Arc<Vec<f32>>>| v.as_ref().map_or(Vec::new(), |v| v.to_vec());
        order_of_bits(&self.context, &other.context)
            .then_with(|| order_of_bits(&bits(&self.vector), &bits(&other.vector)))
            .then_with(|| self.area.cmp(&other.area))
            .then_with(|| order_of_bits(&bits(&self.mask), &bits(&other.mask)))
            .then_with(|| self.strength.total_cmp(&other.strength))
            .then_with(|| self.start.total_cmp(&other.start))
            .then_with(|| self.end.total_cmp(&other.end))
    }
}

impl Area {
    /// The part of a latent of one image that is inside the rectangle.
    pub(super) fn crop(&self, x: &Latent) -> Latent {
        let [_, channels, height, width] = x.shape();
        if (self.height, self.width) == (height, width) {
            return x.clone();
        }
        let mut out = Latent::zeros(1, channels, self.height, self.width);
        for c in 0..channels {
            for y in 0..self.height {
                let from = (c * height + self.y + y) * width + self.x;
                let to = (c * self.height + y) * self.width;
                out.data_mut()[to..to + self.width].copy_from_slice(&x.data()[from..from + self.width]);
            }
        }
        out
    }
}

/// Compares two lists of f32 by their bits: a total order, the same on every machine.
fn order_of_bits(a: &[f32], b: &[f32]) -> Ordering {
    a.iter().map(|v| v.to_bits()).cmp(b.iter().map(|v| v.to_bits()))
}
