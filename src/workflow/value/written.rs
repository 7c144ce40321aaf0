//! Values as workflows write them, and whether an input takes them.

use serde_json::Value as Json;

use super::Value;
use crate::workflow::json::short;
use crate::workflow::spec::{Kind, Slot};
use crate::{Error, Remedy, Result};

impl Value {
    /// The value that is written in a workflow for `slot`, as ComfyUI understands it: numbers may be
    /// texts, whole numbers may have a fraction, which goes.
    ///
    /// # Errors
    /// [`ErrorKind::File`](crate::ErrorKind::File) for another type or a value outside the range.
    pub fn written(slot: &Slot, json: &Json) -> Result<Self> {
        let number = || match json {
            Json::Number(n) => n.as_f64(),
            Json::String(s) => s.trim().parse().ok(),
            _ => None,
        };
        let whole = || match json {
            Json::Number(n) if n.is_u64() => n.as_u64().map(i128::from),
            Json::Number(n) if n.is_i64() => n.as_i64().map(i128::from),
            Json::String(s) => s.trim().parse().ok().or_else(|| number().map(|n| n.trunc() as i128)),
            _ => number().map(|n| n.trunc() as i128),
        };
        let value = match slot.kind {
            Kind::Int { .. } => whole().map(Value::Int),
            Kind::Float { .. } => number().map(Value::Float),
            Kind::Bool { .. } => match json {
                Json::Bool(b) => Some(Value::Bool(*b)),
                Json::Number(n) => n.as_f64().map(|n| Value::Bool(n != 0.0)),
                Json::String(s) => s.trim().to_ascii_lowercase().parse().ok().map(Value::Bool),
                _ => None,
            },
            Kind::Text { .. } | Kind::Choice(_) | Kind::File(_) => match json {
                Json::String(s) => Some(Value::Text(s.clone())),
                Json::Number(n) => Some(Value::Text(n.to_string())),
                _ => None,
            },
            Kind::Socket(_) => None,
        };
        let value = value.ok_or_else(|| {
            wrong(slot, "a value of the wrong type").expected(range(slot)).found(short(json))
        })?;
        value.fits(slot)
    }

    /// The value, if `slot` takes it; whole numbers and numbers become each other.
    ///
    /// # Errors
    /// As [`written`](Self::written).
    pub fn fits(self, slot: &Slot) -> Result<Self> {
        let value = match (slot.kind, self) {
            (Kind::Int { .. }, Value::Float(v)) => Value::Int(v.trunc() as i128),
            (Kind::Float { .. }, Value::Int(v)) => Value::Float(v as f64),
            (Kind::Choice(choices), Value::Text(word)) if !choices.names().contains(&word.as_str()) => {
                Value::Text(choices.name_today(&word).map_or(word, str::to_owned))
            }
            (_, value) => value,
        };
        let found = match (&value, slot.kind) {
            (Value::Int(v), Kind::Int { min, max, .. }) => (!(min..=max).contains(v)).then(|| v.to_string()),
            (Value::Float(v), Kind::Float { min, max, .. }) => {
                (!(min..=max).contains(v)).then(|| v.to_string())
            }
            (Value::Text(v), Kind::Choice(choices)) => {
                let names = choices.names();
                if !names.contains(&v.as_str()) {
                    let near = crate::sampler::names::nearest_to(v, names.iter().copied());
                    let error =
                        wrong(slot, "an unknown choice").expected(range(slot)).found(format!("{v:?}"));
                    return Err(match near.is_empty() {
                        true => error,
                        false => {
                            error.remedy(Remedy::DidYouMean(near.into_iter().map(str::to_owned).collect()))
                        }
                    });
                }
                None
            }
            _ => None,
        };
        match found {
            None => Ok(value),
            Some(found) => Err(wrong(slot, "a value outside its range").expected(range(slot)).found(found)),
        }
    }
}

fn wrong(slot: &Slot, what: &str) -> Error {
    Error::new(crate::ErrorKind::File, format!("input {}: {what}", slot.name))
}

/// What a slot takes, in words.
pub(crate) fn range(slot: &Slot) -> String {
    match slot.kind {
        Kind::Socket(of) => format!("another node's {of}"),
        Kind::Int { min, max, .. } => format!("a whole number from {min} to {max}"),
        Kind::Float { min, max, .. } => format!("a number from {min} to {max}"),
        Kind::Bool { .. } => "true or false".into(),
        Kind::Text { .. } => "a text".into(),
        Kind::Choice(choices) => format!("one of {}", choices.names().join(", ")),
        Kind::File(_) => "a file's name".into(),
    }
}
