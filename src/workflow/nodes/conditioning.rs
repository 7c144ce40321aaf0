//! Nodes that make prompts, and prompts of prompts.

use std::sync::Arc;

use super::node_class::Function::{Plain, Working};
use super::node_class::{Hooks, NodeClass};
use crate::guidance::{Area, Entry};
use crate::model::Family;
use crate::model::config::family_of;
use crate::pipeline::{self, Sizes};
use crate::text::embedding_files::{EmbeddingSources, Learned};
use crate::text::prompt::missing_embeddings;
use crate::workflow::dry_run::known::{DryRunContext, Known, KnownClip, KnownInputs};
use crate::workflow::picture_settings::{Contribution, WrittenNode};
use crate::workflow::run::context::{Event, Options, RunContext};
use crate::workflow::spec::{Class, Type, cells, choice, float, int, pixels, prompt, socket};
use crate::workflow::value::{Arguments, ClipValue, Prompt, PromptArea, PromptMask, Value};
use crate::{Error, Result, Size};

/// Each is a row of every step, so that more would never end.
const MOST_PROMPTS: usize = 10_000;

pub(super) const CLASSES: &[NodeClass] = &[
    NodeClass {
        spec: Class {
            name: "CLIPSetLastLayer",
            title: "CLIP Set Last Layer",
            category: "conditioning",
            inputs: &[socket("clip", Type::Clip), int("stop_at_clip_layer", -1, -24, -1)],
            outputs: &[Type::Clip],
            ..Class::BLANK
        },
        run: Plain(last_layer),
        hooks: Hooks {
            dry_run: Some(last_layer_known),
            settings: Some(Contribution::ClipSkip(clip_skip)),
            ..Hooks::NONE
        },
    },
    NodeClass {
        spec: Class {
            name: "CLIPTextEncode",
            title: "CLIP Text Encode (Prompt)",
            category: "conditioning",
            inputs: &[prompt("text"), socket("clip", Type::Clip)],
            outputs: &[Type::Conditioning],
            ..Class::BLANK
        },
        run: Working(text),
        hooks: Hooks {
            dry_run: Some(text_known),
            memory: Some(text_fits),
            settings: Some(Contribution::Prompt { text: "text" }),
            ..Hooks::NONE
        },
    },
    NodeClass {
        spec: Class {
            name: "CLIPTextEncodeSDXL",
            title: "CLIP Text Encode (SDXL)",
            category: "advanced/conditioning",
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
            ..Class::BLANK
        },
        run: Working(text_sdxl),
        hooks: Hooks { dry_run: Some(text_sdxl_known), memory: Some(text_fits), ..Hooks::NONE },
    },
    NodeClass {
        spec: Class {
            name: "ConditioningCombine",
            title: "Conditioning (Combine)",
            category: "conditioning",
            inputs: &[
                socket("conditioning_1", Type::Conditioning),
                socket("conditioning_2", Type::Conditioning),
            ],
            outputs: &[Type::Conditioning],
            ..Class::BLANK
        },
        run: Plain(combine),
        hooks: Hooks {
            settings: Some(Contribution::Prompts(["conditioning_1", "conditioning_2"])),
            ..Hooks::NONE
        },
    },
    NodeClass {
        spec: Class {
            name: "ConditioningConcat",
            title: "Conditioning (Concat)",
            category: "conditioning",
            inputs: &[
                socket("conditioning_to", Type::Conditioning),
                socket("conditioning_from", Type::Conditioning),
            ],
            outputs: &[Type::Conditioning],
            ..Class::BLANK
        },
        run: Plain(concat),
        hooks: Hooks { warn: Some(warn_of_unused), ..Hooks::NONE },
    },
    NodeClass {
        spec: Class {
            name: "ConditioningAverage",
            title: "Conditioning (Average)",
            category: "conditioning",
            inputs: &[
                socket("conditioning_to", Type::Conditioning),
                socket("conditioning_from", Type::Conditioning),
                float("conditioning_to_strength", 1.0, 0.0, 1.0),
            ],
            outputs: &[Type::Conditioning],
            ..Class::BLANK
        },
        run: Plain(average),
        hooks: Hooks { warn: Some(warn_of_unused), ..Hooks::NONE },
    },
    NodeClass {
        spec: Class {
            name: "ConditioningSetArea",
            title: "Conditioning (Set Area)",
            category: "conditioning",
            inputs: &[
                socket("conditioning", Type::Conditioning),
                cells("width", 64, 64),
                cells("height", 64, 64),
                cells("x", 0, 0),
                cells("y", 0, 0),
                float("strength", 1.0, 0.0, 10.0),
            ],
            outputs: &[Type::Conditioning],
            ..Class::BLANK
        },
        run: Plain(area),
        hooks: Hooks::NONE,
    },
    NodeClass {
        spec: Class {
            name: "ConditioningSetAreaPercentage",
            title: "Conditioning (Set Area with Percentage)",
            category: "conditioning",
            inputs: &[
                socket("conditioning", Type::Conditioning),
                float("width", 1.0, 0.0, 1.0),
                float("height", 1.0, 0.0, 1.0),
                float("x", 0.0, 0.0, 1.0),
                float("y", 0.0, 0.0, 1.0),
                float("strength", 1.0, 0.0, 10.0),
            ],
            outputs: &[Type::Conditioning],
            ..Class::BLANK
        },
        run: Plain(area_in_parts),
        hooks: Hooks::NONE,
    },
    NodeClass {
        spec: Class {
            name: "ConditioningSetAreaStrength",
            title: "Conditioning (Set Area Strength)",
            category: "conditioning",
            inputs: &[socket("conditioning", Type::Conditioning), float("strength", 1.0, 0.0, 10.0)],
            outputs: &[Type::Conditioning],
            ..Class::BLANK
        },
        run: Plain(strength),
        hooks: Hooks::NONE,
    },
    NodeClass {
        spec: Class {
            name: "ConditioningSetMask",
            title: "Conditioning (Set Mask)",
            category: "conditioning",
            inputs: &[
                socket("conditioning", Type::Conditioning),
                socket("mask", Type::Mask),
                float("strength", 1.0, 0.0, 10.0),
                choice("set_cond_area", &["default", "mask bounds"]).or_default(),
            ],
            outputs: &[Type::Conditioning],
            ..Class::BLANK
        },
        run: Plain(mask),
        hooks: Hooks { dry_run: Some(mask_known), ..Hooks::NONE },
    },
    NodeClass {
        spec: Class {
            name: "ConditioningSetTimestepRange",
            title: "ConditioningSetTimestepRange",
            category: "advanced/conditioning",
            inputs: &[
                socket("conditioning", Type::Conditioning),
                float("start", 0.0, 0.0, 1.0),
                float("end", 1.0, 0.0, 1.0),
            ],
            outputs: &[Type::Conditioning],
            ..Class::BLANK
        },
        run: Plain(range),
        hooks: Hooks::NONE,
    },
    NodeClass {
        spec: Class {
            name: "ConditioningZeroOut",
            title: "Conditioning Zero Out",
            category: "advanced/conditioning",
            inputs: &[socket("conditioning", Type::Conditioning)],
            outputs: &[Type::Conditioning],
            ..Class::BLANK
        },
        run: Plain(zero_out),
        hooks: Hooks::NONE,
    },
];

fn made(prompts: Vec<Prompt>) -> Result<Vec<Value>> {
    Ok(vec![Value::Conditioning(Arc::new(prompts))])
}

/// Every prompt of the input `conditioning`, changed.
fn each(args: &Arguments<'_>, change: impl Fn(&Prompt) -> Prompt) -> Result<Vec<Value>> {
    made(args.conditioning("conditioning")?.iter().map(change).collect())
}

fn last_layer(args: &Arguments<'_>) -> Result<Vec<Value>> {
    let skip = args.int("stop_at_clip_layer")?.unsigned_abs();
    let skip = usize::try_from(skip).ok();
    Ok(vec![Value::Clip(ClipValue { skip, ..args.clip("clip")?.clone() })])
}

fn last_layer_known(inputs: &KnownInputs<'_>, _: &mut DryRunContext<'_, '_>) -> Result<Vec<Known>> {
    let Some(clip) = inputs.clip("clip") else { return Ok(Vec::new()) };
    let skip = usize::try_from(inputs.args.int("stop_at_clip_layer")?.unsigned_abs()).ok();
    Ok(vec![Known::Clip(KnownClip { skip, ..clip.clone() })])
}

fn clip_skip(node: &WrittenNode<'_>) -> Option<usize> {
    usize::try_from(-node.int("stop_at_clip_layer")?).ok()
}

/// What `clip` makes of texts: one for all encoders, or one for each.
fn encoded(
    work: &RunContext<'_>,
    clip: &ClipValue,
    texts: &[&str],
    sizes: Option<Sizes>,
) -> Result<Vec<Value>> {
    // SDXL's networks alone want the pooled vector, and its encoders alone are two.
    let pooled = clip.text.configs().len() > 1;
    let encoding = clip.text.encode(work.options.limits.memory, texts, clip.skip, pooled, work.cancel)?;
    let mut entry = Entry::new(encoding.context, encoding.tokens);
    entry.vector = encoding.pooled.map(|pooled| Sizes::default().vector(&pooled));
    made(vec![Prompt { entry, sizes, area: None, strength: 1.0, mask: None }])
}

fn text(work: &mut RunContext<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    report_encoding(work);
    encoded(work, args.clip("clip")?, &[args.text("text")?], None)
}

fn report_encoding(work: &mut RunContext<'_>) {
    (work.observe)(Event::Work(pipeline::Progress::Encoding));
}

fn text_sdxl(work: &mut RunContext<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    report_encoding(work);
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

fn text_known(inputs: &KnownInputs<'_>, context: &mut DryRunContext<'_, '_>) -> Result<Vec<Known>> {
    prompts_known(inputs, context, &["text"], false)
}

fn text_sdxl_known(inputs: &KnownInputs<'_>, context: &mut DryRunContext<'_, '_>) -> Result<Vec<Known>> {
    prompts_known(inputs, context, &["text_l", "text_g"], true)
}

/// Prompts of no text.
fn prompts_known(
    inputs: &KnownInputs<'_>,
    context: &DryRunContext<'_, '_>,
    texts: &[&'static str],
    needs_two: bool,
) -> Result<Vec<Known>> {
    let Some(clip) = inputs.clip("clip") else { return Ok(Vec::new()) };
    let configs = &clip.configs;
    let texts = || texts.iter().filter_map(|name| inputs.args.text(name).ok());
    // Vectors that cannot be used; of names without any the run warns itself.
    let places =
        EmbeddingSources { loras: clip.bundles(), folders: context.files.folders().models.embeddings() };
    for text in texts() {
        let learned = Learned::new(&places, configs, 0);
        missing_embeddings(text, learned.as_embeddings())?;
    }
    if needs_two {
        two_encoders(configs.len(), family_of(configs))?;
    }
    for config in configs.iter() {
        pipeline::text_layer(configs, config, clip.skip)?;
    }
    // Their length counts where they take memory.
    let tokens = match &clip.text {
        Some(text) => texts().map(|written| text.count(written)).collect::<Result<Vec<_>>>()?,
        None => Vec::new(),
    };
    let tokens = tokens.into_iter().max().unwrap_or(1);
    let width: usize = configs.iter().map(|config| config.width).sum();
    let mut entry = Entry::new(vec![0.0; width * tokens], tokens);
    let pooled = configs.last().filter(|_| configs.len() > 1);
    entry.vector =
        pooled.map(|last| Sizes::default().vector(&vec![0.0; last.projection.unwrap_or(last.width)]));
    let prompt = Prompt { entry, sizes: None, area: None, strength: 1.0, mask: None };
    Ok(vec![Known::Value(Value::Conditioning(Arc::new(vec![prompt])))])
}

fn text_fits(inputs: &KnownInputs<'_>, options: &Options) -> Result<()> {
    match inputs.clip("clip").and_then(|clip| clip.text.as_ref()) {
        Some(text) => text.fits(options.limits.memory),
        None => Ok(()),
    }
}

/// SDXL's node wants SDXL's encoders.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for another number of them.
fn two_encoders(count: usize, family: Family) -> Result<()> {
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

/// Of several prompts where one is wanted the first is taken, as in ComfyUI.
fn warn_of_unused(args: &Arguments<'_>) {
    if let Ok(from) = args.conditioning("conditioning_from")
        && from.len() > 1
    {
        let node = args.node;
        log::warn!("{node}: of conditioning_from only the first of {} prompts is used", from.len());
    }
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
    in_area(args, PromptArea::Cells(area))
}

fn area_in_parts(args: &Arguments<'_>) -> Result<Vec<Value>> {
    let parts = [args.float("x")?, args.float("y")?, args.float("width")?, args.float("height")?];
    in_area(args, PromptArea::Fractions(parts))
}

fn in_area(args: &Arguments<'_>, area: PromptArea) -> Result<Vec<Value>> {
    let strength = args.float("strength")? as f32;
    each(args, |p| {
        // A rectangle of one's own takes the place of that around the mask.
        let mask = p.mask.clone().map(|m| PromptMask { bounds: false, ..m });
        Prompt { area: Some(area), strength, mask, ..p.clone() }
    })
}

fn strength(args: &Arguments<'_>) -> Result<Vec<Value>> {
    let strength = args.float("strength")? as f32;
    each(args, |p| Prompt { strength, ..p.clone() })
}

fn mask(args: &Arguments<'_>) -> Result<Vec<Value>> {
    let part = PromptMask {
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

/// Where the mask is not known the prompts are taken as they are.
fn mask_known(inputs: &KnownInputs<'_>, _: &mut DryRunContext<'_, '_>) -> Result<Vec<Known>> {
    Ok(inputs.passed("conditioning"))
}

fn range(args: &Arguments<'_>) -> Result<Vec<Value>> {
    let (start, end) = (args.float("start")?, args.float("end")?);
    each(args, |p| Prompt { entry: Entry { start, end, ..p.entry.clone() }, ..p.clone() })
}

fn zero_out(args: &Arguments<'_>) -> Result<Vec<Value>> {
    each(args, |p| Prompt { entry: p.entry.zeroed(), ..p.clone() })
}
