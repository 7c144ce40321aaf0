//! `--from PICTURE`: the settings in a picture as flags, in front of those that were typed. What
//! cannot be had again is told: as an error where nothing could be drawn, else as a warning.

pub mod hashes;
pub mod pairs;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;

use sagittal::inspect::{self, PictureFacts};
use sagittal::internals::checkpoint::digest;
use sagittal::internals::image::infotext::Infotext;
use sagittal::{Error, ErrorKind, Result, embedded};

use crate::support::args::Args;
use crate::support::from_picture::pairs::{first_of, is_known};
use crate::support::origin::{
    EMBEDDED, MASK, MASK_HASH, START, START_HASH, TEXT_ENCODER, file_hash, whole_hash,
};
use crate::support::terminal;

/// A picture to be drawn again.
#[derive(Debug, Default)]
pub struct Repeat {
    /// Which picture of how many it was, where it was one of a batch.
    pub position: Option<(usize, usize)>,
    /// Whether its prompt is one of this program's.
    pub own: bool,
}

/// The settings of the picture at `path` as flags to stand in front of those that were typed, which
/// came to `args` and whose names are `given`.
///
/// # Errors
/// [`ErrorKind::File`] for a picture without settings; [`ErrorKind::Usage`] for settings that do not
/// exist here and for files that must be named by hand.
pub fn settings(args: &Args, path: &Path, given: &BTreeSet<String>) -> Result<(Vec<OsString>, Repeat)> {
    let facts = inspect::picture(path).map_err(|e| e.at("--from"))?;
    let source =
        Source { path, told: told(&facts, path)?, given, size: (facts.width, facts.height), json: args.json };
    source.check_files(args)?;
    let read = source.flags(args)?;
    source.warn(args, &facts, &read.warnings)?;
    let mut before = read.flags;
    let mut repeat = Repeat { own: source.is_ours() && !source.has("prompt"), ..Repeat::default() };
    let batch = ["batch_size", "batch_count"].iter().any(|id| given.contains(*id));
    if let (Some(size), Some(at), false) = (source.number("Batch size"), source.number("Batch pos"), batch) {
        if at >= size {
            return Err(source.wrong("Batch pos").expected(format!("less than the batch size, {size}")));
        }
        repeat.position = Some((at, size));
        before.push(format!("--batch-size={size}").into());
    }
    Ok((before, repeat))
}

/// An error about the flags out of the picture at `path`.
pub fn unusable(path: &Path, error: Error) -> Error {
    Error::usage("the picture's settings cannot be used").file(path).cause(error).hint("override it by hand")
}

fn told<'p>(facts: &'p PictureFacts, path: &Path) -> Result<&'p Infotext> {
    if let Some(told) = facts.settings.as_ref().filter(|told| !told.settings.is_empty()) {
        return Ok(told);
    }
    let error = Error::new(ErrorKind::File, "the picture does not tell how it was made")
        .file(path)
        .expected("the settings of A1111 or of a program that is read here, in a PNG, JPEG or WebP");
    Err(match (&facts.workflow, facts.program) {
        (Some(_), _) => error.found("a workflow of ComfyUI").hint("`sagittal run` draws it again"),
        (None, Some(program)) if facts.settings.is_none() => {
            error.found(format!("those of {program}, which are not read")).hint("type them as flags")
        }
        _ => error.hint("programs that edit pictures leave their settings out"),
    })
}

/// A sentence about a file that is not the one that a picture was made with.
pub fn another(what: &str, expected: &str, found: &str) -> String {
    format!("the {what} is not the one that the picture was made with: expected {expected}, found {found}")
}

/// A picture's settings and what stands beside them on the command line.
pub struct Source<'a> {
    path: &'a Path,
    pub(super) told: &'a Infotext,
    given: &'a BTreeSet<String>,
    /// Of the picture, width and height.
    pub(super) size: (usize, usize),
    json: bool,
}

impl Source<'_> {
    fn number(&self, name: &str) -> Option<usize> {
        self.told.get(name)?.parse().ok()
    }

    pub(super) fn wrong(&self, name: &str) -> Error {
        let found = self.told.get(name).unwrap_or_default();
        Error::usage("a setting of the picture does not exist here").file(self.path).at(name).found(found)
    }

    /// Whether this program made the picture.
    pub(super) fn is_ours(&self) -> bool {
        self.told.get("Version").is_some_and(|version| version.starts_with("sagittal"))
    }

    /// Whether the flag of this identifier was typed.
    pub(super) fn has(&self, id: &str) -> bool {
        self.given.contains(id)
    }

    /// Refuses to go on without the files that the picture was made from.
    fn check_files(&self, args: &Args) -> Result<()> {
        let missing = |what: &str, name: &str, hint: String| {
            Error::usage(format!("the picture was made with {what} that a picture cannot hold"))
                .file(self.path)
                .expected(name)
                .hint(hint)
        };
        let file = |name: &str| match Path::new(name).extension() {
            Some(e) if e.eq_ignore_ascii_case("safetensors") => name.to_owned(),
            _ => format!("{name}.safetensors"),
        };
        let model = first_of(self.told, &["Model", "Unet"]);
        if let Some(name) = model.filter(|name| args.model.is_none() && *name != EMBEDDED) {
            return Err(missing("a model", name, format!("pass it with -m, such as -m {}", file(name))));
        }
        // A1111 tells a strength for its second pass over a picture made from text, too.
        let second = self.told.settings.iter().any(|(name, _)| name.starts_with("Hires "));
        let started = self.told.get(START);
        let started = started.or(self.told.get("Denoising strength").filter(|_| !second).map(|_| ""));
        if let Some(name) = started.filter(|_| args.init_img.is_none()) {
            let error =
                Error::usage("the picture was made from another one, which it does not hold").file(self.path);
            return Err(match name {
                "" => error.hint("pass the picture that it was made from with -i FILE"),
                name => error.expected(name).hint(format!("pass it with -i, such as -i {name}")),
            });
        }
        if let Some(name) = self.told.get(MASK).filter(|_| args.mask.is_none()) {
            return Err(missing("a mask", name, format!("pass it with --mask, such as --mask {name}")));
        }
        if !self.is_ours() {
            return Ok(());
        }
        if let Some(name) = self.told.get("VAE").filter(|_| args.vae.is_none()) {
            return Err(missing(
                "another VAE",
                name,
                format!("pass it with --vae, such as --vae {}", file(name)),
            ));
        }
        match self.told.get(TEXT_ENCODER).filter(|_| args.text_encoder.is_empty()) {
            Some(names) => Err(missing("other text encoders", names, "pass them with --text-encoder".into())),
            None => Ok(()),
        }
    }

    /// Tells what will differ.
    fn warn(&self, args: &Args, facts: &PictureFacts, more: &[String]) -> Result<()> {
        let warn = |text: String| terminal::warning(self.json, &format!("{}: {text}", self.path.display()));
        let other = |what: &str, expected: &str, found: &str| warn(another(what, expected, found));
        if let Some(expected) = self.told.get("Model hash") {
            let found = match &args.model {
                None => embedded::digest(),
                Some(path) if path.is_dir() => None,
                Some(path) if expected.len() == 8 => Some(digest::old(path)?),
                Some(path) => Some(whole_hash(path)?),
            };
            match found {
                Some(found) if found.starts_with(&expected.to_lowercase()) => {}
                Some(found) => other("model", expected, &found[..expected.len().clamp(1, found.len())]),
                None => warn("whether the model is the same cannot be seen of a folder".into()),
            }
        }
        for (pair, what, file) in [
            ("VAE hash", "VAE", &args.vae),
            (START_HASH, "picture to start from", &args.init_img),
            (MASK_HASH, "mask", &args.mask),
        ] {
            let Some((expected, file)) = self.told.get(pair).zip(file.as_ref()) else { continue };
            match file_hash(file)? {
                Some(found) if found != expected => other(what, expected, &found),
                _ => {}
            }
        }
        more.iter().for_each(|sentence| warn(sentence.clone()));
        if !self.is_ours() {
            for (pair, what, flag, given) in [
                ("VAE", "the VAE", "--vae", args.vae.is_some()),
                ("TE", "the text encoder", "--text-encoder", !args.text_encoder.is_empty()),
            ] {
                // A1111's words for the checkpoint's own.
                let told = self
                    .told
                    .get(pair)
                    .filter(|name| !["", "None", "Automatic", "Default (model)"].contains(name));
                if let Some(name) = told.filter(|_| !given) {
                    warn(format!(
                        "it was made with {what} {name}, the model's own is taken: pass it with {flag}"
                    ));
                }
            }
        }
        if let (Some(program), Some(syntax)) = (facts.program, facts.syntax) {
            warn(format!("{program} reads prompts otherwise: {syntax}, here they are words like others"));
        }
        let mut unknown: Vec<&str> =
            self.told.settings.iter().map(|(name, _)| name.as_str()).filter(|name| !is_known(name)).collect();
        unknown.dedup();
        if !unknown.is_empty() {
            warn(format!("settings that do not exist here are left out: {}", unknown.join(", ")));
        }
        if self.is_ours() && facts.workflow.is_some() {
            warn("it was drawn by a workflow, which `sagittal run` repeats to the byte".into());
        } else if !self.is_ours() {
            warn(
                "another program made it: the same settings give a similar picture, not the same bytes"
                    .into(),
            );
            if !self.told.get("RNG").is_some_and(|rng| rng.eq_ignore_ascii_case("cpu")) {
                warn(
                    "its noise was drawn on a GPU, here it is the CPU generator's: the picture is another"
                        .into(),
                );
            }
        }
        Ok(())
    }
}
