//! Nodes that load, scale, encode and decode pictures.

use std::sync::Arc;

use super::latents::{CROPS, upscaled_by};
use super::node_class::Function::{Plain, Working};
use super::node_class::{Hooks, NodeClass};
use crate::families::LATENT_CELL;
use crate::image::Mask;
use crate::latent::{Latent, VaeLatent};
use crate::pipeline::{self, Autoencoder, Tiling};
use crate::workflow::dry_run::known::{DryRunContext, Known, KnownInputs};
use crate::workflow::dry_run::sizes;
use crate::workflow::files::Files;
use crate::workflow::picture_settings::Contribution;
use crate::workflow::run::context::{Event, Options, RunContext, room};
use crate::workflow::spec::{Class, FileKind, Type, choice, file, float, int, pixels, socket};
use crate::workflow::value::{Arguments, Images, Latents, SCALE_METHODS, Value};
use crate::{Error, Result, Size};

/// Sides of tiles in pixels.
const TILE: (i128, i128) = (64, 4096);
/// The input that sets them.
const TILE_SIZE: &str = "tile_size";

pub(super) const CLASSES: &[NodeClass] = &[
    NodeClass {
        spec: Class {
            name: "LoadImage",
            title: "Load Image",
            category: "image",
            inputs: &[file("image", FileKind::Image)],
            outputs: &[Type::Image, Type::Mask],
            ..Class::BLANK
        },
        run: Working(load),
        hooks: Hooks { dry_run: Some(load_known), ..Hooks::NONE },
    },
    NodeClass {
        spec: Class {
            name: "VAEDecode",
            title: "VAE Decode",
            category: "latent",
            inputs: &[socket("samples", Type::Latent), socket("vae", Type::Vae)],
            outputs: &[Type::Image],
            ..Class::BLANK
        },
        run: Working(decode),
        hooks: Hooks { dry_run: Some(decode_known), memory: Some(decode_fits), ..Hooks::NONE },
    },
    NodeClass {
        spec: Class {
            name: "VAEDecodeTiled",
            title: "VAE Decode (Tiled)",
            category: "_for_testing",
            inputs: &[
                socket("samples", Type::Latent),
                socket("vae", Type::Vae),
                int(TILE_SIZE, 512, TILE.0, TILE.1).or_default(),
                int("overlap", 64, 0, 4096).or_default(),
                int("temporal_size", 64, 8, 4096).or_default(),
                int("temporal_overlap", 8, 4, 4096).or_default(),
            ],
            outputs: &[Type::Image],
            ..Class::BLANK
        },
        run: Working(decode_tiled),
        hooks: Hooks { dry_run: Some(decode_known), memory: Some(decode_tiled_fits), ..Hooks::NONE },
    },
    NodeClass {
        spec: Class {
            name: "VAEEncode",
            title: "VAE Encode",
            category: "latent",
            inputs: &[socket("pixels", Type::Image), socket("vae", Type::Vae)],
            outputs: &[Type::Latent],
            ..Class::BLANK
        },
        run: Working(encode),
        hooks: Hooks { dry_run: Some(encode_known), memory: Some(encode_fits), ..Hooks::NONE },
    },
    NodeClass {
        spec: Class {
            name: "VAEEncodeTiled",
            title: "VAE Encode (Tiled)",
            category: "_for_testing",
            inputs: &[
                socket("pixels", Type::Image),
                socket("vae", Type::Vae),
                int(TILE_SIZE, 512, TILE.0, TILE.1).or_default(),
                int("overlap", 64, 0, 4096).or_default(),
                int("temporal_size", 64, 8, 4096).or_default(),
                int("temporal_overlap", 8, 4, 4096).or_default(),
            ],
            outputs: &[Type::Latent],
            ..Class::BLANK
        },
        run: Working(encode_tiled),
        hooks: Hooks { dry_run: Some(encode_known), memory: Some(encode_tiled_fits), ..Hooks::NONE },
    },
    NodeClass {
        spec: Class {
            name: "VAEEncodeForInpaint",
            title: "VAE Encode (for Inpainting)",
            category: "latent/inpaint",
            inputs: &[
                socket("pixels", Type::Image),
                socket("vae", Type::Vae),
                socket("mask", Type::Mask),
                int("grow_mask_by", 6, 0, 64).or_default(),
            ],
            outputs: &[Type::Latent],
            ..Class::BLANK
        },
        run: Working(encode_for_inpaint),
        hooks: Hooks { dry_run: Some(encode_for_inpaint_known), memory: Some(encode_fits), ..Hooks::NONE },
    },
    NodeClass {
        spec: Class {
            name: "ImageScale",
            title: "Upscale Image",
            category: "image/upscaling",
            inputs: &[
                socket("image", Type::Image),
                choice("upscale_method", SCALE_METHODS),
                pixels("width", 512, 0),
                pixels("height", 512, 0),
                choice("crop", CROPS),
            ],
            outputs: &[Type::Image],
            ..Class::BLANK
        },
        run: Working(scale),
        hooks: Hooks {
            dry_run: Some(scale_known),
            settings: Some(Contribution::PictureOf("image")),
            ..Hooks::NONE
        },
    },
    NodeClass {
        spec: Class {
            name: "ImageScaleBy",
            title: "Upscale Image By",
            category: "image/upscaling",
            inputs: &[
                socket("image", Type::Image),
                choice("upscale_method", SCALE_METHODS),
                float("scale_by", 1.0, 0.01, 8.0),
            ],
            outputs: &[Type::Image],
            ..Class::BLANK
        },
        run: Working(scale_by),
        hooks: Hooks {
            dry_run: Some(scale_by_known),
            settings: Some(Contribution::PictureOf("image")),
            ..Hooks::NONE
        },
    },
    NodeClass {
        spec: Class {
            name: "ImageInvert",
            title: "Invert Image Colors",
            category: "image",
            inputs: &[socket("image", Type::Image)],
            outputs: &[Type::Image],
            ..Class::BLANK
        },
        run: Plain(invert),
        hooks: Hooks { dry_run: Some(invert_known), ..Hooks::NONE },
    },
    NodeClass {
        spec: Class {
            name: "ImageBatch",
            title: "Batch Images",
            category: "image",
            inputs: &[socket("image1", Type::Image), socket("image2", Type::Image)],
            outputs: &[Type::Image],
            ..Class::BLANK
        },
        run: Working(batch),
        hooks: Hooks { dry_run: Some(batch_known), ..Hooks::NONE },
    },
    NodeClass {
        spec: Class {
            name: "EmptyImage",
            title: "Empty Image",
            category: "image",
            inputs: &[
                pixels("width", 512, 1),
                pixels("height", 512, 1),
                int("batch_size", 1, 1, 4096),
                int("color", 0, 0, 0xFF_FFFF).or_default(),
            ],
            outputs: &[Type::Image],
            ..Class::BLANK
        },
        run: Working(empty),
        hooks: Hooks { check: Some(empty_check), dry_run: Some(empty_known), ..Hooks::NONE },
    },
];

fn made(images: Images) -> Result<Vec<Value>> {
    Ok(vec![Value::Image(Arc::new(images))])
}

fn load(work: &mut RunContext<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
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

fn load_known(inputs: &KnownInputs<'_>, context: &mut DryRunContext<'_, '_>) -> Result<Vec<Known>> {
    let Ok(name) = inputs.args.text("image") else { return Ok(Vec::new()) };
    let picture = context.files.picture(name)?;
    sizes::images(Some([1, picture.height, picture.width]))
}

fn decode(work: &mut RunContext<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    decoded(work, args, args.vae("vae")?)
}

fn decode_tiled(work: &mut RunContext<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    decoded(work, args, &in_tiles(args)?)
}

/// The autoencoder with tiles of the node's size.
fn in_tiles(args: &Arguments<'_>) -> Result<Autoencoder> {
    Ok(with_tiles(args.vae("vae")?, args.size(TILE_SIZE)?))
}

/// An autoencoder with tiles of so many pixels a side. Their overlap is a quarter of a side here.
fn with_tiles(vae: &Autoencoder, pixels: usize) -> Autoencoder {
    vae.in_tiles(Tiling::Side((pixels / vae.cell()).max(pipeline::LEAST_SIDE)))
}

fn decoded(work: &mut RunContext<'_>, args: &Arguments<'_>, vae: &Autoencoder) -> Result<Vec<Value>> {
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
    let frames =
        vae.decode(work.options.limits.memory, &VaeLatent::new(samples.clone()), &mut observe, work.cancel)?;
    let unit = |frame: Vec<f32>| frame.into_iter().map(|v| ((v + 1.0) / 2.0).clamp(0.0, 1.0)).collect();
    made(Images { width, height, frames: frames.into_iter().map(unit).collect() })
}

fn decode_known(inputs: &KnownInputs<'_>, _: &mut DryRunContext<'_, '_>) -> Result<Vec<Known>> {
    let pixels = |cells: usize| cells.saturating_mul(LATENT_CELL);
    let size = inputs.latents("samples").map(|latents| latents.size);
    sizes::images(size.map(|[n, h, w]| [n, pixels(h), pixels(w)]))
}

fn decode_fits(inputs: &KnownInputs<'_>, options: &Options) -> Result<()> {
    decoder_fits(inputs, None, options)
}

fn decode_tiled_fits(inputs: &KnownInputs<'_>, options: &Options) -> Result<()> {
    decoder_fits(inputs, tile(inputs), options)
}

/// The side of the tiles that a node sets, pixels.
fn tile(inputs: &KnownInputs<'_>) -> Option<usize> {
    inputs.args.size(TILE_SIZE).ok()
}

fn vae_known(inputs: &KnownInputs<'_>, tile: Option<usize>) -> Option<Autoencoder> {
    let Some(Known::Vae(vae)) = inputs.input("vae") else { return None };
    Some(match tile {
        Some(pixels) => with_tiles(vae, pixels),
        None => vae.clone(),
    })
}

fn decoder_fits(inputs: &KnownInputs<'_>, tile: Option<usize>, options: &Options) -> Result<()> {
    match (vae_known(inputs, tile), inputs.latents("samples").map(|latents| latents.size)) {
        (Some(vae), Some([_, height, width])) => vae.fits_decoder((height, width), options.limits.memory),
        _ => Ok(()),
    }
}

fn encode(work: &mut RunContext<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let samples = encoded(work, args.vae("vae")?, args.image("pixels")?)?;
    Ok(vec![Value::Latent(Arc::new(Latents::new(samples)))])
}

fn encode_tiled(work: &mut RunContext<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let samples = encoded(work, &in_tiles(args)?, args.image("pixels")?)?;
    Ok(vec![Value::Latent(Arc::new(Latents::new(samples)))])
}

fn encode_known(inputs: &KnownInputs<'_>, _: &mut DryRunContext<'_, '_>) -> Result<Vec<Known>> {
    latents_known(inputs, false)
}

fn latents_known(inputs: &KnownInputs<'_>, masked: bool) -> Result<Vec<Known>> {
    let Some([n, h, w]) = inputs.image("pixels") else { return Ok(Vec::new()) };
    encodable((h, w), LATENT_CELL)?;
    sizes::latents(Some([n, h / LATENT_CELL, w / LATENT_CELL]), masked)
}

fn encode_fits(inputs: &KnownInputs<'_>, options: &Options) -> Result<()> {
    encoder_fits(inputs, None, options)
}

fn encode_tiled_fits(inputs: &KnownInputs<'_>, options: &Options) -> Result<()> {
    encoder_fits(inputs, tile(inputs), options)
}

fn encoder_fits(inputs: &KnownInputs<'_>, tile: Option<usize>, options: &Options) -> Result<()> {
    match (vae_known(inputs, tile), inputs.image("pixels")) {
        (Some(vae), Some([_, height, width])) => {
            vae.fits_encoder((height / LATENT_CELL, width / LATENT_CELL), options.limits.memory)
        }
        _ => Ok(()),
    }
}

/// The latents of pictures, whose middle is taken where a side is no multiple of 8.
fn encoded(work: &mut RunContext<'_>, vae: &Autoencoder, images: &Images) -> Result<Latent> {
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
            Size::new(width, height),
            &values,
            &mut observe,
            work.cancel,
        )?);
    }
    Latent::stacked(&rows.iter().map(|row| &**row).collect::<Vec<_>>())
}

/// # Errors
/// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for a picture with less than one cell.
fn encodable((height, width): (usize, usize), cell: usize) -> Result<()> {
    if height.min(width) >= cell {
        return Ok(());
    }
    Err(Error::usage("the picture is too small for the autoencoder")
        .expected(format!("at least {cell} pixels a side"))
        .found(format!("{width}x{height}")))
}

/// What the mask covers goes grey before it is encoded; the mask for the noise is a little larger, so
/// that no seam is left in the latent.
fn encode_for_inpaint(work: &mut RunContext<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
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

fn encode_for_inpaint_known(inputs: &KnownInputs<'_>, _: &mut DryRunContext<'_, '_>) -> Result<Vec<Known>> {
    latents_known(inputs, true)
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

fn scale(work: &mut RunContext<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let images = args.image("image")?;
    let Some((height, width)) = scaled_to(args, (images.height, images.width))? else {
        return Ok(vec![Value::Image(images.clone())]);
    };
    work.room("the pictures", &[images.frames.len(), height, width, 3])?;
    made(images.scaled(height, width, args.text("upscale_method")?, args.text("crop")? == "center")?)
}

fn scale_known(inputs: &KnownInputs<'_>, _: &mut DryRunContext<'_, '_>) -> Result<Vec<Known>> {
    sizes::images(sizes::scaled(inputs.image("image"), |own| scaled_to(&inputs.args, own))?)
}

/// Height and width in pixels that ImageScale makes of those it is given; None if they stay.
fn scaled_to(
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

fn scale_by(work: &mut RunContext<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let images = args.image("image")?;
    let (height, width) = upscaled_by(args, (images.height, images.width))?;
    work.room("the pictures", &[images.frames.len(), height, width, 3])?;
    made(images.scaled(height, width, args.text("upscale_method")?, false)?)
}

fn scale_by_known(inputs: &KnownInputs<'_>, _: &mut DryRunContext<'_, '_>) -> Result<Vec<Known>> {
    sizes::images(sizes::scaled(inputs.image("image"), |own| upscaled_by(&inputs.args, own).map(Some))?)
}

fn invert(args: &Arguments<'_>) -> Result<Vec<Value>> {
    let images = args.image("image")?;
    let frames = images.frames.iter().map(|frame| frame.iter().map(|v| 1.0 - v).collect()).collect();
    made(Images { frames, ..**images })
}

fn invert_known(inputs: &KnownInputs<'_>, _: &mut DryRunContext<'_, '_>) -> Result<Vec<Known>> {
    sizes::images(inputs.image("image"))
}

fn batch(work: &mut RunContext<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let (first, second) = (args.image("image1")?, args.image("image2")?);
    let same = (first.width, first.height) == (second.width, second.height);
    work.room("the pictures", &[first.frames.len() + second.frames.len(), first.height, first.width, 3])?;
    let second =
        if same { (**second).clone() } else { second.scaled(first.height, first.width, "bilinear", true)? };
    made(Images { frames: [first.frames.clone(), second.frames].concat(), ..**first })
}

fn batch_known(inputs: &KnownInputs<'_>, _: &mut DryRunContext<'_, '_>) -> Result<Vec<Known>> {
    let both = inputs.image("image1").zip(inputs.image("image2"));
    sizes::images(both.map(|([a, h, w], [b, ..])| [a.saturating_add(b), h, w]))
}

fn empty(work: &mut RunContext<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let (batch, height, width) = (args.size("batch_size")?, args.size("height")?, args.size("width")?);
    work.room("the pictures", &[batch, height, width, 3])?;
    let colour = args.size("color")?;
    let rgb = [16, 8, 0].map(|shift| (colour >> shift & 0xFF) as f32 / 255.0);
    made(Images { width, height, frames: vec![rgb.repeat(height * width); batch] })
}

fn empty_check(args: &Arguments<'_>, _: &mut Files<'_>) -> Result<()> {
    let size = |name: &str| args.written_size(name);
    room("the pictures", &[size("batch_size"), 3, size("height"), size("width")])
}

fn empty_known(inputs: &KnownInputs<'_>, _: &mut DryRunContext<'_, '_>) -> Result<Vec<Known>> {
    sizes::images(sizes::named(inputs))
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
}
