//! Batches of pictures, cut and scaled.

use crate::Result;
use crate::image::{Picture, resize as pictures};
use crate::latent::Latent;
use crate::latent::resize::{self, Method};

/// ComfyUI's methods of scaling pictures.
pub(crate) const SCALE_METHODS: &[&str] = &["nearest-exact", "bilinear", "area", "bicubic", "lanczos"];

/// A batch of pictures of one size, RGB in 0..1.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Images {
    pub width: usize,
    pub height: usize,
    /// `[height, width, 3]` each.
    pub frames: Vec<Vec<f32>>,
}

impl Images {
    /// The middle of each picture.
    pub fn centre(&self, height: usize, width: usize) -> Self {
        let (top, left) = ((self.height - height) / 2, (self.width - width) / 2);
        let line = |frame: &[f32], y: usize| {
            let from = ((top + y) * self.width + left) * 3;
            frame[from..from + width * 3].to_vec()
        };
        let cut = |frame: &Vec<f32>| (0..height).flat_map(|y| line(frame, y)).collect();
        Self { width, height, frames: self.frames.iter().map(cut).collect() }
    }

    /// Each picture at another size; `cut` keeps the proportion by cutting what is over.
    pub fn scaled(&self, height: usize, width: usize, method: &str, cut: bool) -> Result<Self> {
        let mut frames = Vec::new();
        for frame in &self.frames {
            let planes = self.planes(frame)?;
            let middle = if cut { resize::middle(&planes, height, width) } else { planes };
            frames.push(match Method::named(method) {
                Some(method) => interleaved(&resize::resized(&middle, height, width, method)?),
                None => lanczos(&middle, height, width)?,
            });
        }
        Ok(Self { width, height, frames })
    }

    /// A picture as `[1, 3, height, width]`.
    fn planes(&self, frame: &[f32]) -> Result<Latent> {
        let planes = (0..3).flat_map(|c| frame.iter().skip(c).step_by(3).copied()).collect();
        Latent::from_vec([1, 3, self.height, self.width], planes)
    }
}

fn interleaved(planes: &Latent) -> Vec<f32> {
    let cells = planes.height() * planes.width();
    (0..cells * 3).map(|i| planes.data()[i % 3 * cells + i / 3]).collect()
}

/// By way of 8 bits, as ComfyUI has it.
fn lanczos(planes: &Latent, height: usize, width: usize) -> Result<Vec<f32>> {
    let rgb = interleaved(planes).into_iter().map(|v| (255.0 * v).clamp(0.0, 255.0) as u8).collect();
    let picture = Picture { width: planes.width(), height: planes.height(), rgb };
    Ok(pictures::lanczos(&picture, width, height)?.rgb.into_iter().map(|v| f32::from(v) / 255.0).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_scale_and_keep_their_colours() {
        let frame: Vec<f32> = (0..4 * 6).flat_map(|i| [i as f32 / 24.0, 0.25, 1.0]).collect();
        let images = Images { width: 6, height: 4, frames: vec![frame; 2] };
        for method in SCALE_METHODS {
            let scaled = images.scaled(8, 8, method, true).unwrap();
            assert_eq!(
                (scaled.width, scaled.height, scaled.frames.len(), scaled.frames[1].len()),
                (8, 8, 2, 192)
            );
            for p in scaled.frames[0].chunks(3) {
                assert!((p[1] - 0.25).abs() < 4e-3 && (p[2] - 1.0).abs() < 1e-5, "{method} {p:?}");
            }
        }
        assert_eq!(images.scaled(4, 6, "bilinear", false).unwrap(), images);
    }
}
