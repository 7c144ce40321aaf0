//! Conditioning made of other conditioning, by the rules of ComfyUI's nodes of the same names.
//!
//! *Conditioning (Combine)* needs no function: put the entries of both into one list, and their predictions are
//! averaged by their weights. Strength, mask and range are fields of an [`Entry`].

use std::sync::Arc;

use super::{Area, Conditioning, Entry};
use crate::families::LATENT_CELL;
use crate::{Error, Result, Size};

/// The sizes at the end of SDXL's additional vector: six numbers, each as 256 values.
const SIZES: usize = 6 * 256;

impl Entry {
    /// *Conditioning (Concat)*: the tokens of this entry, then those of `other`, which the network reads as one text.
    /// All other fields are those of this entry.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if their tokens have different numbers of channels.
    pub fn concat(&self, other: &Entry) -> Result<Entry> {
        self.same_channels(other)?;
        let context = self.context.iter().chain(other.context.iter()).copied().collect();
        Ok(Entry { context: Arc::new(context), tokens: self.tokens + other.tokens, ..self.clone() })
    }

    /// *Conditioning (Average)*: `share` · this entry + `(1 - share)` · `other`, for each token and for the pooled
    /// vector. `other` is truncated to the tokens of this entry, or padded with zeros. All other fields and SDXL's
    /// sizes are those of this entry.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if their tokens have different numbers of channels, their pooled
    /// vectors differ in length, or `share` is not finite.
    pub fn average(&self, other: &Entry, share: f64) -> Result<Entry> {
        self.same_channels(other)?;
        if !share.is_finite() {
            return Err(Error::usage("the share of an average is not a number").found(share.to_string()));
        }
        // 1 - share is computed in f64 and rounded once, as PyTorch does with Python numbers.
        let (own, rest) = (share as f32, (1.0 - share) as f32);
        let filled = other.context.iter().copied().chain(std::iter::repeat(0.0));
        let context = self.context.iter().zip(filled).map(|(a, b)| a * own + b * rest).collect();
        let vector = match (&self.vector, &other.vector) {
            (Some(a), Some(b)) if a.len() != b.len() => {
                return Err(Error::usage("entries of different models cannot be averaged")
                    .expected(format!("a vector of {} values", a.len()))
                    .found(b.len().to_string()));
            }
            (Some(a), Some(b)) => {
                let mut vector = a.to_vec();
                let pooled = pooled_len(&vector);
                vector[..pooled].iter_mut().zip(b.iter()).for_each(|(a, b)| *a = *a * own + b * rest);
                Some(Arc::new(vector))
            }
            (a, b) => a.clone().or_else(|| b.clone()),
        };
        Ok(Entry { context: Arc::new(context), vector, ..self.clone() })
    }

    /// *ConditioningZeroOut*: all values of the text are 0, which is not the same as the empty prompt. SDXL's sizes
    /// stay.
    pub fn zeroed(&self) -> Entry {
        let vector = self.vector.as_ref().map(|v| {
            let mut vector = v.to_vec();
            let pooled = pooled_len(&vector);
            vector[..pooled].fill(0.0);
            Arc::new(vector)
        });
        Entry { context: Arc::new(vec![0.0; self.context.len()]), vector, ..self.clone() }
    }

    fn same_channels(&self, other: &Entry) -> Result<()> {
        self.check()?;
        other.check()?;
        let [own, others] = [self, other].map(|e| e.context.len() / e.tokens);
        if own == others {
            return Ok(());
        }
        Err(Error::usage("entries of different models cannot be joined")
            .expected(format!("{own} values a token"))
            .found(others.to_string()))
    }
}

/// How many values of an additional vector are the pooled text.
fn pooled_len(vector: &[f32]) -> usize {
    vector.len().saturating_sub(SIZES)
}

impl Area {
    /// *Conditioning (Set Area)*: a rectangle in pixels; each number is divided by 8 and rounded down to cells.
    pub fn of_pixels(left: usize, top: usize, width: usize, height: usize) -> Self {
        let [y, x, height, width] = [top, left, height, width].map(|pixels| pixels / LATENT_CELL);
        Self { y, x, height, width }
    }

    /// *Conditioning (Set Area with Percentage)*: a rectangle in fractions, 0 to 1, of a latent of `size`, in
    /// cells. Each number is rounded to cells, half to even; the rectangle has at least one cell.
    pub fn of_parts(left: f64, top: f64, width: f64, height: f64, size: Size) -> Self {
        // A cast makes 0 of NaN and of negative numbers; an area that is too large is clipped to the latent later.
        let cells = |part: f64, side: usize| (part * side as f64).round_ties_even() as usize;
        Self {
            y: cells(top, size.height),
            x: cells(left, size.width),
            height: cells(height, size.height).max(1),
            width: cells(width, size.width).max(1),
        }
    }

    fn holds(&self, other: &Area) -> bool {
        let inside = |from: usize, len: usize, outer: usize, outer_len: usize| {
            from >= outer && from.saturating_add(len) <= outer.saturating_add(outer_len)
        };
        inside(other.y, other.height, self.y, self.height) && inside(other.x, other.width, self.x, self.width)
    }

    fn cells(&self) -> usize {
        self.height.saturating_mul(self.width)
    }
}

impl Conditioning {
    /// Gives each entry that has an area a counterpart with the same area on the other side, as ComfyUI does before it
    /// samples: the prediction for a crop is compared with another prediction for that crop. The counterpart takes its
    /// text from the entry of the other side with the smallest area around this one (one without an area if there is
    /// none; the first of several), and its area, range and weight from this entry.
    pub fn with_opposites(mut self) -> Self {
        add_opposites(&self.positive, &mut self.negative);
        add_opposites(&self.negative, &mut self.positive);
        self
    }
}

fn add_opposites(of: &[Entry], to: &mut Vec<Entry>) {
    for entry in of {
        let Some(area) = entry.area else { continue };
        let size = |e: &Entry| e.area.map_or(usize::MAX, |a| a.cells());
        let around = to.iter().filter(|e| e.area.is_none_or(|a| a.holds(&area)));
        let Some(nearest) = around.min_by_key(|e| size(e)) else { continue };
        if nearest.area != Some(area) {
            let (context, vector) = (nearest.context.clone(), nearest.vector.clone());
            to.push(Entry { context, vector, tokens: nearest.tokens, ..entry.clone() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(context: &[f32], tokens: usize, pooled: Option<f32>) -> Entry {
        let mut entry = Entry::new(context.to_vec(), tokens);
        entry.vector = pooled.map(|p| Arc::new([vec![p; 2], vec![0.1; SIZES]].concat()));
        entry
    }

    #[test]
    fn concat_joins_tokens_and_keeps_the_rest() {
        let mut a = entry(&[1.0, 2.0], 1, Some(5.0));
        a.strength = 0.5;
        let both = a.concat(&entry(&[3.0, 4.0, 5.0, 6.0], 2, Some(7.0))).unwrap();
        assert_eq!((both.context.as_slice(), both.tokens), (&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0][..], 3));
        assert_eq!((both.vector, both.strength), (a.vector.clone(), 0.5));
        assert!(a.concat(&entry(&[1.0; 3], 1, None)).is_err());
        assert!(a.concat(&entry(&[], 0, None)).is_err());
    }

    #[test]
    fn average_fills_up_or_cuts_and_leaves_sizes_alone() {
        let long = entry(&[2.0, 4.0, 8.0, 16.0], 2, Some(1.0));
        let short = entry(&[1.0, 1.0], 1, Some(3.0));
        let mixed = long.average(&short, 0.75).unwrap();
        assert_eq!(mixed.context.as_slice(), [1.75, 3.25, 6.0, 12.0]);
        let vector = mixed.vector.unwrap();
        assert_eq!((vector[..2].to_vec(), &vector[2..]), (vec![1.5; 2], &[0.1; SIZES][..]));
        let mixed = short.average(&long, 0.75).unwrap();
        assert_eq!((mixed.context.as_slice(), mixed.tokens), (&[1.25, 1.75][..], 1));
        // A side without a pooled vector takes the other's.
        assert_eq!(entry(&[1.0, 1.0], 1, None).average(&short, 0.5).unwrap().vector, short.vector);
        assert!(long.average(&short, f64::NAN).is_err());
    }

    #[test]
    fn zeroed_is_no_text() {
        let none = entry(&[2.0, 4.0], 1, Some(1.0)).zeroed();
        assert_eq!(none.context.as_slice(), [0.0, 0.0]);
        let vector = none.vector.unwrap();
        assert!(vector[..2] == [0.0, 0.0] && vector[2] == 0.1);
    }

    #[test]
    fn areas_in_pixels_and_in_parts() {
        let area = |y, x, height, width| Area { y, x, height, width };
        assert_eq!(Area::of_pixels(64, 15, 200, 128), area(1, 8, 16, 25));
        assert_eq!(Area::of_parts(0.5, 0.0, 0.5, 1.0, Size::new(15, 20)), area(0, 8, 20, 8));
        // 0.5 · 25 = 12.5 goes to the even side.
        assert_eq!(Area::of_parts(0.0, 0.5, 0.01, 0.01, Size::square(25)), area(12, 0, 1, 1));
        assert_eq!(Area::of_parts(f64::NAN, -1.0, 0.0, 0.0, Size::square(8)), area(0, 0, 1, 1));
    }

    #[test]
    fn opposites_take_the_text_around_them() {
        let at = |value: f32, area: Option<Area>| Entry { area, ..entry(&[value], 1, None) };
        let area = |side| Some(Area { y: 0, x: 0, height: side, width: side });
        let both = Conditioning {
            positive: vec![at(1.0, None), at(2.0, area(4)), at(3.0, area(9))],
            negative: vec![at(-1.0, None), at(-2.0, area(5)), at(-3.0, None)],
        }
        .with_opposites();
        let list = |side: &[Entry]| -> Vec<(f32, Option<usize>)> {
            side.iter().map(|e| (e.context[0], e.area.map(|a| a.height))).collect()
        };
        let negative = [(-1.0, None), (-2.0, Some(5)), (-3.0, None), (-2.0, Some(4)), (-1.0, Some(9))];
        assert_eq!(list(&both.negative), negative);
        // 5 is within 9; 4 and 9 already have counterparts.
        assert_eq!(list(&both.positive), [(1.0, None), (2.0, Some(4)), (3.0, Some(9)), (3.0, Some(5))]);
        let again = both.clone().with_opposites();
        assert_eq!(again, both);
    }
}
