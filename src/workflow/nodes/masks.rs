//! Nodes that make masks.

use std::sync::Arc;

use super::node_class::Function::{Plain, Working};
use super::node_class::{Hooks, NodeClass};
use crate::image::Mask;
use crate::workflow::dry_run::known::{DryRunContext, Known, KnownInputs};
use crate::workflow::run::context::RunContext;
use crate::workflow::spec::{Class, FileKind, Type, choice, file, float, pixels, socket};
use crate::workflow::value::{Arguments, Images, Value};
use crate::{Error, Result, Size};

pub(super) const CLASSES: &[NodeClass] = &[
    NodeClass {
        spec: Class {
            name: "LoadImageMask",
            title: "Load Image (as Mask)",
            category: "mask",
            inputs: &[file("image", FileKind::Image), choice("channel", &["alpha", "red", "green", "blue"])],
            outputs: &[Type::Mask],
            ..Class::BLANK
        },
        run: Working(load),
        hooks: Hooks::NONE,
    },
    NodeClass {
        spec: Class {
            name: "SolidMask",
            title: "Create Solid Mask",
            category: "mask",
            inputs: &[float("value", 1.0, 0.0, 1.0), pixels("width", 512, 1), pixels("height", 512, 1)],
            outputs: &[Type::Mask],
            ..Class::BLANK
        },
        run: Working(solid),
        hooks: Hooks::NONE,
    },
    NodeClass {
        spec: Class {
            name: "InvertMask",
            title: "Invert Mask",
            category: "mask",
            inputs: &[socket("mask", Type::Mask)],
            outputs: &[Type::Mask],
            ..Class::BLANK
        },
        run: Plain(invert),
        hooks: Hooks::NONE,
    },
    NodeClass {
        spec: Class {
            name: "ImageToMask",
            title: "Convert Image to Mask",
            category: "mask",
            inputs: &[socket("image", Type::Image), choice("channel", &["red", "green", "blue", "alpha"])],
            outputs: &[Type::Mask],
            ..Class::BLANK
        },
        run: Plain(from_image),
        hooks: Hooks { dry_run: Some(from_image_known), ..Hooks::NONE },
    },
    NodeClass {
        spec: Class {
            name: "MaskToImage",
            title: "Convert Mask to Image",
            category: "mask",
            inputs: &[socket("mask", Type::Mask)],
            outputs: &[Type::Image],
            ..Class::BLANK
        },
        run: Working(to_image),
        hooks: Hooks::NONE,
    },
];

fn made(masks: Vec<Mask>) -> Result<Vec<Value>> {
    Ok(vec![Value::Mask(Arc::new(masks))])
}

/// One channel of a picture as weights; of alpha what is transparent is masked.
fn load(work: &mut RunContext<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let read = work.files.picture(args.text("image")?)?;
    let (pixels, _) = read.rgba.as_chunks::<4>();
    let weight = |p: &[u8; 4]| -> Result<f32> {
        Ok(match args.text("channel")? {
            "alpha" => 1.0 - f32::from(p[3]) / 255.0,
            "red" => f32::from(p[0]) / 255.0,
            "green" => f32::from(p[1]) / 255.0,
            _ => f32::from(p[2]) / 255.0,
        })
    };
    made(vec![Mask::new(
        Size::new(read.width, read.height),
        pixels.iter().map(weight).collect::<Result<_>>()?,
    )?])
}

fn solid(work: &mut RunContext<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let (width, height) = (args.size("width")?, args.size("height")?);
    work.room("the mask", &[height, width])?;
    made(vec![Mask::new(Size::new(width, height), vec![args.float("value")? as f32; height * width])?])
}

fn invert(args: &Arguments<'_>) -> Result<Vec<Value>> {
    let inverted = |mask: &Mask| {
        let Size { width, height } = mask.size();
        Mask::new(Size::new(width, height), mask.weights().iter().map(|w| 1.0 - w).collect())
    };
    made(args.mask("mask")?.iter().map(inverted).collect::<Result<_>>()?)
}

fn from_image(args: &Arguments<'_>) -> Result<Vec<Value>> {
    let (images, channel) = (args.image("image")?, channel(args)?);
    let mask = |frame: &Vec<f32>| {
        Mask::new(
            Size::new(images.width, images.height),
            frame.iter().skip(channel).step_by(3).copied().collect(),
        )
    };
    made(images.frames.iter().map(mask).collect::<Result<_>>()?)
}

fn from_image_known(inputs: &KnownInputs<'_>, _: &mut DryRunContext<'_, '_>) -> Result<Vec<Known>> {
    channel(&inputs.args).map(|_| Vec::new())
}

/// Which of a picture's values the node takes.
fn channel(args: &Arguments<'_>) -> Result<usize> {
    match args.text("channel")? {
        "red" => Ok(0),
        "green" => Ok(1),
        "blue" => Ok(2),
        other => Err(Error::usage("pictures have no such channel here")
            .expected("red, green or blue")
            .found(other)
            .hint("take alpha with LoadImageMask, or from LoadImage's second output")),
    }
}

fn to_image(work: &mut RunContext<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let masks = args.mask("mask")?;
    let Size { width, height } = masks.first().map_or(Size::default(), Mask::size);
    work.room("the pictures", &[masks.len(), height, width, 3])?;
    let frames = masks.iter().map(|mask| mask.weights().iter().flat_map(|w| [*w; 3]).collect()).collect();
    Ok(vec![Value::Image(Arc::new(Images { width, height, frames }))])
}
