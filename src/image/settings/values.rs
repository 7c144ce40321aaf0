//! JSON values of settings as text.
#![warn(clippy::indexing_slicing, clippy::string_slice)]

use serde_json::Value;

/// A value as text; None for one that says nothing. Several texts are one with commas.
pub(super) fn as_text(value: &Value) -> Option<String> {
    let text = match value {
        Value::Null => return None,
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::String(text) => text.clone(),
        Value::Array(all) if !all.is_empty() && all.iter().all(Value::is_string) => {
            let texts: Vec<&str> =
                all.iter().filter_map(Value::as_str).filter(|text| !text.is_empty()).collect();
            texts.join(", ")
        }
        Value::Array(all) if all.is_empty() => return None,
        Value::Object(all) if all.is_empty() => return None,
        other => other.to_string(),
    };
    // `None` is Python's null.
    Some(text).filter(|text| !text.is_empty() && text != "None")
}
