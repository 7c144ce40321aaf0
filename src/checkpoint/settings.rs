//! What the settings beside a diffusers folder's weights tell that the weights cannot: kept as
//! metadata, because that is where a single file would say it.

use std::path::Path;

use serde_json::Value;

use super::{Checkpoint, shards};
use crate::{Error, ErrorKind, Result};

/// `epsilon` or `v_prediction`.
pub(crate) const PREDICTION: &str = "scheduler.prediction_type";
/// `true` if the noise levels were rescaled to end in pure noise.
pub(crate) const ZERO_SNR: &str = "scheduler.rescale_betas_zero_snr";
/// A number of attention heads, or a list with one for each level.
pub(crate) const UNET_HEADS: &str = "unet.attention_heads";
/// What a latent is multiplied by for the UNet.
pub(crate) const LATENT_SCALE: &str = "vae.scaling_factor";
/// What follows a text encoder's folder name: its number of attention heads.
pub(crate) const TEXT_HEADS: &str = ".num_attention_heads";
/// What follows a text encoder's folder name: the nonlinearity in its MLPs.
pub(crate) const TEXT_ACTIVATION: &str = ".hidden_act";
/// The folders of the text encoders, in the order of their outputs.
pub(crate) const TEXT_FOLDERS: [&str; 2] = ["text_encoder", "text_encoder_2"];

impl Checkpoint {
    /// Notes the settings in the pipeline's folder `folder`, where there are any.
    pub(super) fn note_settings(&mut self, folder: &Path) -> Result<()> {
        self.note_scheduler(&folder.join("scheduler").join("scheduler_config.json"))?;
        let unet = settings(&folder.join("unet").join("config.json"))?;
        // Diffusers' older name is a misnomer: it never held the width of a head.
        let heads = ["num_attention_heads", "attention_head_dim"].map(|key| &unet[key]);
        if let Some(heads) = heads.into_iter().find(|v| !v.is_null()) {
            self.metadata.insert(UNET_HEADS.into(), heads.to_string());
        }
        let vae = settings(&folder.join("vae").join("config.json"))?;
        if let Some(scale) = vae["scaling_factor"].as_f64() {
            self.metadata.insert(LATENT_SCALE.into(), scale.to_string());
        }
        for name in TEXT_FOLDERS {
            let text = settings(&folder.join(name).join("config.json"))?;
            for key in [TEXT_HEADS, TEXT_ACTIVATION] {
                let value = &text[key.trim_start_matches('.')];
                if !value.is_null() {
                    let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    self.metadata.insert(format!("{name}{key}"), value);
                }
            }
        }
        Ok(())
    }

    /// Forgets what the settings told of text encoders that have been replaced.
    pub(super) fn forget_text_settings(&mut self) {
        self.metadata.retain(|key, _| {
            !TEXT_FOLDERS
                .iter()
                .any(|name| [TEXT_HEADS, TEXT_ACTIVATION].iter().any(|end| *key == format!("{name}{end}")))
        });
    }

    /// What the network's output means. The scheduler's other settings are the author's taste.
    fn note_scheduler(&mut self, path: &Path) -> Result<()> {
        let scheduler = settings(path)?;
        if let Some(prediction) = scheduler["prediction_type"].as_str() {
            if !matches!(prediction, "epsilon" | "v_prediction") {
                return Err(Error::new(ErrorKind::Model, "the network predicts something unknown")
                    .file(path)
                    .at("prediction_type")
                    .expected("epsilon or v_prediction")
                    .found(prediction.chars().take(80).collect::<String>()));
            }
            self.metadata.insert(PREDICTION.into(), prediction.into());
        }
        if scheduler["rescale_betas_zero_snr"] == Value::Bool(true) {
            self.metadata.insert(ZERO_SNR.into(), "true".into());
        }
        Ok(())
    }
}

/// The settings in a file, or null if there is none.
fn settings(path: &Path) -> Result<Value> {
    if path.is_file() { shards::json(path) } else { Ok(Value::Null) }
}
