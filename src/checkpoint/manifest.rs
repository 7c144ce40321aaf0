//! A list of tensor names and shapes: a model without its weights.
#![warn(clippy::indexing_slicing, clippy::string_slice)]

use ::safetensors::Dtype;
use serde_json::Value;

use super::header::{Header, damaged, lay_out};
use crate::{Error, ErrorKind, Result};

/// Names and shapes of a model, and what they do not show.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// What the model is called, such as `sd15`.
    pub family: String,
    /// `eps` or `v`: what the network predicts.
    pub prediction: String,
    /// Name and shape of every tensor, in file order.
    pub tensors: Vec<(String, Vec<usize>)>,
}

impl Manifest {
    /// Reads `{"family": …, "prediction": …, "tensors": [[name, [sizes…]], …]}`; other members
    /// are ignored.
    ///
    /// # Errors
    /// [`ErrorKind::File`] if the text is not JSON or lacks one of the three.
    pub fn parse(json: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(json)
            .map_err(|e| Error::new(ErrorKind::File, "the manifest is not valid JSON").cause(e))?;
        let text = |key: &str| {
            let found = value.get(key).and_then(Value::as_str).map(str::to_owned);
            found.ok_or_else(|| lacks(key, "a text"))
        };
        let tensors =
            value.get("tensors").and_then(Value::as_array).ok_or_else(|| lacks("tensors", "a list"))?;
        let tensors = tensors.iter().map(|t| tensor(t).ok_or_else(|| lacks("tensors", "[name, [sizes…]]")));
        Ok(Self {
            family: text("family")?,
            prediction: text("prediction")?,
            tensors: tensors.collect::<Result<_>>()?,
        })
    }

    /// The header that a file of these tensors would have.
    pub(super) fn header(&self, seed: u64, dtype: Dtype) -> Result<Header> {
        // The formula has no scale for a scalar.
        if let Some((name, _)) = self.tensors.iter().find(|(_, shape)| shape.is_empty()) {
            return Err(damaged("a synthetic tensor has no dimensions").at(name));
        }
        let metadata = [
            ("synthetic", self.family.clone()),
            ("seed", seed.to_string()),
            ("modelspec.prediction_type", self.prediction.clone()),
        ];
        let metadata = metadata.map(|(key, value)| (key.to_owned(), value)).into();
        Ok(Header { tensors: lay_out(&self.tensors, dtype)?, metadata, warnings: Vec::new() })
    }
}

fn tensor(entry: &Value) -> Option<(String, Vec<usize>)> {
    let [name, shape] = entry.as_array()?.as_slice() else { return None };
    let size = |v: &Value| v.as_u64().and_then(|n| usize::try_from(n).ok());
    Some((name.as_str()?.to_owned(), shape.as_array()?.iter().map(size).collect::<Option<_>>()?))
}

fn lacks(key: &str, expected: &str) -> Error {
    Error::new(ErrorKind::File, "the manifest is not complete").at(key).expected(expected)
}
