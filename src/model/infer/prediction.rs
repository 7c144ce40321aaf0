//! What a UNet's output means and the noise that it was trained on, as far as files say: marks among the
//! tensors, the settings of a diffusers folder, the metadata that trainers write.
#![warn(clippy::indexing_slicing, clippy::string_slice)]

use serde_json::Value;
use std::str::FromStr;

use crate::checkpoint::{BETAS, Checkpoint, MOST_TIMESTEPS, PREDICTION, ZERO_SNR};
use crate::families::{Family, Prediction};
use crate::model::config::{NoiseLevels, UNET, UnetConfig};
use crate::sampler::Discrete;
use crate::{Error, Result};

/// The least share of a picture, squared, that a noise schedule leaves at its end.
const LEAST_LEFT: f64 = 1e-12;
/// The tensor of a single file that holds what is left of the picture at each timestep.
const LEFT: &str = "alphas_cumprod";
/// Less than that is pure noise: the usual schedule leaves 0.0047.
const PURE: f32 = 1e-5;

/// What one place in a file says of the output.
struct Statement {
    place: String,
    prediction: Prediction,
}

/// What the network predicts.
///
/// # Errors
/// [`ErrorKind::Model`](crate::ErrorKind::Model) for settings of a folder that contradict themselves, or if a
/// tensor cannot be read.
pub(super) fn of(model: &Checkpoint, family: Family, unet: &UnetConfig) -> Result<Prediction> {
    let statements = statements(model);
    let left = left(model);
    let zero = zero_snr(model, left.as_deref());
    if let Some((first, others)) = statements.split_first() {
        for other in others.iter().filter(|other| other.prediction != first.prediction) {
            model.warn(format_args!(
                "{} says that the network predicts {}, {} that it predicts {}: the first counts",
                first.place, first.prediction, other.place, other.prediction
            ));
        }
    }
    let prediction = match statements.first() {
        Some(first) => first.prediction,
        None => guessed(model, family, unet)?,
    };
    let prediction = match (prediction, zero) {
        (Prediction::V, Some(_)) => Prediction::ZeroSnrV,
        (prediction, Some(place)) => {
            model.warn(format_args!(
                "{place} says that the noise levels end in pure noise, which need v prediction: the network \
                 predicts {prediction}, and they are left out"
            ));
            prediction
        }
        (prediction, None) => prediction,
    };
    warn_of_noise(model, left.as_deref(), prediction);
    Ok(prediction)
}

/// All that the file says of the prediction, what counts most first.
fn statements(model: &Checkpoint) -> Vec<Statement> {
    let mut statements = Vec::new();
    if let Some(mark) = mark(model, "v_pred") {
        statements.push(Statement { place: format!("the tensor {mark}"), prediction: Prediction::V });
    }
    let mut say = |key: &str, prediction: Option<Prediction>, value: &str| match prediction {
        Some(prediction) => {
            statements.push(Statement { place: format!("{key} = {}", short(value)), prediction })
        }
        None => model.warn(format_args!(
            "{key} names a prediction that is not known, and is not followed: {}",
            short(value)
        )),
    };
    let text = |key: &str| model.metadata().get(key).map(|value| value.trim());
    let usable = |value: &&str| !matches!(value.to_lowercase().as_str(), "" | "none" | "null" | "unknown");
    for key in [PREDICTION, "modelspec.prediction_type", "prediction_type", "ss_prediction_type"] {
        if let Some(value) = text(key).filter(usable) {
            say(key, meaning(value), value);
        }
    }
    for key in ["ss_v_parameterization", "v_parameterization", "v_prediction", "v_pred", "vpred"] {
        if let Some(value) = text(key).filter(usable) {
            let prediction = match truth(value) {
                Some(true) => Some(Prediction::V),
                Some(false) => Some(Prediction::Eps),
                None => None,
            };
            say(key, prediction, value);
        }
    }
    // Kohya's sd_v2_v and the specification's stable-diffusion-v2-768-v, before its adapters.
    let base = text("ss_base_model_version").filter(|v| v.to_lowercase().ends_with("_v"));
    if let Some(value) = base {
        say("ss_base_model_version", Some(Prediction::V), value);
    }
    if let Some(value) = text("modelspec.architecture") {
        let architecture = value.to_lowercase();
        let architecture = architecture.split('/').next().unwrap_or_default();
        if architecture.contains("-v2-768-v") {
            say("modelspec.architecture", Some(Prediction::V), value);
        } else if architecture.contains("-v2-512") {
            say("modelspec.architecture", Some(Prediction::Eps), value);
        }
    }
    statements
}

/// Where the file says that its noise levels end in pure noise, if it does.
fn zero_snr(model: &Checkpoint, left: Option<&[f32]>) -> Option<String> {
    if let Some(mark) = mark(model, "ztsnr") {
        return Some(format!("the tensor {mark}"));
    }
    if left.and_then(<[f32]>::last).is_some_and(|last| last.abs() < PURE) {
        return Some(format!("the tensor {LEFT}"));
    }
    let keys = [ZERO_SNR, "ss_zero_terminal_snr", "zero_terminal_snr", "ztsnr", "zsnr"];
    let says = |key: &&str| model.metadata().get(*key).is_some_and(|v| truth(v) == Some(true));
    let by_name = ["modelspec.prediction_type", "prediction_type"];
    let in_name = |key: &&str| {
        let value = model.metadata().get(*key).map(|v| v.to_lowercase()).unwrap_or_default();
        ["zsnr", "ztsnr", "zero"].iter().any(|part| value.contains(part))
    };
    keys.into_iter().find(says).or_else(|| by_name.into_iter().find(in_name)).map(str::to_owned)
}

/// What of the picture is left at each timestep, as checkpoints carry it along with the weights.
fn left(model: &Checkpoint) -> Option<Vec<f32>> {
    let shape = model.dims::<1>(LEFT).ok().filter(|[steps]| (2..=MOST_TIMESTEPS).contains(steps))?;
    model.read_f32(LEFT, &shape).ok()
}

/// Warns of noise levels that a single file carries along and that are not those of its kind: other programs do not
/// follow them either.
fn warn_of_noise(model: &Checkpoint, left: Option<&[f32]>, prediction: Prediction) {
    let Some(left) = left else {
        if model.has(LEFT) {
            model.warn(format_args!("the tensor {LEFT} holds no noise levels, and is left out"));
        }
        return;
    };
    let usual = match prediction {
        Prediction::ZeroSnrV => Discrete::zero_terminal_snr(),
        _ => Discrete::stable_diffusion(),
    };
    let sigma = |left: f32| ((1.0 - left) / left).sqrt();
    // The last may be pure noise, whose sigma is infinite.
    let Some((last, before)) = left.split_last() else { return };
    let found: Vec<f32> = before.iter().copied().map(sigma).collect();
    let same = left.len() == usual.sigmas().len()
        && found.iter().zip(usual.sigmas()).all(|(a, b)| (a / b - 1.0).abs() < 0.02);
    if same {
        return;
    }
    model.warn(format_args!(
        "the tensor {LEFT} holds noise levels of {:.3} to {:.3}, those of its kind are {:.3} to {:.3}: the file's are \
         left out",
        found.first().copied().unwrap_or(f32::NAN),
        sigma(*last),
        usual.sigma_min(),
        usual.sigma_max()
    ));
}

/// A tensor without meaning but its name, by itself or below the UNet's.
fn mark(model: &Checkpoint, name: &str) -> Option<String> {
    [name.to_owned(), format!("{UNET}{name}")].into_iter().find(|name| model.has(name))
}

impl FromStr for Prediction {
    type Err = Error;

    /// By the words that programs write: `eps`, `epsilon`, `v`, `v_prediction`, `v-zsnr`, `sample`.
    fn from_str(name: &str) -> Result<Self> {
        let is_zero = ["zsnr", "ztsnr", "zero"].iter().any(|part| name.to_lowercase().contains(part));
        match (meaning(name.trim()), is_zero) {
            (Some(Self::V), true) => Ok(Self::ZeroSnrV),
            (Some(prediction), _) => Ok(prediction),
            (None, _) => Err(Error::usage("unknown prediction").expected("eps, v, v-zsnr or x0").found(name)),
        }
    }
}

/// The words that programs write for a prediction.
fn meaning(value: &str) -> Option<Prediction> {
    let value = value.to_lowercase().replace(['-', ' '], "_");
    let value = ["_zsnr", "_ztsnr", "_zero_snr", "_zero_terminal_snr"]
        .iter()
        .find_map(|end| value.strip_suffix(end))
        .unwrap_or(&value);
    Some(match value {
        "epsilon" | "eps" | "noise" => Prediction::Eps,
        "v" | "v_prediction" | "v_pred" | "vpred" | "velocity" | "v_parameterization" => Prediction::V,
        "sample" | "x0" | "x_0" => Prediction::Picture,
        _ => return None,
    })
}

fn truth(value: &str) -> Option<bool> {
    match value.trim().to_lowercase().as_str() {
        "true" | "1" | "yes" => Some(true),
        "false" | "0" | "no" => Some(false),
        _ => None,
    }
}

fn short(value: &str) -> String {
    value.chars().filter(|c| !c.is_control()).take(80).collect()
}

/// What the network seems to predict where the file says nothing. Both kinds of SD2 have the same shapes; as
/// in ComfyUI, a bias that training on v leaves larger shows which one it is.
fn guessed(model: &Checkpoint, family: Family, unet: &UnetConfig) -> Result<Prediction> {
    const LIMIT: f64 = 0.09;
    let tell_tale = format!("{UNET}output_blocks.11.1.transformer_blocks.0.norm1.bias");
    let is_v = match family {
        Family::Sd1 | Family::Sdxl => false,
        // SD2's inpainting and depth models predict ε.
        Family::Sd2 if unet.in_channels != 4 => false,
        Family::Sd2 => match model.dims::<1>(&tell_tale) {
            Ok(shape) => standard_deviation(&model.read_f32(&tell_tale, &shape)?) > LIMIT,
            // A smaller network has no block 11: its author can only say it.
            Err(_) => false,
        },
    };
    Ok(if is_v { Prediction::V } else { Prediction::Eps })
}

/// Of the whole population: divided by n.
fn standard_deviation(values: &[f32]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let squares: f64 = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum();
    (squares / n).sqrt()
}

/// The noise schedule in the settings, if it is not the usual one.
///
/// # Errors
/// [`ErrorKind::Model`](crate::ErrorKind::Model) if its noise does not grow, or without end.
pub(super) fn noise(model: &Checkpoint) -> Result<Option<NoiseLevels>> {
    let Some(text) = model.metadata().get(BETAS) else { return Ok(None) };
    let unfit = || model.fault("a noise schedule that cannot be followed").at(BETAS).found(short(text));
    let schedule: Value = serde_json::from_str(text).map_err(|e| unfit().cause(e))?;
    let betas = betas(&schedule).ok_or_else(unfit)?;
    let products = betas.iter().scan(1.0, |product, beta| {
        *product *= 1.0 - beta;
        Some(*product)
    });
    let alphas_cumprod: Vec<f64> = products.collect();
    // What is left of the picture at the end; zero terminal SNR is 5e-8.
    if alphas_cumprod.last().is_some_and(|left| *left < LEAST_LEFT) {
        return Err(unfit().expected(format!("at least {LEAST_LEFT} of the picture at the last timestep")));
    }
    Discrete::from_alphas_cumprod(&alphas_cumprod).map_err(|e| unfit().cause(e))?;
    Ok(Some(NoiseLevels { alphas_cumprod }))
}

/// The betas of diffusers' schedules.
fn betas(schedule: &Value) -> Option<Vec<f64>> {
    if let Some(list) = schedule.get("trained").and_then(Value::as_array) {
        return list.iter().map(Value::as_f64).collect();
    }
    let (start, end) = (schedule.get("start")?.as_f64()?, schedule.get("end")?.as_f64()?);
    let steps = usize::try_from(schedule.get("timesteps")?.as_u64()?)
        .ok()
        .filter(|n| (2..=MOST_TIMESTEPS).contains(n))?;
    let between = |from: f64, to: f64, i: usize| from + (to - from) * i as f64 / (steps - 1) as f64;
    let beta = |i: usize| match schedule.get("schedule")?.as_str()? {
        "linear" => Some(between(start, end, i)),
        "scaled_linear" => Some(between(start.sqrt(), end.sqrt(), i).powi(2)),
        "squaredcos_cap_v2" => {
            // Nichol and Dhariwal 2021, equation 17.
            let alpha = |t: f64| ((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2);
            let (from, to) = (i as f64 / steps as f64, (i + 1) as f64 / steps as f64);
            Some((1.0 - alpha(to) / alpha(from)).min(0.999))
        }
        _ => None,
    };
    (0..steps).map(beta).collect()
}
