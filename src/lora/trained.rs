//! What a LoRA was trained with, where no tensor tells it: `lora_alpha`, `r`, `use_rslora` and their exceptions by
//! module, as PEFT has them. diffusers writes them into the header as JSON (`lora_adapter_metadata`), SimpleTuner as
//! plain texts, PEFT into `adapter_config.json` beside the file.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::checkpoint::Checkpoint;

/// The file that PEFT writes beside its weights.
const BESIDE: &str = "adapter_config.json";
/// Largest that is read; real ones have some KiB.
const MOST_BYTES: u64 = 1 << 20;

/// Settings of one component (`unet`, `text_encoder`), or of the whole file (the empty name).
#[derive(Debug, Default)]
struct Config {
    alpha: Option<f64>,
    rank: Option<f64>,
    rslora: bool,
    /// By the end of a module's name.
    alphas: Vec<(String, f64)>,
    ranks: Vec<(String, f64)>,
}

/// All that a file tells of its training.
#[derive(Debug, Default)]
pub(super) struct Trained(BTreeMap<String, Config>);

impl Trained {
    /// From the header of `tensors`, and for what that does not tell from the file beside.
    pub fn with(tensors: &Checkpoint) -> Self {
        let mut trained = Self::default();
        if let Some(Value::Object(beside)) = beside(tensors) {
            trained.take(beside.iter().map(|(key, value)| (key.as_str(), value.clone())));
        }
        for (key, text) in tensors.metadata() {
            let value = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text.as_str()));
            match &value {
                Value::Object(inner) if inner.keys().any(|key| leaf(key).1 == "lora_alpha") => {
                    trained.take(inner.iter().map(|(key, value)| (key.as_str(), value.clone())));
                }
                _ => trained.take([(key.as_str(), value)].into_iter()),
            }
        }
        trained
    }

    fn take<'v>(&mut self, values: impl Iterator<Item = (&'v str, Value)>) {
        for (key, value) in values {
            let (component, name) = leaf(key);
            if !["lora_alpha", "r", "use_rslora", "alpha_pattern", "rank_pattern"].contains(&name) {
                continue;
            }
            let config = self.0.entry(component.to_owned()).or_default();
            match name {
                "lora_alpha" => config.alpha = number(&value).or(config.alpha),
                "r" => config.rank = number(&value).or(config.rank),
                "use_rslora" => config.rslora = is_true(&value),
                "alpha_pattern" => config.alphas = pattern(&value),
                _ => config.ranks = pattern(&value),
            }
        }
    }

    /// The factor on the change of `module`, whose matrices have `rank`; None if nothing tells it. An error is the
    /// rank that was told, where it is another.
    pub fn scale(&self, module: &str, rank: usize) -> Result<Option<f64>, f64> {
        let module = module.replace("base_model.model.", "");
        let plain = module.replace('.', "_");
        let of = |component: &str| !component.is_empty() && module.starts_with(&format!("{component}."));
        let own =
            self.0.iter().filter(|(component, _)| of(component)).max_by_key(|(component, _)| component.len());
        let Some((_, config)) = own.or_else(|| self.0.get_key_value("")) else { return Ok(None) };
        let exception = |all: &[(String, f64)]| {
            let fits = |end: &str| plain == end || plain.ends_with(&format!("_{end}"));
            all.iter().filter(|(end, _)| fits(end)).max_by_key(|(end, _)| end.len()).map(|(_, value)| *value)
        };
        let Some(alpha) = exception(&config.alphas).or(config.alpha) else { return Ok(None) };
        match exception(&config.ranks).or(config.rank) {
            Some(told) if told != rank as f64 => Err(told),
            _ if config.rslora => Ok(Some(alpha / (rank as f64).sqrt())),
            _ => Ok(Some(alpha / rank as f64)),
        }
    }
}

/// A key's component and its own name.
fn leaf(key: &str) -> (&str, &str) {
    key.rsplit_once('.').unwrap_or(("", key))
}

fn beside(tensors: &Checkpoint) -> Option<Value> {
    let path = tensors.file().parent()?.join(BESIDE);
    let small = std::fs::metadata(&path).is_ok_and(|m| m.is_file() && m.len() <= MOST_BYTES);
    if !small {
        return None;
    }
    let read = std::fs::read_to_string(&path).map_err(|e| e.to_string());
    match read.and_then(|text| serde_json::from_str(&text).map_err(|e| e.to_string())) {
        Ok(value) => Some(value),
        Err(e) => {
            log::warn!("{} is not read: {e}", path.display());
            None
        }
    }
}

fn number(value: &Value) -> Option<f64> {
    let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
    number.filter(|n| n.is_finite() && *n > 0.0)
}

fn is_true(value: &Value) -> bool {
    value.as_bool().unwrap_or_else(|| value.as_str().is_some_and(|text| text.eq_ignore_ascii_case("true")))
}

/// PEFT's patterns are ends of module names, which may begin with `^`.
fn pattern(value: &Value) -> Vec<(String, f64)> {
    let text = value.as_str().and_then(|text| serde_json::from_str(text).ok());
    let Some(object) = text.as_ref().unwrap_or(value).as_object() else { return Vec::new() };
    let plain =
        |key: &str| key.trim_start_matches('^').trim_end_matches('$').replace("\\.", ".").replace('.', "_");
    object.iter().filter_map(|(key, value)| Some((plain(key), number(value)?))).collect()
}
