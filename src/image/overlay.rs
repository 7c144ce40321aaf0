//! What Self-Attention Guidance looks at, made visible: the attention that each place receives as
//! colours, and the mask that follows from it as a tint with a rim. Both lie over a grey or coloured
//! preview of the same step, in steps of whole cells, so that no detail is shown that is not there.

use super::Picture;
use crate::latent::attention_map::{Columns, nearest};
use crate::{Error, Result, Size};

/// Dark to bright, as matplotlib's *inferno* has it at eighths (Smith and van der Walt, CC0).
const HEAT: [[f32; 3]; 9] = [
    [0.0, 0.0, 4.0],
    [31.0, 12.0, 72.0],
    [85.0, 15.0, 109.0],
    [136.0, 34.0, 106.0],
    [186.0, 54.0, 85.0],
    [227.0, 89.0, 51.0],
    [249.0, 140.0, 10.0],
    [249.0, 201.0, 50.0],
    [252.0, 255.0, 164.0],
];
/// Share of the heat's colour over the preview.
const STRENGTH: f32 = 0.75;
/// The mask's colour, which the heat has nowhere, and its share.
const TINT: [f32; 3] = [0.0, 170.0, 255.0];
const SHARE: f32 = 0.45;
const RIM: [u8; 3] = [255, 255, 255];

/// The colour of attention `value`, where `middle` (SAG's threshold) is the middle of the scale and
/// twice that its bright end.
#[doc(hidden)]
pub fn colour(value: f32, middle: f32) -> [u8; 3] {
    let share = value / (2.0 * middle.max(1e-3));
    let at = if share.is_finite() { share.clamp(0.0, 1.0) } else { 1.0 } * (HEAT.len() - 1) as f32;
    let (low, part) = ((at as usize).min(HEAT.len() - 2), at - (at as usize).min(HEAT.len() - 2) as f32);
    std::array::from_fn(|c| (HEAT[low][c] + (HEAT[low + 1][c] - HEAT[low][c]) * part).round() as u8)
}

/// The column sums of a step over `preview` in grey; `middle` is the value in the middle of the colour scale.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for a preview without pixels, and for bytes or sums that do not fit
/// their size.
pub fn heat(preview: &Picture, columns: &Columns, middle: f32) -> Result<Picture> {
    preview.check()?;
    fits("the column sums do not fit their map", columns.values.len(), (columns.height, columns.width))?;
    Ok(paint(preview, |x, y, [r, g, b]| {
        let row = nearest(y, columns.height, preview.height);
        let column = nearest(x, columns.width, preview.width);
        let heat = colour(columns.values[row * columns.width + column], middle);
        let grey = 0.299 * f32::from(r) + 0.587 * f32::from(g) + 0.114 * f32::from(b);
        heat.map(|h| (f32::from(h) * STRENGTH + grey * (1.0 - STRENGTH)) as u8)
    }))
}

/// The cells of `mask` (`[height, width]` of `size`, not 0 where SAG blurs) over `preview`: tinted, with a rim.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for a preview without pixels, and for bytes or cells that do not fit
/// their size.
pub fn mask(preview: &Picture, mask: &[u8], size: Size) -> Result<Picture> {
    let Size { width, height } = size;
    preview.check()?;
    fits("the mask does not fit its size", mask.len(), (height, width))?;
    let masked = |x: usize, y: usize| {
        mask[nearest(y, height, preview.height) * width + nearest(x, width, preview.width)] != 0
    };
    Ok(paint(preview, |x, y, rgb| {
        let inside = masked(x, y);
        // Two pixels wide: one on each side of the edge.
        let beside = [(x.wrapping_sub(1), y), (x + 1, y), (x, y.wrapping_sub(1)), (x, y + 1)];
        let here = |&(x, y): &(usize, usize)| x < preview.width && y < preview.height;
        if beside.iter().filter(|at| here(at)).any(|&(x, y)| masked(x, y) != inside) {
            return RIM;
        }
        if !inside {
            return rgb;
        }
        std::array::from_fn(|c| (f32::from(rgb[c]) * (1.0 - SHARE) + TINT[c] * SHARE) as u8)
    }))
}

/// Checks that there are cells, and a value for each.
fn fits(what: &str, values: usize, (height, width): (usize, usize)) -> Result<()> {
    if values > 0 && height.checked_mul(width) == Some(values) {
        return Ok(());
    }
    Err(Error::usage(what)
        .expected(format!("a value for each of {height}x{width} cells"))
        .found(values.to_string()))
}

fn paint(picture: &Picture, pixel: impl Fn(usize, usize, [u8; 3]) -> [u8; 3]) -> Picture {
    let pixels = picture.rgb.chunks_exact(3).enumerate();
    let rgb = pixels.flat_map(|(at, p)| pixel(at % picture.width, at / picture.width, [p[0], p[1], p[2]]));
    Picture { rgb: rgb.collect(), ..*picture }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heat_and_mask_lie_where_they_belong() {
        let preview = Picture { width: 8, height: 8, rgb: vec![100; 8 * 8 * 3] };
        let columns = Columns { height: 1, width: 2, values: vec![0.0, 2.0] };
        let heat = heat(&preview, &columns, 1.0).unwrap();
        let at = |p: &Picture, x: usize, y: usize| [0, 1, 2].map(|c| p.rgb[(y * 8 + x) * 3 + c]);
        assert_eq!((at(&heat, 3, 0), at(&heat, 4, 7)), ([25, 25, 28], [214, 216, 148]));
        let mask = super::mask(&preview, &[1, 0, 0, 0], Size::square(2)).unwrap();
        assert_eq!((at(&mask, 0, 0), at(&mask, 7, 7)), ([55, 131, 169], [100; 3]));
        // The rim, on both sides of the edge.
        assert_eq!((at(&mask, 3, 0), at(&mask, 4, 0), at(&mask, 5, 0)), (RIM, RIM, [100; 3]));
        assert_eq!(colour(f32::NAN, 1.0), colour(9.0, 1.0));
    }
}
