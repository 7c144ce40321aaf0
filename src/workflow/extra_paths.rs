//! `extra_model_paths.yaml`: the part of YAML that ComfyUI's file of further model folders needs.
//!
//! ```yaml
//! a111:
//!     base_path: path/to/stable-diffusion-webui/
//!     checkpoints: models/Stable-diffusion
//!     loras: |
//!         models/Lora
//!         models/LyCORIS
//! ```

use crate::{Error, ErrorKind, Result};

/// The folders of one program.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Section {
    /// What the folders are relative to.
    pub base: Option<String>,
    /// Kind and folder.
    pub folders: Vec<(String, String)>,
}

/// A line without its comment.
struct Line<'a> {
    number: usize,
    indent: usize,
    text: &'a str,
}

/// Reads sections of `key: value` with values in one line, in quotes, or as a block of lines behind `|`.
///
/// # Errors
/// [`ErrorKind::File`] for anything else, with the line.
pub(super) fn parse(text: &str) -> Result<Vec<Section>> {
    let mut sections: Vec<Section> = Vec::new();
    let mut lines = text.lines().zip(1..).map(|(line, number)| Line::new(line, number)).peekable();
    while let Some(line) = lines.next() {
        if line.text.is_empty() || (line.indent == 0 && line.text == "---") {
            continue;
        }
        let (key, value) = line.pair().ok_or_else(|| line.wrong("neither a key nor a value"))?;
        if line.indent == 0 {
            if !value.is_empty() {
                return Err(line.wrong("a section has a value"));
            }
            sections.push(Section::default());
            continue;
        }
        let section = sections.last_mut().ok_or_else(|| line.wrong("a folder outside of a section"))?;
        let values: Vec<String> = match value {
            "|" | "|-" | "|+" | ">" => {
                let mut block = Vec::new();
                while let Some(next) = lines.next_if(|l| l.text.is_empty() || l.indent > line.indent) {
                    block.push(next.text.to_owned());
                }
                block.into_iter().filter(|path| !path.is_empty()).collect()
            }
            "" => Vec::new(),
            value if value.starts_with(['[', '{', '&', '*', '!', '>', '|', '-']) => {
                return Err(line.wrong("a value of another kind"));
            }
            value => vec![unquoted(value).ok_or_else(|| line.wrong("quotes that do not close"))?],
        };
        match key {
            "base_path" => section.base = values.into_iter().next(),
            "is_default" => {}
            key => section.folders.extend(values.into_iter().map(|v| (key.to_owned(), v))),
        }
    }
    Ok(sections)
}

impl<'a> Line<'a> {
    fn new(line: &'a str, number: usize) -> Self {
        let indent = line.len() - line.trim_start().len();
        let text = line.trim();
        // A comment begins the line or follows a space; `#` in quotes is none.
        let quoted = text.contains(['"', '\'']);
        let end = match text.find(" #") {
            _ if text.starts_with('#') => 0,
            Some(end) if !quoted => end,
            _ => text.len(),
        };
        Self { number, indent, text: text[..end].trim_end() }
    }

    fn pair(&self) -> Option<(&'a str, &'a str)> {
        let (key, value) = self.text.split_once(':')?;
        let plain = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || "_-. ".contains(c));
        let value = value.strip_prefix(' ').or(value.is_empty().then_some(""))?;
        plain.then(|| (key.trim(), value.trim()))
    }

    fn wrong(&self, what: &str) -> Error {
        Error::new(ErrorKind::File, format!("the list of folders is not understood: {what}"))
            .at(format!("line {}", self.number))
            .expected("sections of `kind: folder`, as in ComfyUI's extra_model_paths.yaml.example")
            .found(self.text.chars().take(80).collect::<String>())
    }
}

/// A value without its quotes.
fn unquoted(value: &str) -> Option<String> {
    for quote in ['"', '\''] {
        if let Some(rest) = value.strip_prefix(quote) {
            return rest.split_once(quote).map(|(inside, _)| inside.to_owned());
        }
    }
    Some(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comfyuis_example() {
        let text = "# Rename this\n\n#config\na111:\n    base_path: path/to/webui/ # where\n\n    checkpoints: \
                    models/Stable-diffusion\n    loras: |\n         models/Lora\n         models/LyCORIS\n    \
                    embeddings: \"em # beddings\"\n    is_default: true\n\nother:\n    vae: 'C:\\vae'\n";
        let own = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
        };
        let want = [
            Section {
                base: Some("path/to/webui/".into()),
                folders: own(&[
                    ("checkpoints", "models/Stable-diffusion"),
                    ("loras", "models/Lora"),
                    ("loras", "models/LyCORIS"),
                    ("embeddings", "em # beddings"),
                ]),
            },
            Section { base: None, folders: own(&[("vae", "C:\\vae")]) },
        ];
        assert_eq!(parse(text).unwrap(), want);
        assert!(parse("").unwrap().is_empty());
    }

    #[test]
    fn more_than_folders_is_refused_with_its_line() {
        for (text, line) in [
            ("a:\n  - b\n", 2),
            ("  a: b\n", 1),
            ("a: b\n", 1),
            ("a:\n  loras: [x, y]\n", 2),
            ("a:\n  vae: 'open\n", 2),
            ("\n\n{}\n", 3),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(&format!("line {line}")), "{text:?}: {error}");
        }
    }
}
