//! What the settings beside a diffusers folder's weights say that the weights cannot: kept as
//! metadata, because that is where a single file would say it.
//!
//! A setting that changes what a network computes, and that is not followed, is an error with its name.
#![warn(clippy::indexing_slicing, clippy::string_slice)]

use std::path::Path;

use serde_json::{Value, json};

use super::key_maps::{UNET, VAE};
use super::named_tensors::Checkpoint;
use super::shards;
use crate::{Error, ErrorKind, Result};

/// `epsilon`, `v_prediction` or `sample`.
pub(crate) const PREDICTION: &str = "scheduler.prediction_type";
/// `true` if the noise levels were rescaled to end in pure noise.
pub(crate) const ZERO_SNR: &str = "scheduler.rescale_betas_zero_snr";
/// The noise schedule as JSON, if it is not that of all Stable Diffusion models.
pub(crate) const BETAS: &str = "scheduler.betas";
/// A number of attention heads, or a list with one for each level.
pub(crate) const UNET_HEADS: &str = "unet.attention_heads";
/// What a latent is multiplied by for the UNet.
pub(crate) const LATENT_SCALE: &str = "vae.scaling_factor";
/// What comes before a text encoder's prefix and the name of one of its settings.
pub(crate) const OF_ENCODER: &str = "text.";
/// A text encoder's number of attention heads.
pub(crate) const TEXT_HEADS: &str = "num_attention_heads";
/// A text encoder's number of layers; the file may hold more.
pub(crate) const TEXT_LAYERS: &str = "num_hidden_layers";
/// The nonlinearity in a text encoder's MLPs.
pub(crate) const TEXT_ACTIVATION: &str = "hidden_act";

/// The settings of a part, and of the pipeline around it.
const CONFIG: &str = "config.json";
const SCHEDULER: &str = "scheduler/scheduler_config.json";

/// Numbers of the usual noise schedule.
const USUAL_BETAS: (f64, f64, u64) = (0.000_85, 0.012, 1000);
/// Its kind.
const SCALED_LINEAR: &str = "scaled_linear";
/// No network was trained with more timesteps.
pub(crate) const MOST_TIMESTEPS: usize = 100_000;

/// A setting and the only values with which a network computes what it computes here.
type Fixed = (&'static str, fn(&Value) -> bool);

/// Not set, or set to do nothing.
fn off(v: &Value) -> bool {
    match v {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.iter().all(off),
        Value::Object(members) => members.is_empty(),
    }
}

fn on(v: &Value) -> bool {
    matches!(v, Value::Null | Value::Bool(true))
}

fn is(v: &Value, wanted: f64) -> bool {
    v.is_null() || v.as_f64().is_some_and(|n| (n - wanted).abs() <= 1e-3 * wanted.abs())
}

fn says(v: &Value, wanted: &[&str]) -> bool {
    v.is_null() || v.as_str().is_some_and(|text| wanted.contains(&text))
}

const UNET_FIXED: &[Fixed] = &[
    ("act_fn", |v| says(v, &["silu", "swish"])),
    ("norm_num_groups", |v| is(v, 32.0)),
    ("norm_eps", |v| is(v, 1e-5)),
    ("flip_sin_to_cos", on),
    ("freq_shift", off),
    ("center_input_sample", off),
    ("time_embedding_type", |v| says(v, &["positional"])),
    ("time_embedding_act_fn", off),
    ("timestep_post_act", off),
    ("time_cond_proj_dim", off),
    ("resnet_time_scale_shift", |v| says(v, &["default"])),
    ("resnet_skip_time_act", off),
    ("resnet_out_scale_factor", |v| is(v, 1.0)),
    ("mid_block_scale_factor", |v| is(v, 1.0)),
    ("cross_attention_norm", off),
    ("only_cross_attention", off),
    ("dual_cross_attention", off),
    ("encoder_hid_dim", off),
    ("encoder_hid_dim_type", off),
    ("class_embed_type", |v| off(v) || says(v, &["projection"])),
    ("addition_embed_type", |v| off(v) || says(v, &["text_time"])),
    ("attention_type", |v| says(v, &["default"])),
];

const VAE_FIXED: &[Fixed] = &[
    ("act_fn", |v| says(v, &["silu", "swish"])),
    ("norm_num_groups", |v| is(v, 32.0)),
    ("latent_channels", |v| is(v, 4.0)),
    ("shift_factor", off),
    ("latents_mean", off),
    ("latents_std", |v| v.as_array().map_or(v.is_null(), |list| list.iter().all(|n| is(n, 1.0)))),
    ("mid_block_add_attention", on),
    ("use_quant_conv", on),
    ("use_post_quant_conv", on),
];

const TEXT_FIXED: &[Fixed] = &[("layer_norm_eps", |v| is(v, 1e-5))];

impl Checkpoint {
    /// Notes the settings in the folder of a part: `config.json`, and for a UNet those of the
    /// scheduler in the pipeline around it.
    pub(super) fn note_part(&mut self, folder: &Path) -> Result<()> {
        let path = folder.join(CONFIG);
        let config = settings(&path)?;
        if self.names_under(UNET).next().is_some() {
            check(&path, &config, UNET_FIXED)?;
            // Diffusers' older name is a misnomer: it never held the width of a head.
            let heads = ["num_attention_heads", "attention_head_dim"].map(|key| member(&config, key));
            if let Some(heads) = heads.into_iter().find(|v| !v.is_null()) {
                self.metadata.insert(UNET_HEADS.into(), heads.to_string());
            }
            if let Some(pipeline) = folder.parent() {
                self.note_scheduler(&pipeline.join(SCHEDULER))?;
            }
        }
        if self.names_under(VAE).next().is_some() {
            check(&path, &config, VAE_FIXED)?;
            let scaling = member(&config, "scaling_factor");
            if !scaling.is_null() {
                let scale = scaling.as_f64().filter(|s| (*s as f32).is_normal() && *s > 0.0);
                let scale = scale.ok_or_else(|| unfit(&path, "scaling_factor", scaling))?;
                self.metadata.insert(LATENT_SCALE.into(), scale.to_string());
            }
        }
        for seen in self.encoders() {
            check(&path, &config, TEXT_FIXED)?;
            for key in [TEXT_HEADS, TEXT_LAYERS, TEXT_ACTIVATION] {
                let value = member(&config, key);
                if !value.is_null() {
                    let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    self.metadata.insert(format!("{OF_ENCODER}{}{key}", seen.prefix), value);
                }
            }
        }
        Ok(())
    }

    /// The latent scale in the file's settings: what a latent of its VAE is multiplied by for the UNet.
    pub(crate) fn latent_scale(&self) -> Option<f32> {
        let scale = self.metadata.get(LATENT_SCALE).and_then(|scale| scale.parse().ok());
        scale.filter(|scale: &f32| scale.is_normal() && *scale > 0.0)
    }

    /// What the network's output means, and the noise that it was trained on. The scheduler's other
    /// settings are the author's taste.
    pub(super) fn note_scheduler(&mut self, path: &Path) -> Result<()> {
        let scheduler = settings(path)?;
        let [class, prediction, zero_snr] =
            ["_class_name", "prediction_type", "rescale_betas_zero_snr"].map(|key| member(&scheduler, key));
        if let Some(name) = class.as_str()
            && ["EDM", "FlowMatch", "Karras", "Cosine"].iter().any(|start| name.starts_with(start))
        {
            return Err(Error::new(ErrorKind::Model, "the network has noise levels of another kind")
                .file(path)
                .at("_class_name")
                .expected("a scheduler of Stable Diffusion's noise levels, such as DDIMScheduler")
                .found(short(class)));
        }
        if let Some(name) = prediction.as_str() {
            if !matches!(name, "epsilon" | "v_prediction" | "sample") {
                return Err(Error::new(ErrorKind::Model, "the network predicts something unknown")
                    .file(path)
                    .at("prediction_type")
                    .expected("epsilon, v_prediction or sample")
                    .found(short(prediction)));
            }
            self.metadata.insert(PREDICTION.into(), name.into());
        }
        if *zero_snr == Value::Bool(true) {
            self.metadata.insert(ZERO_SNR.into(), "true".into());
        }
        if let Some(betas) = betas(path, &scheduler)? {
            self.metadata.insert(BETAS.into(), betas.to_string());
        }
        Ok(())
    }
}

/// The noise schedule of a scheduler; None if it is the usual one.
fn betas(path: &Path, scheduler: &Value) -> Result<Option<Value>> {
    let names = ["beta_start", "beta_end", "beta_schedule", "trained_betas", "num_train_timesteps"];
    let [start, end, schedule, trained, timesteps] = names.map(|name| member(scheduler, name));
    let number = |name: &str, v: &Value, usual: f64| match v {
        Value::Null => Ok(usual),
        v => v.as_f64().filter(|n| *n > 0.0 && *n < 1.0).ok_or_else(|| unfit(path, name, v)),
    };
    let steps = match timesteps {
        Value::Null => USUAL_BETAS.2,
        v => v
            .as_u64()
            .filter(|n| (2..=MOST_TIMESTEPS as u64).contains(n))
            .ok_or_else(|| unfit(path, "num_train_timesteps", v))?,
    };
    if !trained.is_null() {
        let list = trained.as_array().filter(|list| (2..=MOST_TIMESTEPS).contains(&list.len()));
        let list = list.filter(|list| timesteps.is_null() || list.len() as u64 == steps);
        let list = list.ok_or_else(|| unfit(path, "trained_betas", trained))?;
        let fits = |v: &Value| v.as_f64().is_some_and(|n| n > 0.0 && n < 1.0);
        return match list.iter().find(|v| !fits(v)) {
            None => Ok(Some(json!({ "trained": list }))),
            Some(v) => Err(unfit(path, "trained_betas", v)),
        };
    }
    let schedule = match schedule {
        Value::Null => SCALED_LINEAR,
        v => v
            .as_str()
            .filter(|s| matches!(*s, "linear" | SCALED_LINEAR | "squaredcos_cap_v2"))
            .ok_or_else(|| unfit(path, "beta_schedule", v))?,
    };
    let (start, end) = (number("beta_start", start, USUAL_BETAS.0)?, number("beta_end", end, USUAL_BETAS.1)?);
    if (start, end, steps) == USUAL_BETAS && schedule == SCALED_LINEAR {
        return Ok(None);
    }
    Ok(Some(json!({ "start": start, "end": end, "schedule": schedule, "timesteps": steps })))
}

/// Refuses settings with which the network would compute something else than what is computed here.
fn check(path: &Path, config: &Value, fixed: &[Fixed]) -> Result<()> {
    match fixed.iter().find(|(name, fits)| !fits(member(config, name))) {
        None => Ok(()),
        Some((name, _)) => Err(unfit(path, name, member(config, name))),
    }
}

fn unfit(path: &Path, name: &str, value: &Value) -> Error {
    Error::new(ErrorKind::Model, "a setting of the model cannot be followed")
        .file(path)
        .at(name)
        .expected("what Stable Diffusion's networks have")
        .found(short(value))
        .hint("pictures would come out wrong: pass another model, or mend the setting if it is a mistake")
}

/// A value of a file for a message.
fn short(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned).chars().take(80).collect()
}

/// A setting, or null if it is not set.
fn member<'v>(settings: &'v Value, name: &str) -> &'v Value {
    static NULL: Value = Value::Null;
    settings.get(name).unwrap_or(&NULL)
}

/// The settings in a file, or null if there is none.
fn settings(path: &Path) -> Result<Value> {
    if path.is_file() { shards::json(path) } else { Ok(Value::Null) }
}
