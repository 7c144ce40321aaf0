//! The LoRAs that flags and prompt ask for, opened, and the prompt with and without their tags.

use std::path::Path;

use sagittal::folder::Folder;
use sagittal::lora::{Lora, LoraUse, tags};
use sagittal::{Error, Result};

use super::args::Args;

/// What `--lora` and `<lora:…>` come to.
pub struct Asked {
    /// The prompt without tags, for the text encoders.
    pub prompt: String,
    /// The prompt with a tag for every LoRA, for the picture's settings: A1111 knows no other way
    /// to name them.
    pub shown: String,
    /// The LoRAs, flags first.
    pub uses: Vec<LoraUse>,
}

/// Opens the LoRAs of the flags and of `prompt`.
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
    for (file, weight) in args.lora.iter().map(|l| (&l.file, l.weight)) {
        let lora = Lora::open(file)?;
        asked.shown.push_str(&format!("{}<lora:{}:{weight}>", space_after(&asked.shown), lora.name()));
        asked.uses.push(LoraUse::new(lora, weight));
    }
    let Some(first) = tags.first() else { return Ok(asked) };
    let Some(folder) = &args.lora_dir else {
        return Err(Error::usage("the prompt names a LoRA, but no folder to find it in")
            .at(format!("<lora:{}>", first.name))
            .hint("pass --lora-dir DIR, or the file itself with --lora FILE:WEIGHT"));
    };
    let folder = Folder::open(folder)?;
    for tag in tags {
        let file = folder.find(&tag.name)?.ok_or_else(|| folder.missing("LoRA", &tag.name))?;
        asked.uses.push(LoraUse { text: tag.text, unet: tag.unet, ..LoraUse::new(Lora::open(file)?, 1.0) });
    }
    Ok(asked)
}

fn space_after(text: &str) -> &'static str {
    if text.is_empty() || text.ends_with(' ') { "" } else { " " }
}

/// `--lora FILE[:WEIGHT]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Flag {
    file: std::path::PathBuf,
    weight: f32,
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
        let whole = || Self { file: text.into(), weight: 1.0 };
        let Some((file, weight)) = text.rsplit_once(':') else { return Ok(whole()) };
        match weight.trim().parse::<f32>() {
            Ok(weight) if weight.is_finite() => Ok(Self { file: file.into(), weight }),
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
            ("ink.safetensors", "ink.safetensors", 1.0),
            ("ink.safetensors:0.5", "ink.safetensors", 0.5),
            ("ink.safetensors:-1", "ink.safetensors", -1.0),
            (r"C:\ink.safetensors", r"C:\ink.safetensors", 1.0),
            (r"C:\ink.safetensors:2", r"C:\ink.safetensors", 2.0),
            ("a:b:.25", "a:b", 0.25),
            ("no-such-file:x", "no-such-file:x", 1.0),
        ];
        for (text, file, weight) in cases {
            assert_eq!(text.parse::<Flag>().unwrap(), Flag { file: file.into(), weight }, "{text}");
        }
        for bad in ["ink.safetensors:nan", "ink.safetensors:inf", "Cargo.toml:x", "Cargo.toml:"] {
            assert!(bad.parse::<Flag>().is_err(), "{bad}");
        }
    }
}
