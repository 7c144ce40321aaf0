//! A rough picture of a latent without the VAE: each RGB channel a linear function of the four
//! latent channels, one pixel a cell.

use super::Picture;
use crate::families::PreviewFactors;
use crate::latent::Latent;

/// The first picture of `latent`, which is in the UNet's scale.
pub fn preview(latent: &Latent, factors: &PreviewFactors) -> Picture {
    let [_, channels, height, width] = latent.shape();
    let values = latent.data();
    if values.is_empty() {
        return Picture { width: 0, height: 0, rgb: Vec::new() };
    }
    let mut rgb = Vec::with_capacity(height * width * 3);
    for at in 0..height * width {
        for (k, offset) in factors[4].iter().enumerate() {
            let channels = factors[..4].iter().take(channels).enumerate();
            let sum: f32 = channels.map(|(c, f)| values[c * height * width + at] * f[k]).sum();
            rgb.push((127.5 * (sum + offset + 1.0)).clamp(0.0, 255.0) as u8);
        }
    }
    Picture { width, height, rgb }
}
