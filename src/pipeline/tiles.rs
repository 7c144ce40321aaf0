//! The autoencoder in overlapping tiles, for pictures whose activations do not fit the memory.
//!
//! A tile does not see beyond its edge, and its normalisations have statistics of their own; where
//! tiles overlap they are blended with weights that fall linearly towards an edge, so that no seam
//! shows. Tiles are all of one size: one plan serves all.

use std::ops::Range;
use std::str::FromStr;

use crate::{Error, Result};

/// Tiling of the autoencoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Tiling {
    /// Only if memory is short, in the largest tiles that fit.
    #[default]
    Auto,
    /// Never: a picture that does not fit is an error.
    Off,
    /// Always, in square tiles with a side of this many latent cells.
    Side(usize),
}

/// Side of the smallest tile in latent cells: smaller ones would be mostly overlap.
#[doc(hidden)]
pub const LEAST_SIDE: usize = 16;

impl FromStr for Tiling {
    type Err = Error;

    /// `auto`, `off` or the side in latent cells, at least 16.
    fn from_str(s: &str) -> Result<Self> {
        match (s, s.parse()) {
            ("auto", _) => Ok(Self::Auto),
            ("off", _) => Ok(Self::Off),
            (_, Ok(side)) if side >= LEAST_SIDE => Ok(Self::Side(side)),
            _ => Err(Error::usage("not a tile size")
                .expected(format!("`auto`, `off` or the side in latent cells, at least {LEAST_SIDE}"))
                .found(s)),
        }
    }
}

/// Positions of the tiles of a picture, in latent cells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tiles {
    /// Height and width of every tile.
    pub size: (usize, usize),
    /// Height and width of the picture.
    pub whole: (usize, usize),
    /// First row and column of each.
    pub corners: Vec<(usize, usize)>,
    /// Least overlap of neighbours.
    overlap: usize,
}

impl Tiles {
    /// Tiles of `side` cells, or of the picture's own side where that is smaller, over `whole`.
    /// A quarter of a tile overlaps.
    pub fn new(whole: (usize, usize), side: usize) -> Self {
        let size = (side.min(whole.0), side.min(whole.1));
        let overlap = (side / 4).max(1);
        let starts = |whole: usize, tile: usize| -> Vec<usize> {
            let free = whole - tile;
            // Evenly, so that the last tile overlaps no more than the others.
            let steps = free.div_ceil((tile - overlap.min(tile - 1)).max(1));
            (0..=steps).map(|i| free * i / steps.max(1)).collect()
        };
        let columns = starts(whole.1, size.1);
        let rows = starts(whole.0, size.0);
        let corners = rows.iter().flat_map(|y| columns.iter().map(move |x| (*y, *x))).collect();
        Self { size, whole, corners, overlap }
    }

    /// Blends tiles: `tile` gives the values `[height · scale, width · scale, channels]` of
    /// the tile at a corner, the result is the full picture in the same layout. With `scale` 1 that is a
    /// latent from pieces of a picture.
    ///
    /// # Errors
    /// Those of `tile`.
    pub fn blend(
        &self,
        scale: usize,
        channels: usize,
        mut tile: impl FnMut((usize, usize)) -> Result<Vec<f32>>,
    ) -> Result<Vec<f32>> {
        let (height, width) = (self.whole.0 * scale, self.whole.1 * scale);
        let mut sum = vec![0.0f32; height * width * channels];
        let mut weights = vec![0.0f32; height * width];
        for &corner in &self.corners {
            let values = tile(corner)?;
            let ys = self.ramp(corner.0, self.size.0, self.whole.0, scale);
            let xs = self.ramp(corner.1, self.size.1, self.whole.1, scale);
            for (y, wy) in ys.iter().enumerate() {
                for (x, wx) in xs.iter().enumerate() {
                    let at = (corner.0 * scale + y) * width + corner.1 * scale + x;
                    let from = (y * xs.len() + x) * channels;
                    weights[at] += wy * wx;
                    for c in 0..channels {
                        sum[at * channels + c] += wy * wx * values[from + c];
                    }
                }
            }
        }
        for (values, weight) in sum.chunks_exact_mut(channels).zip(&weights) {
            values.iter_mut().for_each(|v| *v /= weight);
        }
        Ok(sum)
    }

    /// Weights along a side of a tile: 1, falling towards the edges that have a neighbour.
    fn ramp(&self, first: usize, side: usize, whole: usize, scale: usize) -> Vec<f32> {
        let (side, slope) = (side * scale, (self.overlap * scale) as f32);
        let falls = |inner: bool, distance: usize| if inner { (distance as f32 + 0.5) / slope } else { 1.0 };
        (0..side)
            .map(|at| {
                let before = falls(first > 0, at);
                let behind = falls(first * scale + side < whole * scale, side - 1 - at);
                before.min(behind).min(1.0)
            })
            .collect()
    }

    /// The cells of a tile: rows and columns of the whole.
    pub fn cells(&self, corner: (usize, usize)) -> (Range<usize>, Range<usize>) {
        (corner.0..corner.0 + self.size.0, corner.1..corner.1 + self.size.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tiles of a picture blend to the picture, for all sizes.
    #[test]
    fn tiles_cover_the_picture() {
        for whole in [(1, 1), (16, 16), (17, 16), (40, 99), (64, 33), (128, 128)] {
            for side in [16, 17, 32, 64] {
                let tiles = Tiles::new(whole, side);
                for scale in [1, 3] {
                    let value = |y: usize, x: usize| (y * 1000 + x) as f32;
                    let made = tiles
                        .blend(scale, 2, |corner| {
                            let (rows, columns) = tiles.cells(corner);
                            let mut values = Vec::new();
                            for y in rows.start * scale..rows.end * scale {
                                for x in columns.start * scale..columns.end * scale {
                                    values.extend([value(y, x), -value(y, x)]);
                                }
                            }
                            Ok(values)
                        })
                        .expect("tiles");
                    for (at, v) in made.chunks_exact(2).enumerate() {
                        let want = value(at / (whole.1 * scale), at % (whole.1 * scale));
                        assert!((v[0] - want).abs() <= want * 1e-6 && v[1] == -v[0], "{whole:?} {side} {at}");
                    }
                }
            }
        }
    }
}
