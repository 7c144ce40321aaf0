//! Texts with where and when they count.

use std::sync::Arc;

use crate::Size;
use crate::families::LATENT_CELL;
use crate::guidance::{Area, Entry};
use crate::image::Mask;
use crate::pipeline::Sizes;

/// A text with where and when it counts, before the size of the latent is known.
#[derive(Debug, Clone)]
pub(crate) struct Prompt {
    /// Text, time and nothing else. SDXL's sizes are zeros.
    pub entry: Entry,
    /// The sizes that SDXL is conditioned on; None is the latent's own.
    pub sizes: Option<Sizes>,
    pub area: Option<PromptArea>,
    pub strength: f32,
    pub mask: Option<PromptMask>,
}

/// Where a text counts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum PromptArea {
    /// In latent cells.
    Cells(Area),
    /// In fractions of the picture: left, top, width, height.
    Fractions([f64; 4]),
}

/// A mask over a text.
#[derive(Debug, Clone)]
pub(crate) struct PromptMask {
    pub mask: Arc<Vec<Mask>>,
    pub strength: f32,
    /// Whether only the rectangle around the mask is predicted.
    pub bounds: bool,
}

impl Prompt {
    /// The entry for a latent of `height` × `width` cells; `wants_vector` says whether the network
    /// reads SDXL's vector.
    pub fn resolved(&self, (height, width): (usize, usize), wants_vector: bool) -> Entry {
        let mut entry = Entry { strength: self.strength, ..self.entry.clone() };
        entry.area = self.area.map(|area| match area {
            PromptArea::Cells(area) => area,
            PromptArea::Fractions([x, y, w, h]) => Area::of_parts(x, y, w, h, Size::new(width, height)),
        });
        if let Some(part) = &self.mask
            && let Some(mask) = part.mask.first()
        {
            let weights = mask.to_latent(Size::new(width, height));
            if part.bounds {
                entry.area = Some(bounds(weights.data(), width));
            }
            entry.strength *= part.strength;
            entry.mask = Some(Arc::new(weights.data().to_vec()));
        }
        entry.vector = entry.vector.filter(|_| wants_vector).map(|vector| {
            let sizes = self.sizes.unwrap_or(Sizes::of(Size::new(LATENT_CELL * width, LATENT_CELL * height)));
            sizes.in_place_of(&vector)
        });
        entry
    }
}

/// The rectangle around what is not 0, at least 8 cells a side, as ComfyUI has it.
fn bounds(weights: &[f32], width: usize) -> Area {
    let drawn =
        || weights.iter().enumerate().filter(|(_, w)| **w != 0.0).map(|(i, _)| (i / width, i % width));
    let rows = drawn().map(|(y, _)| y);
    let columns = drawn().map(|(_, x)| x);
    let span = |first: Option<usize>, last: Option<usize>| match (first, last) {
        (Some(first), Some(last)) => (first, (last - first + 1).max(8)),
        _ => (0, 8),
    };
    let (y, height) = span(rows.clone().min(), rows.max());
    let (x, width) = span(columns.clone().min(), columns.max());
    Area { y, x, height, width }
}
