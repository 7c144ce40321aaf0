//! Nodes that make prompts, and prompts of prompts.

use std::sync::Arc;

use super::super::run::Work;
use super::super::value::{Arguments, ClipValue, MaskedPart, Place, Prompt, Value};
use super::Function::{Plain, Working};
use super::{Class, Type, choice, float, pixels, prompt, socket};
use crate::Size;
use crate::families::LATENT_CELL;
use crate::guidance::{Area, Entry};
use crate::model::Family;
use crate::pipeline::Sizes;
use crate::{Error, Result};

/// Each is a row of every step, so that more would never end.
const MOST_PROMPTS: usize = 10_000;

pub(in super::super) const CLASSES: &[Class] = &[
    Class {
        name: "CLIPTextEncode",
        inputs: &[prompt("text"), socket("clip", Type::Clip)],
        outputs: &[Type::Conditioning],
        is_output: false,
        run: Working(text),
    },
    Class {
        name: "CLIPTextEncodeSDXL",
        inputs: &[
            socket("clip", Type::Clip),
            pixels("width", 1024, 0),
            pixels("height", 1024, 0),
            pixels("crop_w", 0, 0),
            pixels("crop_h", 0, 0),
            pixels("target_width", 1024, 0),
            pixels("target_height", 1024, 0),
            prompt("text_g"),
            prompt("text_l"),
        ],
        outputs: &[Type::Conditioning],
        is_output: false,
        run: Working(text_sdxl),
    },
    Class {
        name: "ConditioningCombine",
        inputs: &[socket("conditioning_1", Type::Conditioning), socket("conditioning_2", Type::Conditioning)],
        outputs: &[Type::Conditioning],
        is_output: false,
        run: Plain(combine),
    },
    Class {
        name: "ConditioningConcat",
        inputs: &[
            socket("conditioning_to", Type::Conditioning),
            socket("conditioning_from", Type::Conditioning),
        ],
        outputs: &[Type::Conditioning],
        is_output: false,
        run: Plain(concat),
    },
    Class {
        name: "ConditioningAverage",
        inputs: &[
            socket("conditioning_to", Type::Conditioning),
            socket("conditioning_from", Type::Conditioning),
            float("conditioning_to_strength", 1.0, 0.0, 1.0),
        ],
        outputs: &[Type::Conditioning],
        is_output: false,
        run: Plain(average),
    },
    Class {
        name: "ConditioningSetArea",
        inputs: &[
            socket("conditioning", Type::Conditioning),
            pixels("width", 64, 64),
            pixels("height", 64, 64),
            pixels("x", 0, 0),
            pixels("y", 0, 0),
            float("strength", 1.0, 0.0, 10.0),
        ],
        outputs: &[Type::Conditioning],
        is_output: false,
        run: Plain(area),
    },
    Class {
        name: "ConditioningSetAreaPercentage",
        inputs: &[
            socket("conditioning", Type::Conditioning),
            float("width", 1.0, 0.0, 1.0),
            float("height", 1.0, 0.0, 1.0),
            float("x", 0.0, 0.0, 1.0),
            float("y", 0.0, 0.0, 1.0),
            float("strength", 1.0, 0.0, 10.0),
        ],
        outputs: &[Type::Conditioning],
        is_output: false,
        run: Plain(area_in_parts),
    },
    Class {
        name: "ConditioningSetAreaStrength",
        inputs: &[socket("conditioning", Type::Conditioning), float("strength", 1.0, 0.0, 10.0)],
        outputs: &[Type::Conditioning],
        is_output: false,
        run: Plain(strength),
    },
    Class {
        name: "ConditioningSetMask",
        inputs: &[
            socket("conditioning", Type::Conditioning),
            socket("mask", Type::Mask),
            float("strength", 1.0, 0.0, 10.0),
            choice("set_cond_area", &["default", "mask bounds"]).or_default(),
        ],
        outputs: &[Type::Conditioning],
        is_output: false,
        run: Plain(mask),
    },
    Class {
        name: "ConditioningSetTimestepRange",
        inputs: &[
            socket("conditioning", Type::Conditioning),
            float("start", 0.0, 0.0, 1.0),
            float("end", 1.0, 0.0, 1.0),
        ],
        outputs: &[Type::Conditioning],
        is_output: false,
        run: Plain(range),
    },
    Class {
        name: "ConditioningZeroOut",
        inputs: &[socket("conditioning", Type::Conditioning)],
        outputs: &[Type::Conditioning],
        is_output: false,
        run: Plain(zero_out),
    },
];

fn made(prompts: Vec<Prompt>) -> Result<Vec<Value>> {
    Ok(vec![Value::Conditioning(Arc::new(prompts))])
}

/// Every prompt of the input `conditioning`, changed.
fn each(args: &Arguments<'_>, change: impl Fn(&Prompt) -> Prompt) -> Result<Vec<Value>> {
    made(args.conditioning("conditioning")?.iter().map(change).collect())
}

/// What `clip` makes of texts: one for all encoders, or one for each.
fn encoded(work: &Work<'_>, clip: &ClipValue, texts: &[&str], sizes: Option<Sizes>) -> Result<Vec<Value>> {
    // SDXL's networks alone want the pooled vector, and its encoders alone are two.
    let pooled = clip.text.configs().len() > 1;
    let how = (clip.skip, pooled);
    let encoding = clip.text.encode(work.options.limits.memory, texts, how, work.cancel)?;
    let mut entry = Entry::new(encoding.context, encoding.tokens);
    entry.vector = encoding.pooled.map(|pooled| Sizes::default().vector(&pooled));
    made(vec![Prompt { entry, sizes, area: None, strength: 1.0, mask: None }])
}

fn text(work: &mut Work<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    tell(work);
    encoded(work, args.clip("clip")?, &[args.text("text")?], None)
}

fn tell(work: &mut Work<'_>) {
    (work.observe)(super::super::run::Event::Work(crate::pipeline::Progress::Encoding));
}

fn text_sdxl(work: &mut Work<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    tell(work);
    let size = |width: &str, height: &str| Ok::<_, Error>(Size::new(args.size(width)?, args.size(height)?));
    let sizes = Sizes {
        original: size("width", "height")?,
        crop_top: args.size("crop_h")?,
        crop_left: args.size("crop_w")?,
        target: size("target_width", "target_height")?,
    };
    let clip = args.clip("clip")?;
    let (l, g) = (args.text("text_l")?, args.text("text_g")?);
    two_encoders(clip.text.configs().len(), clip.text.family())?;
    encoded(work, clip, &[l, g], Some(sizes))
}

/// SDXL's node wants SDXL's encoders.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for another number of them.
pub(in super::super) fn two_encoders(count: usize, family: Family) -> Result<()> {
    if count == 2 {
        return Ok(());
    }
    Err(Error::usage("text encoders of another family")
        .expected("the two of SDXL")
        .found(format!("that of {family}"))
        .hint("use CLIPTextEncode"))
}

fn combine(args: &Arguments<'_>) -> Result<Vec<Value>> {
    let (first, second) = (args.conditioning("conditioning_1")?, args.conditioning("conditioning_2")?);
    if first.len() + second.len() > MOST_PROMPTS {
        return Err(Error::usage("too many prompts on a side")
            .expected(format!("at most {MOST_PROMPTS}"))
            .found((first.len() + second.len()).to_string()));
    }
    made(first.iter().chain(second.iter()).cloned().collect())
}

/// Every prompt of `conditioning_to` with the first of `conditioning_from`, as ComfyUI has it.
fn paired(args: &Arguments<'_>, pair: impl Fn(&Entry, &Entry) -> Result<Entry>) -> Result<Vec<Value>> {
    let from = args.conditioning("conditioning_from")?;
    let first = from.first().ok_or_else(|| Error::internal("an empty conditioning"))?;
    let to = args.conditioning("conditioning_to")?.iter();
    let both = to.map(|p| Ok(Prompt { entry: pair(&p.entry, &first.entry)?, ..p.clone() }));
    made(both.collect::<Result<_>>()?)
}

fn concat(args: &Arguments<'_>) -> Result<Vec<Value>> {
    paired(args, Entry::concat)
}

fn average(args: &Arguments<'_>) -> Result<Vec<Value>> {
    let share = args.float("conditioning_to_strength")?;
    paired(args, |to, from| to.average(from, share))
}

fn area(args: &Arguments<'_>) -> Result<Vec<Value>> {
    let area = Area::of_pixels(args.size("x")?, args.size("y")?, args.size("width")?, args.size("height")?);
    in_area(args, Place::Cells(area))
}

fn area_in_parts(args: &Arguments<'_>) -> Result<Vec<Value>> {
    let parts = [args.float("x")?, args.float("y")?, args.float("width")?, args.float("height")?];
    in_area(args, Place::Parts(parts))
}

fn in_area(args: &Arguments<'_>, area: Place) -> Result<Vec<Value>> {
    let strength = args.float("strength")? as f32;
    each(args, |p| {
        // A rectangle of one's own takes the place of that around the mask.
        let mask = p.mask.clone().map(|m| MaskedPart { bounds: false, ..m });
        Prompt { area: Some(area), strength, mask, ..p.clone() }
    })
}

fn strength(args: &Arguments<'_>) -> Result<Vec<Value>> {
    let strength = args.float("strength")? as f32;
    each(args, |p| Prompt { strength, ..p.clone() })
}

fn mask(args: &Arguments<'_>) -> Result<Vec<Value>> {
    let part = MaskedPart {
        mask: args.mask("mask")?.clone(),
        strength: args.float("strength")? as f32,
        bounds: args.text("set_cond_area")? != "default",
    };
    if part.mask.len() != 1 {
        return Err(Error::usage("a mask for each picture of a batch is not supported here")
            .expected("one mask for all pictures")
            .found(part.mask.len().to_string()));
    }
    each(args, |p| Prompt { mask: Some(part.clone()), ..p.clone() })
}

fn range(args: &Arguments<'_>) -> Result<Vec<Value>> {
    let (start, end) = (args.float("start")?, args.float("end")?);
    each(args, |p| Prompt { entry: Entry { start, end, ..p.entry.clone() }, ..p.clone() })
}

fn zero_out(args: &Arguments<'_>) -> Result<Vec<Value>> {
    each(args, |p| Prompt { entry: p.entry.zeroed(), ..p.clone() })
}

impl Prompt {
    /// The entry for a latent of `height` × `width` cells; `wants_vector` says whether the network
    /// reads SDXL's vector.
    pub(in super::super) fn resolved(&self, (height, width): (usize, usize), wants_vector: bool) -> Entry {
        let mut entry = Entry { strength: self.strength, ..self.entry.clone() };
        entry.area = self.area.map(|area| match area {
            Place::Cells(area) => area,
            Place::Parts([x, y, w, h]) => Area::of_parts(x, y, w, h, (height, width)),
        });
        if let Some(part) = &self.mask
            && let Some(mask) = part.mask.first()
        {
            let weights = mask.to_latent(Size::new(width, height));
            if part.bounds {
                entry.area = Some(bounds(weights.data(), width));
            }
            entry.strength *= part.strength;
            entry.mask = Some(Arc::new(weights.data().to_vec()));
        }
        entry.vector = entry.vector.filter(|_| wants_vector).map(|vector| {
            let sizes = self.sizes.unwrap_or(Sizes::of(Size::new(LATENT_CELL * width, LATENT_CELL * height)));
            sizes.in_place_of(&vector)
        });
        entry
    }
}

/// The rectangle around what is not 0, at least 8 cells a side, as ComfyUI has it.
fn bounds(weights: &[f32], width: usize) -> Area {
    let drawn =
        || weights.iter().enumerate().filter(|(_, w)| **w != 0.0).map(|(i, _)| (i / width, i % width));
    let rows = drawn().map(|(y, _)| y);
    let columns = drawn().map(|(_, x)| x);
    let span = |first: Option<usize>, last: Option<usize>| match (first, last) {
        (Some(first), Some(last)) => (first, (last - first + 1).max(8)),
        _ => (0, 8),
    };
    let (y, height) = span(rows.clone().min(), rows.max());
    let (x, width) = span(columns.clone().min(), columns.max());
    Area { y, x, height, width }
}
