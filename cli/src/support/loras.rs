//! The LoRAs that flags and prompt ask for, opened, and the prompt with and without their tags.

use std::path::Path;
use std::sync::Arc;

use sagittal::internals::folder::Folder;
use sagittal::lora::{Lora, LoraUse, tags};
use sagittal::{Error, Result};

use crate::support::args::Args;

/// The LoRAs of `--lora` and `<lora:…>`, and the prompts.
pub struct Asked {
    /// The prompt without tags, for the text encoders.
    pub prompt: String,
    /// The prompt with a tag for every LoRA, for the picture's settings: A1111 has no other way
    /// to name them.
    pub shown: String,
    /// The LoRAs, flags first.
    pub uses: Vec<LoraUse>,
}

/// Opens the LoRAs that the flags and `prompt` name.
///
/// # Errors
/// [`ErrorKind::Usage`](sagittal::ErrorKind::Usage) for a tag that is wrong or has no folder or no
/// file; otherwise as [`Lora::open`].
pub fn gather(prompt: &str, args: &Args) -> Result<Asked> {
    if let Some(tag) = args.negative.iter().find(|n| tags::take(n).map_or(true, |(_, tags)| !tags.is_empty()))
    {
        return Err(Error::usage("a LoRA changes the whole model")
            .at("--negative-prompt")
            .found(tag)
            .hint("name it in the prompt, or with --lora"));
    }
    let (clean, tags) = tags::take(prompt)?;
    let mut asked = Asked { prompt: clean, shown: prompt.to_owned(), uses: Vec::new() };
    let mut named = Vec::new();
    for Flag { file, weight } in &args.lora {
        let lora = Arc::new(Lora::open(file)?);
        // Without a folder a tag means the file of that name among the flags.
        if args.lora_dir.is_none() && tags.iter().any(|tag| tag.name == lora.name()) {
            named.push((lora, *weight));
            continue;
        }
        let weight = weight.unwrap_or(1.0);
        asked.shown.push_str(&format!("{}<lora:{}:{weight}>", space_after(&asked.shown), lora.name()));
        asked.uses.push(LoraUse::new(lora, weight));
    }
    let folder = args.lora_dir.as_ref().filter(|_| !tags.is_empty()).map(Folder::open).transpose()?;
    let mut other_weights = false;
    let mut shown = String::new();
    for tag in tags {
        let (mut text, mut unet) = (tag.text, tag.unet);
        let lora = match (&folder, named.iter().find(|(lora, _)| lora.name() == tag.name)) {
            (Some(folder), _) => {
                let file = Lora::find(folder, &tag.name)?.ok_or_else(|| folder.missing("LoRA", &tag.name))?;
                Arc::new(Lora::open(file)?)
            }
            (None, Some((lora, weight))) => {
                let weight = weight.filter(|w| (*w, *w) != (text, unet));
                (text, unet) = weight.map_or((text, unet), |w| (w, w));
                other_weights |= weight.is_some();
                lora.clone()
            }
            (None, None) => {
                return Err(Error::usage("the prompt names a LoRA, but no folder to find it in")
                    .at(format!("<lora:{}>", tag.name))
                    .hint("pass --lora-dir DIR, or the file itself with --lora FILE:WEIGHT"));
            }
        };
        let weights = if text == unet { format!("{text}") } else { format!("{text}:{unet}") };
        shown.push_str(&format!(" <lora:{}:{weights}>", tag.name));
        asked.uses.push(LoraUse { text, unet, ..LoraUse::new(lora, 1.0) });
    }
    if other_weights {
        // The weights in the prompt's tags have been overridden.
        let flags = asked.shown.split_off(prompt.len());
        asked.shown = format!("{}{shown}{flags}", asked.prompt.trim_end());
    }
    Ok(asked)
}

/// Sets the weight of the LoRA called `name`, or of all LoRAs, in the flags and in the tags of the prompts.
/// Returns whether there is one.
pub fn weigh(args: &mut Args, name: Option<&str>, weight: f32) -> bool {
    let meant = |found: &str| name.is_none_or(|name| name == found);
    let mut any = false;
    for flag in &mut args.lora {
        if meant(&flag.file.file_stem().unwrap_or_default().to_string_lossy()) {
            flag.weight = Some(weight);
            any = true;
        }
    }
    for prompt in &mut args.prompt {
        // A malformed prompt is reported when it is read.
        let Ok((clean, tags)) = tags::take(prompt) else { continue };
        if !tags.iter().any(|tag| meant(&tag.name)) {
            continue;
        }
        any = true;
        *prompt = clean.trim_end().to_owned();
        for tag in &tags {
            let weights = match meant(&tag.name) {
                true => weight.to_string(),
                false => format!("{}:{}", tag.text, tag.unet),
            };
            prompt.push_str(&format!(" <lora:{}:{weights}>", tag.name));
        }
    }
    any
}

fn space_after(text: &str) -> &'static str {
    if text.is_empty() || text.ends_with(' ') { "" } else { " " }
}

/// `--lora FILE[:WEIGHT]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Flag {
    file: std::path::PathBuf,
    /// None is the weight of a tag, or 1.
    weight: Option<f32>,
}

impl Flag {
    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
    }
}

impl std::str::FromStr for Flag {
    type Err = Error;

    /// The last colon counts only where a number follows: `C:\ink.safetensors` is a file.
    fn from_str(text: &str) -> Result<Self> {
        let whole = || Self { file: text.into(), weight: None };
        let Some((file, weight)) = text.rsplit_once(':') else { return Ok(whole()) };
        match weight.trim().parse::<f32>() {
            Ok(weight) if weight.is_finite() => Ok(Self { file: file.into(), weight: Some(weight) }),
            Err(_) if !Path::new(file).is_file() || Path::new(text).is_file() => Ok(whole()),
            _ => Err(Error::usage("the weight of a LoRA is not a number")
                .expected("FILE:WEIGHT, such as ink.safetensors:0.8")
                .found(format!("{weight:?}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_colon_counts_where_a_number_follows() {
        let cases = [
            ("ink.safetensors", "ink.safetensors", None),
            ("ink.safetensors:0.5", "ink.safetensors", Some(0.5)),
            ("ink.safetensors:-1", "ink.safetensors", Some(-1.0)),
            (r"C:\ink.safetensors", r"C:\ink.safetensors", None),
            (r"C:\ink.safetensors:2", r"C:\ink.safetensors", Some(2.0)),
            ("a:b:.25", "a:b", Some(0.25)),
            ("no-such-file:x", "no-such-file:x", None),
        ];
        for (text, file, weight) in cases {
            assert_eq!(text.parse::<Flag>().unwrap(), Flag { file: file.into(), weight }, "{text}");
        }
        for bad in ["ink.safetensors:nan", "ink.safetensors:inf", "Cargo.toml:x", "Cargo.toml:"] {
            assert!(bad.parse::<Flag>().is_err(), "{bad}");
        }
    }
}
