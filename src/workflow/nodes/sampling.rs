//! KSampler and KSamplerAdvanced, and what all samplers do.

use std::sync::Arc;

use super::node_class::Function::Working;
use super::node_class::{Hooks, NodeClass};
use crate::guidance::{Conditioning, Guidance};
use crate::latent::{Latent, VaeLatent};
use crate::pipeline::{self, Request, Sampled, Sampling, Schedule, Solver};
use crate::sampler::noise::{noise, noise_for};
use crate::sampler::{Discrete, Sampler, Scheduler};
use crate::workflow::dry_run::known::{DryRunContext, Known, KnownGuider, KnownInputs, KnownSampling};
use crate::workflow::picture_settings::{Contribution, WrittenNode};
use crate::workflow::run::context::{Event, RunContext};
use crate::workflow::spec::{Choices, Class, Kind, Slot, Type, choice, float, int, seed, socket};
use crate::workflow::value::{Arguments, GuiderValue, Latents, NoiseValue, Prompt, Value};
use crate::{Error, Result};

/// A sampler's name.
pub(super) const SAMPLER: Slot =
    Slot { name: "sampler_name", kind: Kind::Choice(Choices::Samplers), optional: false };
/// A scheduler's name.
pub(super) const SCHEDULER: Slot =
    Slot { name: "scheduler", kind: Kind::Choice(Choices::Schedulers), optional: false };

pub(super) const CLASSES: &[NodeClass] = &[
    NodeClass {
        spec: Class {
            name: "KSampler",
            title: "KSampler",
            category: "sampling",
            inputs: &[
                socket("model", Type::Model),
                seed("seed"),
                int("steps", 20, 1, 10_000),
                float("cfg", 8.0, 0.0, 100.0),
                SAMPLER,
                SCHEDULER,
                socket("positive", Type::Conditioning),
                socket("negative", Type::Conditioning),
                socket("latent_image", Type::Latent),
                float("denoise", 1.0, 0.0, 1.0),
            ],
            outputs: &[Type::Latent],
            ..Class::BLANK
        },
        run: Working(ksampler),
        hooks: Hooks {
            dry_run: Some(latents_known),
            sampling: Some(ksampler_sampling),
            settings: Some(Contribution::Sampler(ksampler_settings)),
            ..Hooks::NONE
        },
    },
    NodeClass {
        spec: Class {
            name: "KSamplerAdvanced",
            title: "KSampler (Advanced)",
            category: "sampling",
            inputs: &[
                socket("model", Type::Model),
                choice("add_noise", &["enable", "disable"]),
                seed("noise_seed"),
                int("steps", 20, 1, 10_000),
                float("cfg", 8.0, 0.0, 100.0),
                SAMPLER,
                SCHEDULER,
                socket("positive", Type::Conditioning),
                socket("negative", Type::Conditioning),
                socket("latent_image", Type::Latent),
                int("start_at_step", 0, 0, 10_000),
                int("end_at_step", 10_000, 0, 10_000),
                choice("return_with_leftover_noise", &["disable", "enable"]),
            ],
            outputs: &[Type::Latent],
            ..Class::BLANK
        },
        run: Working(ksampler_advanced),
        hooks: Hooks {
            dry_run: Some(latents_known),
            sampling: Some(ksampler_advanced_sampling),
            ..Hooks::NONE
        },
    },
];

/// The sampler of a name; where its noise would be drawn makes no difference here.
pub(super) fn named(name: &str) -> Result<Solver> {
    Ok(name.parse::<Sampler>()?.into())
}

fn guider(args: &Arguments<'_>) -> Result<GuiderValue> {
    Ok(GuiderValue {
        model: args.model("model")?.clone(),
        positive: args.conditioning("positive")?.clone(),
        negative: Some(args.conditioning("negative")?.clone()),
        cfg: args.float("cfg")? as f32,
    })
}

/// The noise levels of a sampler's settings, on a model with those of `table`.
fn sigmas(args: &Arguments<'_>, table: &Discrete, denoise: f64) -> Result<Vec<f32>> {
    let scheduler: Scheduler = args.text("scheduler")?.parse()?;
    let schedule = Schedule { scheduler, steps: args.size("steps")?, denoise };
    schedule.sigmas(table, named(args.text("sampler_name")?)?.sampler)
}

/// KSampler's noise levels.
fn levels(args: &Arguments<'_>, table: &Discrete) -> Result<Vec<f32>> {
    sigmas(args, table, args.float("denoise")?)
}

/// KSamplerAdvanced's: some of a run's, of which the last may leave noise for a sampler that goes on from
/// there. Empty where nothing is left to do.
fn some_levels(args: &Arguments<'_>, table: &Discrete) -> Result<Vec<f32>> {
    let mut sigmas = sigmas(args, table, 1.0)?;
    let (first, last) = (args.size("start_at_step")?, args.size("end_at_step")?);
    if last + 1 < sigmas.len() {
        sigmas.truncate(last + 1);
        if args.text("return_with_leftover_noise")? == "disable"
            && let Some(sigma) = sigmas.last_mut()
        {
            *sigma = 0.0;
        }
    }
    Ok(if first + 1 >= sigmas.len() { Vec::new() } else { sigmas.split_off(first) })
}

fn ksampler(work: &mut RunContext<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let (guider, solver) = (guider(args)?, named(args.text("sampler_name")?)?);
    let sigmas = levels(args, guider.model.diffusion.discrete())?;
    let seed = args.seed("seed")?;
    let latents = args.latent("latent_image")?;
    let sampled = sampled(work, &guider, solver, sigmas, latents, (NoiseValue::Seed(seed), seed), false)?;
    Ok(vec![with_samples(latents, sampled.latent.into_inner())])
}

fn ksampler_sampling(inputs: &KnownInputs<'_>) -> Result<Option<KnownSampling>> {
    sampling_by_name(inputs, levels)
}

fn ksampler_advanced_sampling(inputs: &KnownInputs<'_>) -> Result<Option<KnownSampling>> {
    sampling_by_name(inputs, some_levels)
}

/// What a node would run that names its sampler and makes its noise levels.
fn sampling_by_name(
    inputs: &KnownInputs<'_>,
    levels: fn(&Arguments<'_>, &Discrete) -> Result<Vec<f32>>,
) -> Result<Option<KnownSampling>> {
    let Some(guider) = guider_known(inputs, "positive") else { return Ok(None) };
    let solver = named(inputs.args.text("sampler_name")?)?;
    let sigmas = levels(&inputs.args, &guider.model.table)?;
    Ok(Some(KnownSampling { guider, solver, sigmas, latents: inputs.latents("latent_image") }))
}

/// The guider that the inputs make, with the positive side at the input `positive`.
pub(super) fn guider_known(inputs: &KnownInputs<'_>, positive: &str) -> Option<KnownGuider> {
    let side = |name: &str| inputs.args.conditioning(name).ok().cloned();
    Some(KnownGuider {
        model: inputs.model("model")?.clone(),
        positive: side(positive)?,
        negative: side("negative"),
        cfg: inputs.args.float("cfg").map_or(1.0, |cfg| cfg as f32),
    })
}

/// A sampler's outputs, two at most, have the size of the latents that it is given.
pub(super) fn latents_known(inputs: &KnownInputs<'_>, _: &mut DryRunContext<'_, '_>) -> Result<Vec<Known>> {
    Ok([inputs.passed("latent_image"), inputs.passed("latent_image")].concat())
}

fn ksampler_settings(node: &WrittenNode<'_>, request: &mut Request) -> Option<()> {
    request.seed = node.size("seed")?;
    request.guidance = Guidance::new(node.float("cfg")? as f32);
    request.solver = node.text("sampler_name")?.parse::<Sampler>().ok()?.into();
    request.schedule = Schedule {
        scheduler: node.text("scheduler")?.parse().ok()?,
        steps: node.size("steps")? as usize,
        denoise: node.float("denoise")?,
    };
    Some(())
}

fn ksampler_advanced(work: &mut RunContext<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let (guider, solver) = (guider(args)?, named(args.text("sampler_name")?)?);
    let sigmas = some_levels(args, guider.model.diffusion.discrete())?;
    let latents = args.latent("latent_image")?;
    // Nothing left to do gives back what came in, as it does in ComfyUI.
    if sigmas.is_empty() {
        return Ok(vec![Value::Latent(latents.clone())]);
    }
    let seed = args.seed("noise_seed")?;
    let noise = if args.text("add_noise")? == "enable" { NoiseValue::Seed(seed) } else { NoiseValue::Off };
    let sampled = sampled(work, &guider, solver, sigmas, latents, (noise, seed), false)?;
    Ok(vec![with_samples(latents, sampled.latent.into_inner())])
}

/// `latents` with other contents: mask and indices stay.
pub(super) fn with_samples(latents: &Latents, samples: Latent) -> Value {
    Value::Latent(Arc::new(Latents { samples, ..latents.clone() }))
}

/// What every sampler does: noise for the latents' places in their batch, prompts for their size, a
/// run along the noise levels. `denoised` says whether the last prediction is wanted too.
pub(super) fn sampled(
    work: &mut RunContext<'_>,
    guider: &GuiderValue,
    solver: Solver,
    sigmas: Vec<f32>,
    latents: &Latents,
    (source, seed): (NoiseValue, u64),
    denoised: bool,
) -> Result<Sampled> {
    let model = &guider.model;
    let config = model.diffusion.config();
    let shape = latents.samples.shape();
    let noise = match (source, &latents.batch_index) {
        (NoiseValue::Off, _) => latents.samples.scaled(0.0),
        (NoiseValue::Seed(seed), None) => noise(seed, shape),
        (NoiseValue::Seed(seed), Some(indices)) => noise_for(seed, indices, shape)?,
    };
    let size = (latents.samples.height(), latents.samples.width());
    let wants_vector = config.unet.adm_in_channels.is_some();
    let side = |prompts: &[Prompt]| prompts.iter().map(|p| p.resolved(size, wants_vector)).collect();
    let negative = match &guider.negative {
        Some(negative) => side(negative),
        None => {
            without_negative(&model.guidance, solver.sampler)?;
            side(&guider.positive)
        }
    };
    let conditioning = Conditioning { positive: side(&guider.positive), negative }.with_opposites();
    let run = Sampling {
        noise,
        latent: Some(VaeLatent::new(latents.samples.clone())),
        mask: latents.mask()?,
        guidance: Guidance { cfg: guider.cfg, ..model.guidance.clone() },
        solver,
        seed,
        levels: sigmas.into(),
        limits: work.options.limits,
        denoised,
        preview_every: 0,
        evaluations: false,
    };
    let mut observe = |event: pipeline::Progress| (work.observe)(Event::Work(event));
    model.diffusion.run(&conditioning, &run, &mut observe, work.cancel)
}

/// A guider without a negative side is enough where none is used.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::ErrorKind::Usage), saying what uses it.
pub(crate) fn without_negative(guidance: &Guidance, sampler: Sampler) -> Result<()> {
    let wrong =
        |what: &str| Err(Error::usage(format!("{what} needs a negative prompt")).hint("use CFGGuider"));
    if guidance.sag().is_on() {
        return wrong("Self-Attention Guidance");
    }
    if sampler.needs_uncond() { wrong(&format!("the sampler {sampler}")) } else { Ok(()) }
}
