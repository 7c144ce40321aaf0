//! `TI hashes` and `Lora hashes`: the embeddings and LoRAs that a picture was made with, if its prompts do not name
//! them as this program does. In A1111 a prompt uses an embedding by its bare name.

use std::path::{Path, PathBuf};

use sagittal::Result;
use sagittal::internals::folder::Folder;
use sagittal::internals::image::infotext::Infotext;
use sagittal::lora::tags;

use crate::support::args::Args;
use crate::support::from_picture::StoredSettings;
use crate::support::loras;
use crate::support::origin::{lora_hash, model_name, whole_hash};

/// The prompts of a picture, with what its checksums name.
pub struct Texts {
    pub prompt: String,
    pub negative: Vec<String>,
    pub warnings: Vec<String>,
}

/// The prompts of the picture. If a file is missing, a prompt stays as it is, with a warning.
///
/// # Errors
/// Those of checksums.
pub fn texts(stored: &StoredSettings<'_>, args: &Args) -> Result<Texts> {
    let mut texts = Texts {
        prompt: stored.infotext.prompt.clone(),
        negative: stored.infotext.negative.clone(),
        warnings: Vec::new(),
    };
    let all = std::iter::once(&texts.prompt).chain(&texts.negative);
    if all.into_iter().any(|text| text.contains('\u{fffd}')) {
        texts.warnings.push("characters of its prompts could not be decoded and are \u{fffd}".into());
    }
    if !stored.is_ours() {
        for named in list(stored.infotext, "TI hashes", "embed:") {
            texts.embedding(stored, args, &named)?;
        }
    }
    for named in list(stored.infotext, "Lora hashes", "lora:") {
        texts.lora(stored, args, &named)?;
    }
    Ok(texts)
}

/// A name, and the checksum of its file if there is one.
struct Named {
    name: String,
    hash: Option<String>,
}

/// The names of a pair `NAME: DIGITS, NAME: DIGITS`, or those of a kind in the JSON object of `Hashes`, which
/// Civitai's programs write beside it or in its place, each once.
fn list(infotext: &Infotext, pair: &str, kind: &str) -> Vec<Named> {
    let mut found: Vec<Named> = Vec::new();
    for entry in infotext.get(pair).unwrap_or_default().split(',') {
        let (name, hash) = entry.rsplit_once(':').unwrap_or((entry, ""));
        let hash = Some(hash.trim().to_lowercase()).filter(|hash| hash.len() >= 8);
        found.push(Named { name: name.trim().to_owned(), hash });
    }
    let object = infotext.get("Hashes").and_then(|text| serde_json::from_str(text).ok());
    let object: serde_json::Map<String, serde_json::Value> = object.unwrap_or_default();
    // Their checksums cover other parts of the file.
    let names = object.keys().filter_map(|key| key.strip_prefix(kind));
    found.extend(names.map(|name| Named { name: name.to_owned(), hash: None }));
    let mut known = std::collections::BTreeSet::new();
    found.retain(|named| !named.name.is_empty() && known.insert(named.name.clone()));
    found
}

/// The weight of a LoRA in the pair that Fooocus writes beside their checksums, `NAME: WEIGHT, NAME: WEIGHT`.
fn weight<'t>(infotext: &'t Infotext, name: &str) -> Option<&'t str> {
    let mut pairs = infotext.get("Lora weights")?.split(',').filter_map(|pair| pair.rsplit_once(':'));
    let (_, weight) = pairs.find(|(own, _)| own.trim() == name)?;
    Some(weight.trim()).filter(|weight| weight.parse::<f32>().is_ok())
}

impl Texts {
    fn embedding(&mut self, stored: &StoredSettings<'_>, args: &Args, named: &Named) -> Result<()> {
        let name = &named.name;
        let mark = format!("embedding:{name}");
        let typed = stored.has("prompt") && stored.has("negative");
        let mut texts: Vec<&mut String> =
            std::iter::once(&mut self.prompt).chain(&mut self.negative).collect();
        if typed || texts.iter().any(|text| text.contains(&mark)) {
            return Ok(());
        }
        let replaced: Vec<Option<String>> = texts.iter().map(|text| replaced(text, name, &mark)).collect();
        let what = format!("it was made with the embedding {name}");
        if replaced.iter().all(Option::is_none) {
            self.warnings.push(format!("{what}, which its prompts do not name: it is ignored"));
        } else if name.contains(char::is_whitespace) {
            self.warnings.push(format!("{what}, whose name has a space: it is read as plain words"));
        } else {
            match found(args.embedding_dir.as_deref(), name, "--embedding-dir") {
                Err(why) => self.warnings.push(format!("{what}, {why}: its name is read as a plain word")),
                Ok(path) => {
                    for (text, replaced) in texts.iter_mut().zip(replaced) {
                        **text = replaced.unwrap_or(std::mem::take(*text));
                    }
                    self.compare("embedding", named, &whole_hash(&path)?);
                }
            }
        }
        Ok(())
    }

    fn lora(&mut self, stored: &StoredSettings<'_>, args: &Args, named: &Named) -> Result<()> {
        let name = &named.name;
        // Names in the list of checksums lack its separators.
        let is_it = |other: &str| other.replace([':', ','], "") == *name;
        let by_flag = args.lora.iter().map(loras::Flag::file).find(|file| is_it(&model_name(file)));
        let tag =
            tags::take(&self.prompt).ok().and_then(|(_, tags)| tags.into_iter().find(|tag| is_it(&tag.name)));
        let folder = args.lora_dir.as_deref();
        let file = match (by_flag, &tag) {
            (Some(file), _) => Ok(file.to_owned()),
            (None, Some(tag)) => found(folder, &tag.name, "--lora-dir"),
            (None, None) => found(folder, name, "--lora-dir"),
        };
        match file {
            Ok(file) => {
                if let (None, None, false) = (&tag, by_flag, stored.has("prompt")) {
                    let weight = weight(stored.infotext, name);
                    self.prompt.push_str(&format!(" <lora:{name}:{}>", weight.unwrap_or("1")));
                    if weight.is_none() {
                        self.warnings
                            .push(format!("it was made with the LoRA {name} of unknown weight: 1 is used"));
                    }
                }
                if file.is_file() {
                    self.compare("LoRA", named, &lora_hash(&file)?);
                }
            }
            // A tag without a file is an error later.
            Err(why) if tag.is_none() && !stored.is_ours() => {
                self.warnings.push(format!("it was made with the LoRA {name}, {why}: it is ignored"));
            }
            Err(_) => {}
        }
        Ok(())
    }

    fn compare(&mut self, what: &str, Named { name, hash }: &Named, found: &str) {
        let Some(expected) = hash.as_ref().filter(|hash| !found.starts_with(*hash)) else { return };
        // Programs write different numbers of digits.
        let (expected, found) = (expected.as_str(), found.get(..expected.len()).unwrap_or(found));
        if !expected.starts_with(found) {
            self.warnings.push(crate::support::from_picture::differs(
                &format!("{what} {name}"),
                expected,
                found,
            ));
        }
    }
}

/// The file called `name` in the folder of a flag, or why there is none.
fn found(folder: Option<&Path>, name: &str, flag: &str) -> Result<PathBuf, String> {
    let Some(folder) = folder else { return Err(format!("whose folder must be passed with {flag}")) };
    let found = Folder::open(folder).and_then(|folder| folder.find(name));
    match found {
        Ok(Some(path)) => Ok(path),
        Ok(None) => Err(format!("which is not in {}", folder.display())),
        Err(e) => Err(format!("which cannot be read ({e})")),
    }
}

/// `text` with `mark` in place of each word `name`, whatever its case, as A1111 finds it; None without one.
/// Spaces are added so that the mark is a separate word.
fn replaced(text: &str, name: &str, mark: &str) -> Option<String> {
    let is_letter = |c: char| c.is_alphanumeric() || c == '_';
    let (mut out, mut rest, mut any) = (String::new(), text, false);
    while let Some(c) = rest.chars().next() {
        let here = rest.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
        let after = rest.get(name.len()..).unwrap_or_default();
        if here && !out.ends_with(is_letter) && !after.starts_with(is_letter) {
            if !out.is_empty() && !out.ends_with(|c: char| c.is_whitespace() || c == '(') {
                out.push(' ');
            }
            out.push_str(mark);
            if !after.is_empty() && !after.starts_with(|c: char| c.is_whitespace() || c == ')') {
                out.push(' ');
            }
            (rest, any) = (after, true);
        } else {
            out.push(c);
            rest = rest.get(c.len_utf8()..).unwrap_or_default();
        }
    }
    any.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_names_become_marks() {
        let cases = [
            ("EasyNegative, bad", Some("embedding:EasyNegative , bad")),
            ("bad,easynegative", Some("bad, embedding:EasyNegative")),
            ("(EasyNegative:1.2) x", Some("(embedding:EasyNegative :1.2) x")),
            ("((easynegative))", Some("((embedding:EasyNegative))")),
            ("a EASYNEGATIVE b easynegative", Some("a embedding:EasyNegative b embedding:EasyNegative")),
            ("[easynegative]", Some("[ embedding:EasyNegative ]")),
            ("easynegative2, xeasynegative, easynegative_x", None),
            ("é easynegativé", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let found = replaced(text, "EasyNegative", "embedding:EasyNegative");
            assert_eq!(found.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn names_out_of_both_pairs_count_once() {
        let infotext = Infotext::parse(
            "Steps: 1, TI hashes: \"a b: c74b4e810b03, x: 1234, a b: c74b4e810b03\", Seed: 1, \
             Hashes: {\"embed:x\": \"1\", \"embed:z\": \"2\", \"lora:ink\": \"3\", \"model\": \"4\"}",
        );
        let names = |pair, kind| {
            let pairs = list(&infotext, pair, kind).into_iter().map(|n| (n.name, n.hash.is_some()));
            pairs.collect::<Vec<_>>()
        };
        let owned = |all: &[(&str, bool)]| all.iter().map(|(n, h)| ((*n).to_owned(), *h)).collect::<Vec<_>>();
        assert_eq!(names("TI hashes", "embed:"), owned(&[("a b", true), ("x", false), ("z", false)]));
        assert_eq!(names("Lora hashes", "lora:"), owned(&[("ink", false)]));
    }
}
