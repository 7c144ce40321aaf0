//! Nodes that make latents, and latents of latents.

use std::sync::Arc;

use super::node_class::Function::{Plain, Working};
use super::node_class::{Hooks, NodeClass};
use crate::families::{LATENT_CELL, LATENT_CHANNELS};
use crate::image::Mask;
use crate::latent::Latent;
use crate::latent::resize::{self, Method};
use crate::pipeline::Request;
use crate::workflow::dry_run::known::{DryRunContext, Known, KnownInputs};
use crate::workflow::dry_run::sizes;
use crate::workflow::files::Files;
use crate::workflow::picture_settings::{Contribution, WrittenNode};
use crate::workflow::run::context::{RunContext, room};
use crate::workflow::spec::{Class, FileKind, Type, cells, choice, file, float, int, socket};
use crate::workflow::value::{Arguments, Latents, Value};
use crate::{Error, Result};

/// ComfyUI's methods for latents.
const METHODS: &[&str] = &["nearest-exact", "bilinear", "area", "bicubic", "bislerp"];
/// Whether the proportion is kept by cutting.
pub(super) const CROPS: &[&str] = &["disabled", "center"];

pub(super) const CLASSES: &[NodeClass] = &[
    NodeClass {
        spec: Class {
            name: "EmptyLatentImage",
            title: "Empty Latent Image",
            category: "latent",
            inputs: &[cells("width", 512, 16), cells("height", 512, 16), int("batch_size", 1, 1, 4096)],
            outputs: &[Type::Latent],
            ..Class::BLANK
        },
        run: Working(empty),
        hooks: Hooks {
            check: Some(empty_check),
            dry_run: Some(empty_known),
            settings: Some(Contribution::EmptyLatent(batch_size)),
            ..Hooks::NONE
        },
    },
    NodeClass {
        spec: Class {
            name: "LatentUpscale",
            title: "Upscale Latent",
            category: "latent",
            inputs: &[
                socket("samples", Type::Latent),
                choice("upscale_method", METHODS),
                cells("width", 512, 0),
                cells("height", 512, 0),
                choice("crop", CROPS),
            ],
            outputs: &[Type::Latent],
            ..Class::BLANK
        },
        run: Working(upscale),
        hooks: Hooks { dry_run: Some(upscale_known), ..Hooks::NONE },
    },
    NodeClass {
        spec: Class {
            name: "LatentUpscaleBy",
            title: "Upscale Latent By",
            category: "latent",
            inputs: &[
                socket("samples", Type::Latent),
                choice("upscale_method", METHODS),
                float("scale_by", 1.5, 0.01, 8.0),
            ],
            outputs: &[Type::Latent],
            ..Class::BLANK
        },
        run: Working(upscale_by),
        hooks: Hooks { dry_run: Some(upscale_by_known), ..Hooks::NONE },
    },
    NodeClass {
        spec: Class {
            name: "RepeatLatentBatch",
            title: "Repeat Latent Batch",
            category: "latent/batch",
            inputs: &[socket("samples", Type::Latent), int("amount", 1, 1, 64)],
            outputs: &[Type::Latent],
            ..Class::BLANK
        },
        run: Working(repeat),
        hooks: Hooks { dry_run: Some(repeat_known), ..Hooks::NONE },
    },
    NodeClass {
        spec: Class {
            name: "LatentFromBatch",
            title: "Get Latent From Batch",
            category: "latent/batch",
            inputs: &[
                socket("samples", Type::Latent),
                int("batch_index", 0, 0, 63),
                int("length", 1, 1, 64).or_default(),
            ],
            outputs: &[Type::Latent],
            ..Class::BLANK
        },
        run: Plain(from_batch),
        hooks: Hooks { dry_run: Some(from_batch_known), ..Hooks::NONE },
    },
    NodeClass {
        spec: Class {
            name: "LatentBatch",
            title: "Batch Latents",
            category: "latent/batch",
            inputs: &[socket("samples1", Type::Latent), socket("samples2", Type::Latent)],
            outputs: &[Type::Latent],
            ..Class::BLANK
        },
        run: Working(batch),
        hooks: Hooks { dry_run: Some(batch_known), ..Hooks::NONE },
    },
    NodeClass {
        spec: Class {
            name: "SetLatentNoiseMask",
            title: "Set Latent Noise Mask",
            category: "latent/inpaint",
            inputs: &[socket("samples", Type::Latent), socket("mask", Type::Mask)],
            outputs: &[Type::Latent],
            ..Class::BLANK
        },
        run: Plain(noise_mask),
        hooks: Hooks { dry_run: Some(noise_mask_known), ..Hooks::NONE },
    },
    NodeClass {
        spec: Class {
            name: "LoadLatent",
            title: "Load Latent",
            category: "_for_testing",
            inputs: &[file("latent", FileKind::Latent)],
            outputs: &[Type::Latent],
            ..Class::BLANK
        },
        run: Working(load),
        hooks: Hooks { dry_run: Some(load_known), ..Hooks::NONE },
    },
];

fn made(latents: Latents) -> Result<Vec<Value>> {
    Ok(vec![Value::Latent(Arc::new(latents))])
}

fn empty(work: &mut RunContext<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let (batch, height, width) =
        (args.size("batch_size")?, args.size("height")? / LATENT_CELL, args.size("width")? / LATENT_CELL);
    work.room("the batch", &[batch, LATENT_CHANNELS, height, width])?;
    made(Latents::new(Latent::zeros(batch, LATENT_CHANNELS, height, width)))
}

fn empty_check(args: &Arguments<'_>, _: &mut Files<'_>) -> Result<()> {
    let size = |name: &str| args.written_size(name);
    let [height, width] = ["height", "width"].map(|side| size(side) / LATENT_CELL);
    room("the batch", &[size("batch_size"), LATENT_CHANNELS, height, width])?;
    // Pictures are made of it sooner or later.
    room("the batch of pictures", &[size("batch_size"), 3, size("height"), size("width")])
}

fn empty_known(inputs: &KnownInputs<'_>, _: &mut DryRunContext<'_, '_>) -> Result<Vec<Known>> {
    let size = sizes::named(inputs);
    sizes::latents(size.map(|[n, h, w]| [n, h / LATENT_CELL, w / LATENT_CELL]), false)
}

fn batch_size(node: &WrittenNode<'_>, request: &mut Request) -> Option<()> {
    request.batch = node.size("batch_size")? as usize;
    Some(())
}

fn load(work: &mut RunContext<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let latent = work.files.latent(args.text("latent")?)?;
    made(Latents::new((*latent).clone()))
}

fn load_known(inputs: &KnownInputs<'_>, context: &mut DryRunContext<'_, '_>) -> Result<Vec<Known>> {
    let Ok(name) = inputs.args.text("latent") else { return Ok(Vec::new()) };
    let [n, _, h, w] = context.files.latent(name)?.shape();
    sizes::latents(Some([n, h, w]), false)
}

fn method(args: &Arguments<'_>) -> Result<Method> {
    let name = args.text("upscale_method")?;
    Method::named(name).ok_or_else(|| Error::internal(format!("the method {name} is unknown")))
}

/// The latent at another size; what else there is of it stays.
fn scaled(
    work: &RunContext<'_>,
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

fn upscale(work: &mut RunContext<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let old = args.latent("samples")?;
    match upscaled(args, (old.samples.height(), old.samples.width()))? {
        None => Ok(vec![Value::Latent(old.clone())]),
        Some(size) => scaled(work, args, size, args.text("crop")? == "center"),
    }
}

fn upscale_known(inputs: &KnownInputs<'_>, _: &mut DryRunContext<'_, '_>) -> Result<Vec<Known>> {
    scaled_known(inputs, |own| upscaled(&inputs.args, own))
}

/// The latents at the input `samples`, at the size that `to` makes of theirs; None there leaves it.
fn scaled_known(
    inputs: &KnownInputs<'_>,
    to: impl Fn((usize, usize)) -> Result<Option<(usize, usize)>>,
) -> Result<Vec<Known>> {
    let Some(own) = inputs.latents("samples") else { return Ok(Vec::new()) };
    sizes::latents(sizes::scaled(Some(own.size), to)?, own.masked)
}

/// Height and width in cells that LatentUpscale makes of those it is given; None if they stay.
fn upscaled(args: &Arguments<'_>, (own_height, own_width): (usize, usize)) -> Result<Option<(usize, usize)>> {
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

fn upscale_by(work: &mut RunContext<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let old = args.latent("samples")?;
    let size = upscaled_by(args, (old.samples.height(), old.samples.width()))?;
    scaled(work, args, size, false)
}

fn upscale_by_known(inputs: &KnownInputs<'_>, _: &mut DryRunContext<'_, '_>) -> Result<Vec<Known>> {
    scaled_known(inputs, |own| upscaled_by(&inputs.args, own).map(Some))
}

/// Height and width that the nodes with a factor make of those they are given.
pub(super) fn upscaled_by(args: &Arguments<'_>, (height, width): (usize, usize)) -> Result<(usize, usize)> {
    let factor = args.float("scale_by")?;
    let side = |own: usize| (own as f64 * factor).round_ties_even() as usize;
    Ok((side(height), side(width)))
}

/// The masks, one for each of `batch` pictures.
fn one_each(masks: &[Mask], batch: usize) -> Vec<Mask> {
    masks.iter().cycle().take(batch).cloned().collect()
}

fn repeat(work: &mut RunContext<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
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

fn repeat_known(inputs: &KnownInputs<'_>, _: &mut DryRunContext<'_, '_>) -> Result<Vec<Known>> {
    let (Some(own), Ok(amount)) = (inputs.latents("samples"), inputs.args.size("amount")) else {
        return Ok(Vec::new());
    };
    let [n, h, w] = own.size;
    sizes::latents(Some([n.saturating_mul(amount), h, w]), own.masked)
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

fn from_batch_known(inputs: &KnownInputs<'_>, _: &mut DryRunContext<'_, '_>) -> Result<Vec<Known>> {
    let size = |name: &str| inputs.args.size(name);
    let (Some(own), Ok(first), Ok(length)) = (inputs.latents("samples"), size("batch_index"), size("length"))
    else {
        return Ok(Vec::new());
    };
    let [n, h, w] = own.size;
    let first = first.min(n.saturating_sub(1));
    sizes::latents(Some([length.min(n - first), h, w]), own.masked)
}

fn batch(work: &mut RunContext<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
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

/// The mask is that of the first.
fn batch_known(inputs: &KnownInputs<'_>, _: &mut DryRunContext<'_, '_>) -> Result<Vec<Known>> {
    let (Some(first), Some(second)) = (inputs.latents("samples1"), inputs.latents("samples2")) else {
        return Ok(Vec::new());
    };
    let ([a, h, w], [b, ..]) = (first.size, second.size);
    sizes::latents(Some([a.saturating_add(b), h, w]), first.masked)
}

fn noise_mask(args: &Arguments<'_>) -> Result<Vec<Value>> {
    let (old, mask) = (args.latent("samples")?, args.mask("mask")?);
    made(Latents { noise_mask: Some(mask.clone()), ..(**old).clone() })
}

fn noise_mask_known(inputs: &KnownInputs<'_>, _: &mut DryRunContext<'_, '_>) -> Result<Vec<Known>> {
    sizes::latents(inputs.latents("samples").map(|own| own.size), true)
}
