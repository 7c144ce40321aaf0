//! Converts latents between the host, `[image, channel, y, x]`, and the device, `[image, y, x, channel]` with channels
//! padded to multiples of four.

use crate::latent::Latent;

/// Values `[image, channel, y, x]` in the layout of the device.
pub fn to_quads(latent: &Latent) -> Vec<u32> {
    let [images, channels, height, width] = latent.shape();
    let (cells, stored) = (height * width, channels.next_multiple_of(4));
    let mut quads = vec![0; images * cells * stored];
    for (image, to) in quads.chunks_exact_mut((cells * stored).max(1)).enumerate() {
        for (c, plane) in latent.image(image).chunks_exact(cells.max(1)).enumerate() {
            plane.iter().zip(to.chunks_exact_mut(stored)).for_each(|(v, cell)| cell[c] = v.to_bits());
        }
    }
    quads
}

/// The inverse of [`to_quads`].
pub fn from_quads(words: &[u32], shape: [usize; 4]) -> Latent {
    let [images, channels, height, width] = shape;
    let (cells, stored) = (height * width, channels.next_multiple_of(4));
    let mut latent = Latent::zeros(images, channels, height, width);
    for (image, from) in words.chunks_exact((cells * stored).max(1)).enumerate().take(images) {
        for (c, plane) in latent.image_mut(image).chunks_exact_mut(cells.max(1)).enumerate() {
            plane
                .iter_mut()
                .zip(from.chunks_exact(stored))
                .for_each(|(v, cell)| *v = f32::from_bits(cell[c]));
        }
    }
    latent
}
