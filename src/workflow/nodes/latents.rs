//! Nodes that make latents, and latents of latents.

use std::sync::Arc;

use super::super::run::Work;
use super::super::value::{Arguments, Latents, Value};
use super::Function::{Plain, Working};
use super::{Class, FileKind, Type, choice, file, float, int, pixels, socket};
use crate::Size;
use crate::families::{LATENT_CELL, LATENT_CHANNELS};
use crate::image::Mask;
use crate::latent::Latent;
use crate::latent::resize::{self, Method};
use crate::{Error, Result};

/// ComfyUI's methods for latents.
const METHODS: &[&str] = &["nearest-exact", "bilinear", "area", "bicubic", "bislerp"];
/// Whether the proportion is kept by cutting.
pub(super) const CROPS: &[&str] = &["disabled", "center"];

pub(in super::super) const CLASSES: &[Class] = &[
    Class {
        name: "EmptyLatentImage",
        inputs: &[pixels("width", 512, 16), pixels("height", 512, 16), int("batch_size", 1, 1, 4096)],
        outputs: &[Type::Latent],
        is_output: false,
        run: Working(empty),
    },
    Class {
        name: "LatentUpscale",
        inputs: &[
            socket("samples", Type::Latent),
            choice("upscale_method", METHODS),
            pixels("width", 512, 0),
            pixels("height", 512, 0),
            choice("crop", CROPS),
        ],
        outputs: &[Type::Latent],
        is_output: false,
        run: Working(upscale),
    },
    Class {
        name: "LatentUpscaleBy",
        inputs: &[
            socket("samples", Type::Latent),
            choice("upscale_method", METHODS),
            float("scale_by", 1.5, 0.01, 8.0),
        ],
        outputs: &[Type::Latent],
        is_output: false,
        run: Working(upscale_by),
    },
    Class {
        name: "RepeatLatentBatch",
        inputs: &[socket("samples", Type::Latent), int("amount", 1, 1, 64)],
        outputs: &[Type::Latent],
        is_output: false,
        run: Working(repeat),
    },
    Class {
        name: "LatentFromBatch",
        inputs: &[
            socket("samples", Type::Latent),
            int("batch_index", 0, 0, 63),
            int("length", 1, 1, 64).or_default(),
        ],
        outputs: &[Type::Latent],
        is_output: false,
        run: Plain(from_batch),
    },
    Class {
        name: "LatentBatch",
        inputs: &[socket("samples1", Type::Latent), socket("samples2", Type::Latent)],
        outputs: &[Type::Latent],
        is_output: false,
        run: Working(batch),
    },
    Class {
        name: "SetLatentNoiseMask",
        inputs: &[socket("samples", Type::Latent), socket("mask", Type::Mask)],
        outputs: &[Type::Latent],
        is_output: false,
        run: Plain(noise_mask),
    },
    Class {
        name: "LoadLatent",
        inputs: &[file("latent", FileKind::Latent)],
        outputs: &[Type::Latent],
        is_output: false,
        run: Working(load),
    },
];

fn made(latents: Latents) -> Result<Vec<Value>> {
    Ok(vec![Value::Latent(Arc::new(latents))])
}

fn empty(work: &mut Work<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let (batch, height, width) =
        (args.size("batch_size")?, args.size("height")? / LATENT_CELL, args.size("width")? / LATENT_CELL);
    work.room("the batch", &[batch, LATENT_CHANNELS, height, width])?;
    made(Latents::new(Latent::zeros(batch, LATENT_CHANNELS, height, width)))
}

fn load(work: &mut Work<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let latent = work.files.latent(args.text("latent")?)?;
    made(Latents::new((*latent).clone()))
}

fn method(args: &Arguments<'_>) -> Result<Method> {
    let name = args.text("upscale_method")?;
    Method::named(name).ok_or_else(|| Error::internal(format!("the method {name} is unknown")))
}

/// The latent at another size; what else there is of it stays.
fn scaled(
    work: &Work<'_>,
    args: &Arguments<'_>,
    (height, width): (usize, usize),
    cut: bool,
) -> Result<Vec<Value>> {
    let old = args.latent("samples")?;
    work.room("the latent", &[old.samples.batch(), 4, height, width])?;
    let middle = cut.then(|| resize::middle(&old.samples, height, width));
    let samples = resize::resized(middle.as_ref().unwrap_or(&old.samples), height, width, method(args)?)?;
    made(Latents { samples, ..(**old).clone() })
}

fn upscale(work: &mut Work<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let old = args.latent("samples")?;
    match upscaled(args, (old.samples.height(), old.samples.width()))? {
        None => Ok(vec![Value::Latent(old.clone())]),
        Some(size) => scaled(work, args, size, args.text("crop")? == "center"),
    }
}

/// Height and width in cells that LatentUpscale makes of those it is given; None if they stay.
pub(in super::super) fn upscaled(
    args: &Arguments<'_>,
    (own_height, own_width): (usize, usize),
) -> Result<Option<(usize, usize)>> {
    let (width, height) = (args.size("width")?, args.size("height")?);
    // A side of 0 follows the other; ComfyUI takes cells for pixels in the proportion, which is the same.
    let beside = |given: usize, side: usize, other: usize| {
        (side as f64 * given as f64 / other as f64).round_ties_even()
    };
    let (width, height) = match (width, height) {
        (0, 0) => return Ok(None),
        (0, height) => (beside(height.max(64), own_width, own_height) as usize, height),
        (width, 0) => (width, beside(width.max(64), own_height, own_width) as usize),
        both => both,
    };
    let [height, width] = [height, width].map(|side| side.max(64) / LATENT_CELL);
    Ok(Some((height, width)))
}

fn upscale_by(work: &mut Work<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let old = args.latent("samples")?;
    let size = upscaled_by(args, (old.samples.height(), old.samples.width()))?;
    scaled(work, args, size, false)
}

/// Height and width that the nodes with a factor make of those they are given.
pub(in super::super) fn upscaled_by(
    args: &Arguments<'_>,
    (height, width): (usize, usize),
) -> Result<(usize, usize)> {
    let factor = args.float("scale_by")?;
    let side = |own: usize| (own as f64 * factor).round_ties_even() as usize;
    Ok((side(height), side(width)))
}

/// The masks, one for each of `batch` pictures.
fn one_each(masks: &[Mask], batch: usize) -> Vec<Mask> {
    masks.iter().cycle().take(batch).cloned().collect()
}

fn repeat(work: &mut Work<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let (old, amount) = (args.latent("samples")?, args.size("amount")?);
    let [batch, channels, height, width] = old.samples.shape();
    work.room("the batch", &[batch, amount, channels, height, width])?;
    let samples = Latent::stacked(&vec![&old.samples; amount])?;
    let noise_mask = old.noise_mask.as_ref().map(|masks| match masks.len() {
        1 => masks.clone(),
        _ => Arc::new(one_each(&one_each(masks, batch), batch * amount)),
    });
    let batch_index = old.batch_index.as_ref().map(|indices| {
        let (least, most) = (indices.iter().min().copied(), indices.iter().max().copied());
        let span = most.unwrap_or(0) - least.unwrap_or(0) + 1;
        (0..amount).flat_map(|i| indices.iter().map(move |index| index + i * span)).collect()
    });
    made(Latents { samples, noise_mask, batch_index })
}

fn from_batch(args: &Arguments<'_>) -> Result<Vec<Value>> {
    let old = args.latent("samples")?;
    let batch = old.samples.batch();
    let first = args.size("batch_index")?.min(batch - 1);
    let length = args.size("length")?.min(batch - first);
    let rows: Vec<Latent> = (first..first + length).map(|i| old.samples.row(i)).collect();
    let samples = Latent::stacked(&rows.iter().collect::<Vec<_>>())?;
    let noise_mask = old.noise_mask.as_ref().map(|masks| match masks.len() {
        1 => masks.clone(),
        _ => Arc::new(one_each(masks, batch)[first..first + length].to_vec()),
    });
    let own: Vec<usize> = old.batch_index.clone().unwrap_or_else(|| (0..batch).collect());
    made(Latents { samples, noise_mask, batch_index: own.get(first..first + length).map(<[usize]>::to_vec) })
}

fn batch(work: &mut Work<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let (first, second) = (args.latent("samples1")?, args.latent("samples2")?);
    let [batch, channels, height, width] = first.samples.shape();
    work.room("the batch", &[batch + second.samples.batch(), channels, height, width])?;
    let same = second.samples.shape()[2..] == [height, width];
    let scaled = if same {
        None
    } else {
        let middle = resize::middle(&second.samples, height, width);
        Some(resize::resized(&middle, height, width, Method::Bilinear)?)
    };
    let samples = Latent::stacked(&[&first.samples, scaled.as_ref().unwrap_or(&second.samples)])?;
    let indices = |l: &Latents| l.batch_index.clone().unwrap_or_else(|| (0..l.samples.batch()).collect());
    let batch_index = Some([indices(first), indices(second)].concat());
    made(Latents { samples, batch_index, noise_mask: first.noise_mask.clone() })
}

fn noise_mask(args: &Arguments<'_>) -> Result<Vec<Value>> {
    let (old, mask) = (args.latent("samples")?, args.mask("mask")?);
    made(Latents { noise_mask: Some(mask.clone()), ..(**old).clone() })
}

impl Latents {
    /// The masks at the latent's size, `[1 or batch, 1, height, width]`.
    pub(in super::super) fn mask(&self) -> Result<Option<Latent>> {
        let Some(masks) = &self.noise_mask else { return Ok(None) };
        let [batch, _, height, width] = self.samples.shape();
        let count = if masks.len() == 1 { 1 } else { batch };
        let rows: Vec<Latent> =
            masks.iter().cycle().take(count).map(|m| m.to_latent(Size::new(width, height))).collect();
        Latent::stacked(&rows.iter().collect::<Vec<_>>()).map(Some)
    }
}
