//! What saved files contain of the workflow that made them.

use std::collections::HashMap;

use serde_json::Value as Json;

use super::picture_settings::PictureSettings;

/// The texts in saved files.
pub(super) struct Metadata {
    /// The API format.
    prompt: String,
    /// The UI format.
    workflow: String,
    /// A1111's settings of the pictures that a node saves, by its id.
    settings: HashMap<String, PictureSettings>,
}

impl Metadata {
    /// Of a workflow in both formats.
    pub fn new(api: &Json, ui: &Json, settings: HashMap<String, PictureSettings>) -> Self {
        Self { prompt: ascii(api), workflow: ascii(ui), settings }
    }

    /// The chunks by which ComfyUI opens a file.
    pub fn texts(&self) -> Vec<(&'static str, &str)> {
        vec![("prompt", self.prompt.as_str()), ("workflow", self.workflow.as_str())]
    }

    /// The settings of the picture `number` of a batch that node `id` saves, as A1111 writes them; None
    /// where the workflow does more than they can describe.
    pub fn parameters(&self, id: &str, size: (usize, usize), number: usize) -> Option<String> {
        Some(self.settings.get(id)?.text(size, number))
    }
}

/// JSON in ASCII, as Python writes it: such a text fits the oldest kind of PNG chunk.
fn ascii(json: &Json) -> String {
    let mut out = String::new();
    for c in json.to_string().chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            let mut units = [0; 2];
            out.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_in_ascii() {
        let json = serde_json::json!({"a": "é😀\n"});
        let text = ascii(&json);
        assert!(text.is_ascii());
        assert_eq!(serde_json::from_str::<Json>(&text).unwrap(), json);
    }
}
