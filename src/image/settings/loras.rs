//! LoRAs in settings, in the ways of the programs that write JSON.
#![warn(clippy::indexing_slicing, clippy::string_slice)]

use serde_json::{Map, Value};

use super::values::as_text;

/// Where the name is in an entry that is an object.
const NAMES: [&str; 7] =
    ["/model/name", "/model/model_name", "/lora/name", "/lora/model_name", "/model", "/file", "/name"];

/// LoRAs (name, weight). An entry that cannot be read has its whole text for a name, so that it is missed and not
/// lost.
pub(super) fn loras(object: &Map<String, Value>) -> Vec<(String, String)> {
    let list = ["loras", "lora", "use_lora_model"].iter().find_map(|key| object.get(*key)).map(several);
    let weights = ["loraweights", "lora_alpha"].iter().find_map(|key| object.get(*key)).map(several);
    let weights = weights.unwrap_or_default();
    let entries = list.unwrap_or_default();
    let mut found: Vec<(String, String)> =
        entries.iter().enumerate().map(|(at, entry)| one(entry, weights.get(at))).collect();
    if found.is_empty() {
        let combined = object.iter().filter(|(key, _)| key.starts_with("lora_combined_"));
        let pair = |text: &str| {
            text.rsplit_once(" : ").map(|(name, weight)| (plain(name), weight.trim().to_owned()))
        };
        found.extend(combined.filter_map(|(_, value)| pair(value.as_str()?)));
    }
    found.retain(|(name, _)| !name.is_empty() && name != "None");
    for (_, weight) in &mut found {
        if weight.parse::<f32>().is_err() {
            *weight = "1".into();
        }
    }
    found
}

/// A list, or one that was written as a text: `a,b` of SwarmUI, `['a', 'b']` of Python.
fn several(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(all) => all.clone(),
        Value::String(text) => {
            let inner = text.trim().trim_start_matches('[').trim_end_matches(']');
            let parts = inner.split(',').map(|part| part.trim().trim_matches(['\'', '"']));
            parts.filter(|part| !part.is_empty()).map(Value::from).collect()
        }
        Value::Null => Vec::new(),
        other => vec![other.clone()],
    }
}

fn one(entry: &Value, weight: Option<&Value>) -> (String, String) {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let (name, weight) = match entry {
        Value::String(name) => (Some(name.clone()), weight.and_then(as_text)),
        Value::Array(pair) => {
            let (first, second) = (pair.first().and_then(text), pair.get(1).and_then(as_text));
            // RuinedFooocus: a checksum, then both in one text.
            match second.as_deref().and_then(|both| both.split_once(" - ")).filter(|_| first.is_some()) {
                Some((weight, name)) => (Some(name.to_owned()), Some(weight.to_owned())),
                None => (first, second),
            }
        }
        entry => {
            let weight = entry.get("weight").and_then(as_text);
            (NAMES.iter().find_map(|place| entry.pointer(place).and_then(text)), weight)
        }
    };
    (plain(&name.unwrap_or_else(|| entry.to_string())), weight.unwrap_or_else(|| "1".into()))
}

/// A file's name without its extension, and without what ends a name in a tag.
fn plain(name: &str) -> String {
    let stem = [".safetensors", ".ckpt", ".pt"].iter().find_map(|end| name.strip_suffix(end));
    stem.unwrap_or(name).trim().replace([':', '<', '>'], "")
}
