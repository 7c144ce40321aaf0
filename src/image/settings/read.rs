//! Settings in JSON, by the words of the program that wrote them.
#![warn(clippy::indexing_slicing, clippy::string_slice)]

use serde_json::{Map, Value};

use super::super::infotext::Infotext;
use super::loras::loras;
use super::programs::Words;
use super::values::as_text;

/// What a picture's texts say of how it was made.
#[derive(Debug, Clone, PartialEq)]
pub struct Made {
    /// The program, as people call it.
    pub program: &'static str,
    /// Its settings; None of a program whose settings are not read.
    pub settings: Option<Infotext>,
    /// How the program's prompts differ from A1111's, where this one holds such a place.
    pub syntax: Option<&'static str>,
}

impl Made {
    pub(super) fn unread(program: &'static str) -> Self {
        Self { program, settings: None, syntax: None }
    }
}

/// The settings of `object` by the words of a program. Keys that the words do not name keep their own.
pub(super) fn read(words: &Words, object: Map<String, Value>) -> Made {
    let (loras, json) = (loras(&object), Value::Object(object));
    let mut used: Vec<&str> = vec!["width", "height"];
    let mut first = |places: &'static [&'static str]| {
        used.extend(places.iter().filter_map(|place| place.split('/').nth(1)));
        places.iter().find_map(|place| as_text(json.pointer(place)?))
    };
    let (mut prompt, negative) = (first(words.prompt).unwrap_or_default(), first(words.negative));
    let size = first(words.size).or_else(|| {
        let side = |name: &str| as_text(json.get(name).or(json.pointer(&format!("/image/{name}")))?);
        Some(format!("{}x{}", side("width")?, side("height")?))
    });
    let mut settings: Vec<(String, String)> = Vec::new();
    let is_set = |settings: &[(String, String)], name: &str| settings.iter().any(|(known, _)| known == name);
    for (place, name) in words.pairs {
        used.extend(place.split('/').nth(1));
        if let Some(value) = json.pointer(place).and_then(as_text).filter(|_| !is_set(&settings, name)) {
            settings.extend(setting(words.program, name, value).map(|value| ((*name).to_owned(), value)));
        }
    }
    settings.extend(size.and_then(|size| Some(("Size".to_owned(), two_numbers(&size)?))));
    for (name, weight) in &loras {
        prompt.push_str(&format!(" <lora:{name}:{weight}>"));
    }
    let (marks, sentence) = words.syntax;
    let texts = [Some(prompt.as_str()), negative.as_deref()];
    let differs = texts.iter().flatten().any(|text| marks.iter().any(|mark| text.contains(mark)));
    let mut settings = Infotext { prompt, negative: negative.into_iter().collect(), settings };
    (words.more)(&json, &mut settings);
    let lora_keys = |key: &str| !loras.is_empty() && key.starts_with("lora_combined_");
    let unknown = |key: &str| !used.contains(&key) && !words.idle.contains(&key) && !lora_keys(key);
    for (key, value) in json.as_object().into_iter().flatten().filter(|(key, _)| unknown(key)) {
        let value = as_text(value).filter(|text| text != "False" && text.parse::<f64>() != Ok(0.0));
        settings.settings.extend(value.map(|value| (key.clone(), value)));
    }
    if settings.get("Version").is_none() {
        settings.settings.push(("Version".into(), words.program.into()));
    }
    Made { program: words.program, settings: Some(settings), syntax: differs.then_some(sentence) }
}

/// A value as A1111 has it; None where it says nothing.
fn setting(program: &str, name: &str, value: String) -> Option<String> {
    match name {
        // SwarmUI counts from the end with a minus, InvokeAI the layers that are left out.
        "Clip skip" => match (program, value.parse::<i64>()) {
            ("InvokeAI", Ok(skipped)) => (skipped > 0).then(|| (skipped + 1).to_string()),
            (_, Ok(layer)) => Some(layer.unsigned_abs().to_string()).filter(|layer| layer != "0"),
            _ => Some(value),
        },
        "Denoising strength" => (value.parse() != Ok(1.0)).then_some(value),
        "RNG" => Some(value.to_uppercase()),
        _ => Some(value),
    }
}

/// `WxH` of the first two whole numbers in `text`.
fn two_numbers(text: &str) -> Option<String> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
    Some(format!("{}x{}", numbers.next()?, numbers.next()?))
}
