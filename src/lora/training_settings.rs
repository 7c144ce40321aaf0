//! What a LoRA was trained with, where no tensor says it: `lora_alpha`, `r`, `use_rslora` and their exceptions by
//! module, as PEFT has them. diffusers writes them into the header as JSON (`lora_adapter_metadata`), SimpleTuner as
//! plain texts, PEFT into `adapter_config.json` beside the file.
#![warn(clippy::indexing_slicing, clippy::string_slice)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::string_slice))]

use std::collections::BTreeMap;

use regex::bytes::{Regex, RegexBuilder};
use serde_json::Value;

use crate::checkpoint::Checkpoint;

/// The file that PEFT writes beside its weights.
const BESIDE: &str = "adapter_config.json";
/// Largest that is read; real ones have some KiB.
const MOST_BYTES: u64 = 1 << 20;
/// The settings that are read.
const KEYS: [&str; 5] = ["lora_alpha", "r", "use_rslora", "alpha_pattern", "rank_pattern"];
/// kohya's, whose trainer writes a tensor for each module as well.
const KOHYA: &str = "ss_network_alpha";

/// Settings of one component (`unet`, `text_encoder`), or of the whole file (the empty name).
#[derive(Debug, Default)]
struct ComponentSettings {
    alpha: Option<f64>,
    rank: Option<f64>,
    rslora: bool,
    alphas: Vec<Exception>,
    ranks: Vec<Exception>,
}

/// A value for the modules whose name, or its end behind a dot, is as the pattern says.
#[derive(Debug)]
struct Exception {
    /// As it was written, for what is no pattern.
    plain: String,
    pattern: Option<Regex>,
    value: f64,
}

/// All that a file says of its training.
#[derive(Debug, Default)]
pub(super) struct TrainingSettings {
    configs: BTreeMap<String, ComponentSettings>,
    warnings: Vec<String>,
}

impl TrainingSettings {
    /// From the header of `tensors`; what that does not say, from the file beside.
    pub fn with(tensors: &Checkpoint) -> Self {
        let mut header = Self::default();
        for (key, text) in tensors.metadata() {
            let json = text.trim_start().starts_with('{').then(|| serde_json::from_str::<Value>(text));
            match json {
                Some(Ok(Value::Object(inner))) => {
                    let inner = inner.iter().map(|(key, value)| (key.as_str(), value.clone()));
                    // Other programs' objects have other keys.
                    header.take(inner.filter(|(key, _)| KEYS.contains(&leaf(key).1)));
                }
                Some(Err(e)) if key.contains("adapter") => {
                    header
                        .warnings
                        .push(format!("the settings in the header, {key}, are no sound JSON: {e}"));
                }
                _ => header.take([(key.as_str(), Value::from(text.as_str()))].into_iter()),
            }
        }
        let mut beside = Self::default();
        match read_beside(tensors) {
            Some(Ok(Value::Object(inner))) => {
                beside.take(inner.iter().map(|(key, value)| (key.as_str(), value.clone())));
            }
            Some(Err(e)) => beside.warnings.push(format!("{BESIDE} beside it is not read: {e}")),
            _ => {}
        }
        let (own, other) = (header.whole_alpha(), beside.whole_alpha());
        if let (Some(own), Some(other)) = (own, other)
            && own != other
        {
            header
                .warnings
                .push(format!("its header says alpha {own}, {BESIDE} beside it {other}: the header counts"));
        }
        let beside_counts = own.is_none() && other.is_some();
        if beside_counts && has_neighbours(tensors) {
            header.warnings.push(format!(
                "its strength is taken from {BESIDE} beside it, which may be of another file in the folder"
            ));
        }
        for (component, config) in beside.configs {
            // Of a component in the header nothing is taken from the file beside.
            let known =
                header.configs.keys().any(|own| own.is_empty() || component.is_empty() || *own == component);
            if !known {
                header.configs.insert(component, config);
            }
        }
        header.warnings.extend(beside.warnings);
        if let Some(alpha) =
            tensors.metadata().get(KOHYA).filter(|_| !tensors.names().any(|n| n.ends_with(".alpha")))
        {
            header.warnings.push(format!(
                "{KOHYA} is {alpha} in the header, but no tensor has an alpha: its strength is 1, as in other programs"
            ));
        }
        header
    }

    /// What could not be followed, or is said twice.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The one alpha of all components, if there is one.
    fn whole_alpha(&self) -> Option<f64> {
        let mut alphas = self.configs.values().filter_map(|config| config.alpha);
        let first = alphas.next()?;
        alphas.all(|alpha| alpha == first).then_some(first)
    }

    fn take<'v>(&mut self, values: impl Iterator<Item = (&'v str, Value)>) {
        for (key, value) in values {
            let (component, name) = leaf(key);
            if !KEYS.contains(&name) {
                continue;
            }
            let config = self.configs.entry(component.to_owned()).or_default();
            let warnings = &mut self.warnings;
            match name {
                "lora_alpha" => config.alpha = number(&value).or(config.alpha),
                "r" => config.rank = number(&value).or(config.rank),
                "use_rslora" => config.rslora = is_true(&value),
                "alpha_pattern" => config.alphas = exceptions(&value, warnings),
                _ => config.ranks = exceptions(&value, warnings),
            }
        }
    }

    /// The factor on the change of `module`, whose matrices have `rank`; None if nothing says it. The error is the
    /// rank in the settings, where it is another.
    pub fn scale(&self, module: &str, rank: usize) -> Result<Option<f64>, f64> {
        // PEFT and diffusers write names with dots; others store alpha as tensors.
        if !module.contains('.') {
            return Ok(None);
        }
        let module = module.replace("base_model.model.", "");
        let of = |component: &str| !component.is_empty() && module.starts_with(&format!("{component}."));
        let own = self.configs.iter().filter(|(component, _)| of(component));
        let own = own.max_by_key(|(component, _)| component.len());
        let Some((component, config)) = own.or_else(|| self.configs.get_key_value("")) else {
            return Ok(None);
        };
        let inner = module.strip_prefix(&format!("{component}.")).unwrap_or(&module);
        let inner = inner.strip_prefix("unet.").unwrap_or(inner);
        // The first that fits, as in PEFT.
        let exception = |all: &[Exception]| all.iter().find(|one| one.fits(inner)).map(|one| one.value);
        let Some(alpha) = exception(&config.alphas).or(config.alpha) else { return Ok(None) };
        match exception(&config.ranks).or(config.rank) {
            Some(other) if other != rank as f64 => Err(other),
            _ if config.rslora => Ok(Some(alpha / (rank as f64).sqrt())),
            _ => Ok(Some(alpha / rank as f64)),
        }
    }
}

impl Exception {
    /// PEFT: `re.match(rf"(.*\.)?({key})$", name)`.
    fn fits(&self, module: &str) -> bool {
        match &self.pattern {
            Some(pattern) => pattern.is_match(module.as_bytes()),
            None => module == self.plain || module.ends_with(&format!(".{}", self.plain)),
        }
    }
}

/// A key's component and its own name.
fn leaf(key: &str) -> (&str, &str) {
    key.rsplit_once('.').unwrap_or(("", key))
}

fn read_beside(tensors: &Checkpoint) -> Option<Result<Value, String>> {
    let path = tensors.file().parent()?.join(BESIDE);
    let small = std::fs::metadata(&path).is_ok_and(|m| m.is_file() && m.len() <= MOST_BYTES);
    let read = || std::fs::read_to_string(&path).map_err(|e| e.to_string());
    small.then(|| read().and_then(|text| serde_json::from_str(&text).map_err(|e| e.to_string())))
}

/// Whether other files of weights are in the folder.
fn has_neighbours(tensors: &Checkpoint) -> bool {
    let entries =
        tensors.file().parent().and_then(|folder| std::fs::read_dir(folder).ok()).into_iter().flatten();
    let is_weights = |path: &std::path::PathBuf| path.extension().is_some_and(|e| e == "safetensors");
    entries.flatten().map(|entry| entry.path()).filter(is_weights).nth(1).is_some()
}

fn number(value: &Value) -> Option<f64> {
    let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
    number.filter(|n| n.is_finite() && *n > 0.0)
}

fn is_true(value: &Value) -> bool {
    value.as_bool().unwrap_or_else(|| value.as_str().is_some_and(|text| text.eq_ignore_ascii_case("true")))
}

fn exceptions(value: &Value, warnings: &mut Vec<String>) -> Vec<Exception> {
    let text = value.as_str().and_then(|text| serde_json::from_str(text).ok());
    let Some(object) = text.as_ref().unwrap_or(value).as_object() else { return Vec::new() };
    let mut all = Vec::new();
    for (key, value) in object {
        let Some(value) = number(value) else { continue };
        // Module names are ASCII.
        let pattern =
            RegexBuilder::new(&format!(r"^(.*\.)?({key})$")).unicode(false).size_limit(1 << 20).build();
        if pattern.is_err() {
            warnings.push(format!(
                "its settings name modules by {key:?}, which is no pattern that is known here"
            ));
        }
        all.push(Exception { plain: key.clone(), pattern: pattern.ok(), value });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_are_pefts_patterns() {
        let fits = |key: &str, module: &str| {
            let mut warnings = Vec::new();
            let all = exceptions(&serde_json::json!({ key: 8 }), &mut warnings);
            assert!(warnings.is_empty(), "{warnings:?}");
            all[0].fits(module)
        };
        let module = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q";
        for key in [
            "to_q",
            "attn1.to_q",
            ".*attn1.to_q",
            "(to_q|to_k)",
            r"attn1\.to_[qk]",
            "^down_blocks.*to_q",
            module,
        ] {
            assert!(fits(key, module), "{key}");
        }
        for key in ["o_q", "attn2.to_q", "to_[kv]", "^attn1.to_q", "down_blocks"] {
            assert!(!fits(key, module), "{key}");
        }
        let mut warnings = Vec::new();
        exceptions(&serde_json::json!({ "(to_q": 8 }), &mut warnings);
        assert_eq!(warnings.len(), 1);
    }
}
