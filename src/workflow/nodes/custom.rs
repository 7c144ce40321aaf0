//! SamplerCustom's family: sampler, noise levels, noise and guider as nodes of their own.

use std::sync::Arc;

use super::node_class::Function::{Plain, Working};
use super::node_class::{Hooks, NodeClass};
use super::sampling::{SAMPLER, SCHEDULER, guider_known, latents_known, named, sampled, with_samples};
use crate::sampler::{Discrete, Scheduler, exponential_sigmas, karras_sigmas};
use crate::workflow::dry_run::known::{DryRunContext, Known, KnownInputs, KnownSampling};
use crate::workflow::run::context::RunContext;
use crate::workflow::spec::{Class, Slot, Type, float, int, seed, socket, switch};
use crate::workflow::value::{Arguments, GuiderValue, NoiseValue, Value};
use crate::{Error, Result};

/// The steps of a schedule.
const STEPS: Slot = int("steps", 20, 1, 10_000);
const SIGMA_MAX: Slot = float("sigma_max", 14.614642, 0.0, 5000.0);
const SIGMA_MIN: Slot = float("sigma_min", 0.0291675, 0.0, 5000.0);

pub(super) const CLASSES: &[NodeClass] = &[
    NodeClass {
        spec: Class {
            name: "SamplerCustom",
            title: "SamplerCustom",
            category: "sampling/custom_sampling",
            inputs: &[
                socket("model", Type::Model),
                switch("add_noise", true),
                seed("noise_seed"),
                float("cfg", 8.0, 0.0, 100.0),
                socket("positive", Type::Conditioning),
                socket("negative", Type::Conditioning),
                socket("sampler", Type::Sampler),
                socket("sigmas", Type::Sigmas),
                socket("latent_image", Type::Latent),
            ],
            outputs: &[Type::Latent, Type::Latent],
            output_names: &["output", "denoised_output"],
            ..Class::BLANK
        },
        run: Working(custom),
        hooks: Hooks { dry_run: Some(latents_known), sampling: Some(custom_sampling), ..Hooks::NONE },
    },
    NodeClass {
        spec: Class {
            name: "SamplerCustomAdvanced",
            title: "SamplerCustomAdvanced",
            category: "sampling/custom_sampling",
            inputs: &[
                socket("noise", Type::Noise),
                socket("guider", Type::Guider),
                socket("sampler", Type::Sampler),
                socket("sigmas", Type::Sigmas),
                socket("latent_image", Type::Latent),
            ],
            outputs: &[Type::Latent, Type::Latent],
            output_names: &["output", "denoised_output"],
            ..Class::BLANK
        },
        run: Working(custom_advanced),
        hooks: Hooks { dry_run: Some(latents_known), sampling: Some(custom_sampling), ..Hooks::NONE },
    },
    NodeClass {
        spec: Class {
            name: "KSamplerSelect",
            title: "KSamplerSelect",
            category: "sampling/custom_sampling/samplers",
            inputs: &[SAMPLER],
            outputs: &[Type::Sampler],
            ..Class::BLANK
        },
        run: Plain(select),
        hooks: Hooks::NONE,
    },
    NodeClass {
        spec: Class {
            name: "BasicScheduler",
            title: "BasicScheduler",
            category: "sampling/custom_sampling/schedulers",
            inputs: &[
                socket("model", Type::Model),
                SCHEDULER,
                STEPS,
                float("denoise", 1.0, 0.0, 1.0).or_default(),
            ],
            outputs: &[Type::Sigmas],
            ..Class::BLANK
        },
        run: Plain(basic),
        hooks: Hooks { dry_run: Some(basic_known), ..Hooks::NONE },
    },
    NodeClass {
        spec: Class {
            name: "KarrasScheduler",
            title: "KarrasScheduler",
            category: "sampling/custom_sampling/schedulers",
            inputs: &[STEPS, SIGMA_MAX, SIGMA_MIN, float("rho", 7.0, 0.0, 100.0)],
            outputs: &[Type::Sigmas],
            ..Class::BLANK
        },
        run: Plain(karras),
        hooks: Hooks::NONE,
    },
    NodeClass {
        spec: Class {
            name: "ExponentialScheduler",
            title: "ExponentialScheduler",
            category: "sampling/custom_sampling/schedulers",
            inputs: &[STEPS, SIGMA_MAX, SIGMA_MIN],
            outputs: &[Type::Sigmas],
            ..Class::BLANK
        },
        run: Plain(exponential),
        hooks: Hooks::NONE,
    },
    NodeClass {
        spec: Class {
            name: "SplitSigmas",
            title: "SplitSigmas",
            category: "sampling/custom_sampling/sigmas",
            inputs: &[socket("sigmas", Type::Sigmas), int("step", 0, 0, 10_000)],
            outputs: &[Type::Sigmas, Type::Sigmas],
            output_names: &["high_sigmas", "low_sigmas"],
            ..Class::BLANK
        },
        run: Plain(split),
        hooks: Hooks::NONE,
    },
    NodeClass {
        spec: Class {
            name: "CFGGuider",
            title: "CFG Guider",
            category: "sampling/custom_sampling/guiders",
            inputs: &[
                socket("model", Type::Model),
                socket("positive", Type::Conditioning),
                socket("negative", Type::Conditioning),
                float("cfg", 8.0, 0.0, 100.0),
            ],
            outputs: &[Type::Guider],
            ..Class::BLANK
        },
        run: Plain(cfg_guider),
        hooks: Hooks { dry_run: Some(cfg_guider_known), ..Hooks::NONE },
    },
    NodeClass {
        spec: Class {
            name: "BasicGuider",
            title: "Basic Guider",
            category: "sampling/custom_sampling/guiders",
            inputs: &[socket("model", Type::Model), socket("conditioning", Type::Conditioning)],
            outputs: &[Type::Guider],
            ..Class::BLANK
        },
        run: Plain(basic_guider),
        hooks: Hooks { dry_run: Some(basic_guider_known), ..Hooks::NONE },
    },
    NodeClass {
        spec: Class {
            name: "RandomNoise",
            title: "RandomNoise",
            category: "sampling/custom_sampling/noise",
            inputs: &[seed("noise_seed")],
            outputs: &[Type::Noise],
            ..Class::BLANK
        },
        run: Plain(random_noise),
        hooks: Hooks::NONE,
    },
    NodeClass {
        spec: Class {
            name: "DisableNoise",
            title: "DisableNoise",
            category: "sampling/custom_sampling/noise",
            inputs: &[],
            outputs: &[Type::Noise],
            ..Class::BLANK
        },
        run: Plain(no_noise),
        hooks: Hooks::NONE,
    },
];

fn of_sigmas(sigmas: Vec<f32>) -> Result<Vec<Value>> {
    Ok(vec![Value::Sigmas(Arc::new(sigmas))])
}

fn custom(work: &mut RunContext<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let guider = GuiderValue {
        model: args.model("model")?.clone(),
        positive: args.conditioning("positive")?.clone(),
        negative: Some(args.conditioning("negative")?.clone()),
        cfg: args.float("cfg")? as f32,
    };
    let seed = args.seed("noise_seed")?;
    let noise = if args.switch("add_noise")? { NoiseValue::Seed(seed) } else { NoiseValue::Off };
    both(work, args, &guider, (noise, seed))
}

fn custom_advanced(work: &mut RunContext<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let noise = *args.noise("noise")?;
    let seed = match noise {
        NoiseValue::Seed(seed) => seed,
        NoiseValue::Off => 0,
    };
    both(work, args, args.guider("guider")?, (noise, seed))
}

/// The latent at the end, and what was seen in it at the last step.
fn both(
    work: &mut RunContext<'_>,
    args: &Arguments<'_>,
    guider: &GuiderValue,
    noise: (NoiseValue, u64),
) -> Result<Vec<Value>> {
    let (latents, sigmas) = (args.latent("latent_image")?, args.sigmas("sigmas")?);
    let sampled = sampled(work, guider, *args.sampler("sampler")?, sigmas.to_vec(), latents, noise, true)?;
    let denoised = sampled.denoised.ok_or_else(|| Error::internal("no last prediction was read"))?;
    Ok(vec![with_samples(latents, sampled.latent.into_inner()), with_samples(latents, denoised.into_inner())])
}

/// What a node would run that is given its sampler and its noise levels.
fn custom_sampling(inputs: &KnownInputs<'_>) -> Result<Option<KnownSampling>> {
    let guider = match inputs.input("guider") {
        Some(Known::Guider(guider)) => Some(guider.clone()),
        _ => guider_known(inputs, "positive"),
    };
    Ok(match (guider, inputs.args.sampler("sampler"), inputs.args.sigmas("sigmas")) {
        (Some(guider), Ok(solver), Ok(sigmas)) => Some(KnownSampling {
            guider,
            solver: *solver,
            sigmas: sigmas.to_vec(),
            latents: inputs.latents("latent_image"),
        }),
        _ => None,
    })
}

fn select(args: &Arguments<'_>) -> Result<Vec<Value>> {
    Ok(vec![Value::Sampler(named(args.text("sampler_name")?)?)])
}

fn basic(args: &Arguments<'_>) -> Result<Vec<Value>> {
    of_sigmas(basic_levels(args, args.model("model")?.diffusion.discrete())?)
}

fn basic_known(inputs: &KnownInputs<'_>, _: &mut DryRunContext<'_, '_>) -> Result<Vec<Known>> {
    let Some(model) = inputs.model("model") else { return Ok(Vec::new()) };
    Ok(of_sigmas(basic_levels(&inputs.args, &model.table)?)?.into_iter().map(Known::Value).collect())
}

/// BasicScheduler's noise levels, on a model with those of `table`.
fn basic_levels(args: &Arguments<'_>, table: &Discrete) -> Result<Vec<f32>> {
    let (steps, denoise) = (args.size("steps")?, args.float("denoise")?);
    let scheduler: Scheduler = args.text("scheduler")?.parse()?;
    let mut sigmas = scheduler.sigmas(table, steps, denoise, false)?;
    // Unlike KSampler this node cuts a full run too, where a scheduler gives more than was asked for.
    sigmas.drain(..sigmas.len().saturating_sub(steps + 1));
    Ok(sigmas)
}

fn karras(args: &Arguments<'_>) -> Result<Vec<Value>> {
    let range = (args.float("sigma_min")?, args.float("sigma_max")?);
    of_sigmas(karras_sigmas(args.size("steps")?, range, args.float("rho")?)?)
}

fn exponential(args: &Arguments<'_>) -> Result<Vec<Value>> {
    let range = (args.float("sigma_min")?, args.float("sigma_max")?);
    of_sigmas(exponential_sigmas(args.size("steps")?, range)?)
}

fn split(args: &Arguments<'_>) -> Result<Vec<Value>> {
    let (sigmas, step) = (args.sigmas("sigmas")?, args.size("step")?);
    let at = step.min(sigmas.len());
    let high = sigmas[..sigmas.len().min(step + 1)].to_vec();
    Ok(vec![Value::Sigmas(Arc::new(high)), Value::Sigmas(Arc::new(sigmas[at..].to_vec()))])
}

fn cfg_guider(args: &Arguments<'_>) -> Result<Vec<Value>> {
    Ok(vec![Value::Guider(Arc::new(GuiderValue {
        model: args.model("model")?.clone(),
        positive: args.conditioning("positive")?.clone(),
        negative: Some(args.conditioning("negative")?.clone()),
        cfg: args.float("cfg")? as f32,
    }))])
}

fn cfg_guider_known(inputs: &KnownInputs<'_>, _: &mut DryRunContext<'_, '_>) -> Result<Vec<Known>> {
    Ok(guider_known(inputs, "positive").map(Known::Guider).into_iter().collect())
}

fn basic_guider(args: &Arguments<'_>) -> Result<Vec<Value>> {
    let (model, positive) = (args.model("model")?.clone(), args.conditioning("conditioning")?.clone());
    Ok(vec![Value::Guider(Arc::new(GuiderValue { model, positive, negative: None, cfg: 1.0 }))])
}

fn basic_guider_known(inputs: &KnownInputs<'_>, _: &mut DryRunContext<'_, '_>) -> Result<Vec<Known>> {
    Ok(guider_known(inputs, "conditioning").map(Known::Guider).into_iter().collect())
}

fn random_noise(args: &Arguments<'_>) -> Result<Vec<Value>> {
    Ok(vec![Value::Noise(NoiseValue::Seed(args.seed("noise_seed")?))])
}

fn no_noise(_: &Arguments<'_>) -> Result<Vec<Value>> {
    Ok(vec![Value::Noise(NoiseValue::Off)])
}
