//! SamplerCustom's family: sampler, noise levels, noise and guider as nodes of their own.

use std::sync::Arc;

use super::super::run::Work;
use super::super::value::{Arguments, GuiderValue, NoiseValue, Value};
use super::Function::{Plain, Working};
use super::sampling::{SAMPLER, SCHEDULER, named, sampled, with_samples};
use super::{Class, Slot, Type, float, int, seed, socket, switch};
use crate::sampler::{Discrete, Scheduler, exponential_sigmas, karras_sigmas};
use crate::{Error, Result};

/// The steps of a schedule.
const STEPS: Slot = int("steps", 20, 1, 10_000);
const SIGMA_MAX: Slot = float("sigma_max", 14.614642, 0.0, 5000.0);
const SIGMA_MIN: Slot = float("sigma_min", 0.0291675, 0.0, 5000.0);

pub(in super::super) const CLASSES: &[Class] = &[
    Class {
        name: "SamplerCustom",
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
        is_output: false,
        run: Working(custom),
    },
    Class {
        name: "SamplerCustomAdvanced",
        inputs: &[
            socket("noise", Type::Noise),
            socket("guider", Type::Guider),
            socket("sampler", Type::Sampler),
            socket("sigmas", Type::Sigmas),
            socket("latent_image", Type::Latent),
        ],
        outputs: &[Type::Latent, Type::Latent],
        is_output: false,
        run: Working(custom_advanced),
    },
    Class {
        name: "KSamplerSelect",
        inputs: &[SAMPLER],
        outputs: &[Type::Sampler],
        is_output: false,
        run: Plain(select),
    },
    Class {
        name: "BasicScheduler",
        inputs: &[
            socket("model", Type::Model),
            SCHEDULER,
            STEPS,
            float("denoise", 1.0, 0.0, 1.0).or_default(),
        ],
        outputs: &[Type::Sigmas],
        is_output: false,
        run: Plain(basic),
    },
    Class {
        name: "KarrasScheduler",
        inputs: &[STEPS, SIGMA_MAX, SIGMA_MIN, float("rho", 7.0, 0.0, 100.0)],
        outputs: &[Type::Sigmas],
        is_output: false,
        run: Plain(karras),
    },
    Class {
        name: "ExponentialScheduler",
        inputs: &[STEPS, SIGMA_MAX, SIGMA_MIN],
        outputs: &[Type::Sigmas],
        is_output: false,
        run: Plain(exponential),
    },
    Class {
        name: "SplitSigmas",
        inputs: &[socket("sigmas", Type::Sigmas), int("step", 0, 0, 10_000)],
        outputs: &[Type::Sigmas, Type::Sigmas],
        is_output: false,
        run: Plain(split),
    },
    Class {
        name: "CFGGuider",
        inputs: &[
            socket("model", Type::Model),
            socket("positive", Type::Conditioning),
            socket("negative", Type::Conditioning),
            float("cfg", 8.0, 0.0, 100.0),
        ],
        outputs: &[Type::Guider],
        is_output: false,
        run: Plain(cfg_guider),
    },
    Class {
        name: "BasicGuider",
        inputs: &[socket("model", Type::Model), socket("conditioning", Type::Conditioning)],
        outputs: &[Type::Guider],
        is_output: false,
        run: Plain(basic_guider),
    },
    Class {
        name: "RandomNoise",
        inputs: &[seed("noise_seed")],
        outputs: &[Type::Noise],
        is_output: false,
        run: Plain(random_noise),
    },
    Class {
        name: "DisableNoise",
        inputs: &[],
        outputs: &[Type::Noise],
        is_output: false,
        run: Plain(no_noise),
    },
];

fn of_sigmas(sigmas: Vec<f32>) -> Result<Vec<Value>> {
    Ok(vec![Value::Sigmas(Arc::new(sigmas))])
}

fn custom(work: &mut Work<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
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

fn custom_advanced(work: &mut Work<'_>, args: &Arguments<'_>) -> Result<Vec<Value>> {
    let noise = *args.noise("noise")?;
    let seed = match noise {
        NoiseValue::Seed(seed) => seed,
        NoiseValue::Off => 0,
    };
    both(work, args, args.guider("guider")?, (noise, seed))
}

/// The latent at the end, and what was seen in it at the last step.
fn both(
    work: &mut Work<'_>,
    args: &Arguments<'_>,
    guider: &GuiderValue,
    noise: (NoiseValue, u64),
) -> Result<Vec<Value>> {
    let (latents, sigmas) = (args.latent("latent_image")?, args.sigmas("sigmas")?);
    let sampled = sampled(work, guider, *args.sampler("sampler")?, sigmas.to_vec(), latents, noise, true)?;
    let denoised = sampled.denoised.ok_or_else(|| Error::internal("no last prediction was read"))?;
    Ok(vec![with_samples(latents, sampled.latent), with_samples(latents, denoised)])
}

fn select(args: &Arguments<'_>) -> Result<Vec<Value>> {
    Ok(vec![Value::Sampler(named(args.text("sampler_name")?)?)])
}

fn basic(args: &Arguments<'_>) -> Result<Vec<Value>> {
    of_sigmas(basic_levels(args, args.model("model")?.diffusion.discrete())?)
}

/// BasicScheduler's noise levels, on a model with those of `table`.
pub(in super::super) fn basic_levels(args: &Arguments<'_>, table: &Discrete) -> Result<Vec<f32>> {
    let (steps, denoise) = (args.size("steps")?, args.float("denoise")?);
    let scheduler: Scheduler = args.text("scheduler")?.parse()?;
    let mut sigmas = scheduler.sigmas(table, steps, denoise, false)?;
    // Unlike KSampler this node cuts a whole run too, where a scheduler gives more than was asked for.
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

fn basic_guider(args: &Arguments<'_>) -> Result<Vec<Value>> {
    let (model, positive) = (args.model("model")?.clone(), args.conditioning("conditioning")?.clone());
    Ok(vec![Value::Guider(Arc::new(GuiderValue { model, positive, negative: None, cfg: 1.0 }))])
}

fn random_noise(args: &Arguments<'_>) -> Result<Vec<Value>> {
    Ok(vec![Value::Noise(NoiseValue::Seed(args.seed("noise_seed")?))])
}

fn no_noise(_: &Arguments<'_>) -> Result<Vec<Value>> {
    Ok(vec![Value::Noise(NoiseValue::Off)])
}
