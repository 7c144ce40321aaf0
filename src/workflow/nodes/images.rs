//! Nodes that load, scale, encode and decode pictures.

use std::sync::Arc;

use super::super::run::{Event, Work};
use super::super::value::{Arguments, Images, Latents, Value};
use super::Function::{Plain, Working};
use super::latents::{CROPS, upscaled_by};
use super::{Class, FileKind, Type, choice, file, float, int, pixels, socket};
use crate::Size;
use crate::image::{Mask, Picture, resize as pictures};
use crate::latent::Latent;
use crate::latent::resize::{self, Method};
use crate::pipeline::{self, Autoencoder, Tiling};
use crate::{Error, Result};

/// ComfyUI's methods for pictures.
const METHODS: &[&str] = &["nearest-exact", "bilinear", "area", "bicubic", "lanczos"];
/// Sides of tiles in pixels.
const TILE: (i128, i128) = (64, 4096);
/// The input that tells them.
pub(in super::super) const TILE_SIZE: &str = "tile_size";

pub(in super::super) const CLASSES: &[Class] = &[
    Class {
        name: "LoadImage",
        inputs: &[file("image", FileKind::Image)],
        outputs: &[Type::Image, Type::Mask],
        is_output: false,
        run: Working(load),
    },
    Class {
        name: "VAEDecode",
        inputs: &[socket("samples", Type::Latent), socket("vae", Type::Vae)],
        outputs: &[Type::Image],
        is_output: false,
        run: Working(decode),
    },
    Class {
        name: "VAEDecodeTiled",
        inputs: &[
            socket("samples", Type::Latent),
            socket("vae", Type::Vae),
            int(TILE_SIZE, 512, TILE.0, TILE.1).or_default(),
            int("overlap", 64, 0, 4096).or_default(),
            int("temporal_size", 64, 8, 4096).or_default(),
            int("temporal_overlap", 8, 4, 4096).or_default(),
        ],
        outputs: &[Type::Image],
        is_output: false,
        run: Working(decode_tiled),
    },
    Class {
        name: "VAEEncode",
        inputs: &[socket("pixels", Type::Image), socket("vae", Type::Vae)],
        outputs: &[Type::Latent],
        is_output: false,
        run: Working(encode),
    },
    Class {
        name: "VAEEncodeTiled",
        inputs: &[
            socket("pixels", Type::Image),
            socket("vae", Type::Vae),
            int(TILE_SIZE, 512, TILE.0, TILE.1).or_default(),
            int("overlap", 64, 0, 4096).or_default(),
            int("temporal_size", 64, 8, 4096).or_default(),
            int("temporal_overlap", 8, 4, 4096).or_default(),
        ],
        outputs: &[Type::Latent],
        is_output: false,
        run: Working(encode_tiled),
    },
    Class {
        name: "VAEEncodeForInpaint",
        inputs: &[
            socket("pixels", Type::Image),
            socket("vae", Type::Vae),
            socket("mask", Type::Mask),
            int("grow_mask_by", 6, 0, 64).or_default(),
        ],
        outputs: &[Type::Latent],
        is_output: false,
        run: Working(encode_for_inpaint),
    },
    Class {
        name: "ImageScale",
        inputs: &[
            socket("image", Type::Image),
            choice("upscale_method", METHODS),
            pixels("width", 512, 0),
            pixels("height", 512, 0),
            choice("crop", CROPS),
        ],
        outputs: &[Type::Image],
        is_output: false,
        run: Working(scale),
    },
    Class {
        name: "ImageScaleBy",
        inputs: &[
            socket("image", Type::Image),
            choice("upscale_method", METHODS),
            float("scale_by", 1.0, 0.01, 8.0),
        ],
        outputs: &[Type::Image],
        is_output: false,
        run: Working(scale_by),
    },
    Class {
        name: "ImageInvert",
        inputs: &[socket("image", Type::Image)],
        outputs: &[Type::Image],
        is_output: false,
        run: Plain(invert),
    },
    Class {
        name: "ImageBatch",
        inputs: &[socket("image1", Type::Image), socket("image2", Type::Image)],
        outputs: &[Type::Image],
        is_output: false,
        run: Working(batch),
    },
    Class {
        name: "EmptyImage",
        inputs: &[
            pixels("width", 512, 1),
            pixels("height", 512, 1),
            int("batch_size", 1, 1, 4096),
            int("color", 0, 0, 0xFF_FFFF).or_default(),
        ],
        outputs: &[Type::Image],
        is_output: false,
        run: Working(empty),
    },
];

fn made(images: Images) -> Result<Vec<Value>> {
    Ok(vec![Value::Image(Arc::new(images))])
}

fn load(work: &mut Work<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let read = work.files.picture(args.text("image")?)?;
    let (pixels, _) = read.rgba.as_chunks::<4>();
    let rgb = pixels.iter().flat_map(|p| [p[0], p[1], p[2]]).map(|v| f32::from(v) / 255.0).collect();
    // Without alpha ComfyUI gives a mask of 64×64 that hides nothing.
    let mask = match read.has_alpha {
        true => Mask::new(
            Size::new(read.width, read.height),
            pixels.iter().map(|p| 1.0 - f32::from(p[3]) / 255.0).collect(),
        )?,
        false => Mask::new(Size::square(64), vec![0.0; 64 * 64])?,
    };
    let images = Images { width: read.width, height: read.height, frames: vec![rgb] };
    Ok(vec![Value::Image(Arc::new(images)), Value::Mask(Arc::new(vec![mask]))])
}

fn decode(work: &mut Work<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    decoded(work, args, args.vae("vae")?)
}

fn decode_tiled(work: &mut Work<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    decoded(work, args, &in_tiles(args)?)
}

/// The autoencoder with tiles of the node's size.
fn in_tiles(args: &Arguments<'_>) -> Result<Autoencoder> {
    Ok(with_tiles(args.vae("vae")?, args.size(TILE_SIZE)?))
}

/// An autoencoder with tiles of so many pixels a side. Their overlap is a quarter of a side here.
pub(in super::super) fn with_tiles(vae: &Autoencoder, pixels: usize) -> Autoencoder {
    vae.in_tiles(Tiling::Side((pixels / vae.cell()).max(pipeline::LEAST_SIDE)))
}

fn decoded(work: &mut Work<'_>, args: &Arguments<'_>, vae: &Autoencoder) -> Result<Vec<Value>> {
    let samples = &args.latent("samples")?.samples;
    let [batch, channels, height, width] = samples.shape();
    if channels != vae.latent_channels() {
        return Err(Error::usage("the latent does not fit the autoencoder")
            .expected(format!("{} channels", vae.latent_channels()))
            .found(channels.to_string()));
    }
    let (height, width) = (height * vae.cell(), width * vae.cell());
    work.room("the batch of pictures", &[batch, height, width, 3])?;
    let mut observe = |event: pipeline::Progress| (work.observe)(Event::Work(event));
    let frames = vae.decode(work.options.limits.memory, samples, &mut observe, work.cancel)?;
    let unit = |frame: Vec<f32>| frame.into_iter().map(|v| ((v + 1.0) / 2.0).clamp(0.0, 1.0)).collect();
    made(Images { width, height, frames: frames.into_iter().map(unit).collect() })
}

fn encode(work: &mut Work<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let samples = encoded(work, args.vae("vae")?, args.image("pixels")?)?;
    Ok(vec![Value::Latent(Arc::new(Latents::new(samples)))])
}

fn encode_tiled(work: &mut Work<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let samples = encoded(work, &in_tiles(args)?, args.image("pixels")?)?;
    Ok(vec![Value::Latent(Arc::new(Latents::new(samples)))])
}

/// The latents of pictures, whose middle is taken where a side is no multiple of 8.
fn encoded(work: &mut Work<'_>, vae: &Autoencoder, images: &Images) -> Result<Latent> {
    let cell = vae.cell();
    let (height, width) = (images.height / cell * cell, images.width / cell * cell);
    encodable((images.height, images.width), cell)?;
    (work.observe)(Event::Work(pipeline::Progress::EncodingPicture));
    let mut rows = Vec::new();
    for frame in &images.centre(height, width).frames {
        let values: Vec<f32> = frame.iter().map(|v| v * 2.0 - 1.0).collect();
        let mut observe = |event: pipeline::Progress| (work.observe)(Event::Work(event));
        rows.push(vae.encode(
            work.options.limits.memory,
            (height, width),
            &values,
            &mut observe,
            work.cancel,
        )?);
    }
    Latent::stacked(&rows.iter().collect::<Vec<_>>())
}

/// # Errors
/// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for a picture with less than one cell.
pub(in super::super) fn encodable((height, width): (usize, usize), cell: usize) -> Result<()> {
    if height.min(width) >= cell {
        return Ok(());
    }
    Err(Error::usage("the picture is too small for the autoencoder")
        .expected(format!("at least {cell} pixels a side"))
        .found(format!("{width}x{height}")))
}

/// What the mask covers goes grey before it is encoded; the mask for the noise is a little larger, so
/// that no seam is left in the latent.
fn encode_for_inpaint(work: &mut Work<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let (vae, images, grow) = (args.vae("vae")?, args.image("pixels")?, args.size("grow_mask_by")?);
    let cell = vae.cell();
    let (height, width) = (images.height / cell * cell, images.width / cell * cell);
    let mut hidden = images.centre(height, width);
    let mut masks = Vec::new();
    for mask in args.mask("mask")?.iter() {
        let whole = mask.to_latent(Size::new(images.width, images.height));
        let whole = Mask::new(Size::new(images.width, images.height), whole.data().to_vec())?;
        let rounded: Vec<f32> =
            whole.centre(Size::new(width, height)).weights().iter().map(|w| w.round_ties_even()).collect();
        masks.push(rounded);
    }
    for (frame, mask) in hidden.frames.iter_mut().zip(masks.iter().cycle()) {
        let (pixels, _) = frame.as_chunks_mut::<3>();
        for (pixel, m) in pixels.iter_mut().zip(mask) {
            pixel.iter_mut().for_each(|v| *v = (*v - 0.5) * (1.0 - m) + 0.5);
        }
    }
    let samples = encoded(work, vae, &hidden)?;
    let grown = |mask: &Vec<f32>| Mask::new(Size::new(width, height), grown(mask, (height, width), grow));
    let noise_mask = Some(Arc::new(masks.iter().map(grown).collect::<Result<Vec<_>>>()?));
    Ok(vec![Value::Latent(Arc::new(Latents { noise_mask, ..Latents::new(samples) }))])
}

/// A mask of 0 and 1, 1 also where a square of `by` pixels that begins half its side before touches a 1.
fn grown(mask: &[f32], (height, width): (usize, usize), by: usize) -> Vec<f32> {
    if by == 0 {
        return mask.to_vec();
    }
    // ⌈(by - 1) / 2⌉, ComfyUI's padding: an even square reaches farther back than ahead.
    let back = by / 2;
    let along = |line: &dyn Fn(usize) -> f32, len: usize| -> Vec<f32> {
        let span = |at: usize| at.saturating_sub(back)..(at + by - back).min(len);
        (0..len).map(|at| f32::from(span(at).any(|i| line(i) > 0.0))).collect()
    };
    let rows: Vec<f32> = (0..height).flat_map(|y| along(&|x| mask[y * width + x], width)).collect();
    let columns: Vec<Vec<f32>> = (0..width).map(|x| along(&|y| rows[y * width + x], height)).collect();
    (0..height * width).map(|i| columns[i % width][i / width]).collect()
}

fn scale(work: &mut Work<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let images = args.image("image")?;
    let Some((height, width)) = scaled_to(args, (images.height, images.width))? else {
        return Ok(vec![Value::Image(images.clone())]);
    };
    work.room("the pictures", &[images.frames.len(), height, width, 3])?;
    made(images.scaled(height, width, args.text("upscale_method")?, args.text("crop")? == "center")?)
}

/// Height and width in pixels that ImageScale makes of those it is given; None if they stay.
pub(in super::super) fn scaled_to(
    args: &Arguments<'_>,
    (own_height, own_width): (usize, usize),
) -> Result<Option<(usize, usize)>> {
    let (width, height) = (args.size("width")?, args.size("height")?);
    let beside = |given: usize, side: usize, other: usize| {
        ((side as f64 * given as f64 / other as f64).round_ties_even() as usize).max(1)
    };
    Ok(match (width, height) {
        (0, 0) => None,
        (0, height) => Some((height, beside(height, own_width, own_height))),
        (width, 0) => Some((beside(width, own_height, own_width), width)),
        (width, height) => Some((height, width)),
    })
}

fn scale_by(work: &mut Work<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let images = args.image("image")?;
    let (height, width) = upscaled_by(args, (images.height, images.width))?;
    work.room("the pictures", &[images.frames.len(), height, width, 3])?;
    made(images.scaled(height, width, args.text("upscale_method")?, false)?)
}

fn invert(args: &Arguments<'_>) -> Result<Vec<Value>> {
    let images = args.image("image")?;
    let frames = images.frames.iter().map(|frame| frame.iter().map(|v| 1.0 - v).collect()).collect();
    made(Images { frames, ..**images })
}

fn batch(work: &mut Work<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let (first, second) = (args.image("image1")?, args.image("image2")?);
    let same = (first.width, first.height) == (second.width, second.height);
    work.room("the pictures", &[first.frames.len() + second.frames.len(), first.height, first.width, 3])?;
    let second =
        if same { (**second).clone() } else { second.scaled(first.height, first.width, "bilinear", true)? };
    made(Images { frames: [first.frames.clone(), second.frames].concat(), ..**first })
}

fn empty(work: &mut Work<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let (batch, height, width) = (args.size("batch_size")?, args.size("height")?, args.size("width")?);
    work.room("the pictures", &[batch, height, width, 3])?;
    let colour = args.size("color")?;
    let rgb = [16, 8, 0].map(|shift| (colour >> shift & 0xFF) as f32 / 255.0);
    made(Images { width, height, frames: vec![rgb.repeat(height * width); batch] })
}

impl Images {
    /// The middle of each picture.
    fn centre(&self, height: usize, width: usize) -> Self {
        let (top, left) = ((self.height - height) / 2, (self.width - width) / 2);
        let line = |frame: &[f32], y: usize| {
            let from = ((top + y) * self.width + left) * 3;
            frame[from..from + width * 3].to_vec()
        };
        let cut = |frame: &Vec<f32>| (0..height).flat_map(|y| line(frame, y)).collect();
        Self { width, height, frames: self.frames.iter().map(cut).collect() }
    }

    /// Each picture at another size; `cut` keeps the proportion by cutting what is over.
    fn scaled(&self, height: usize, width: usize, method: &str, cut: bool) -> Result<Self> {
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

    /// ComfyUI's convolution, term by term.
    #[test]
    fn masks_grow_as_comfyuis_convolution_has_them() {
        let (height, width) = (11, 9);
        let mut mask = vec![0.0f32; height * width];
        mask[4 * width + 5] = 1.0;
        mask[10 * width] = 1.0;
        for by in [0, 1, 2, 3, 6, 7, 30] {
            let padding = by / 2;
            let at = |y: usize, x: usize| {
                let inside =
                    |i: usize, k: usize, len: usize| (i + k).checked_sub(padding).filter(|i| *i < len);
                (0..by.max(1)).any(|dy| {
                    (0..by.max(1)).any(|dx| match (inside(y, dy, height), inside(x, dx, width)) {
                        (Some(y), Some(x)) => mask[y * width + x] > 0.0,
                        _ => false,
                    })
                })
            };
            let want: Vec<f32> = (0..height * width).map(|i| f32::from(at(i / width, i % width))).collect();
            assert_eq!(grown(&mask, (height, width), by), want, "{by}");
        }
    }

    #[test]
    fn pictures_scale_and_keep_their_colours() {
        let frame: Vec<f32> = (0..4 * 6).flat_map(|i| [i as f32 / 24.0, 0.25, 1.0]).collect();
        let images = Images { width: 6, height: 4, frames: vec![frame; 2] };
        for method in METHODS {
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
