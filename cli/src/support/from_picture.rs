//! `--from PICTURE`: the settings in a picture as flags, in front of those that were typed. A setting that cannot be
//! reproduced is an error if nothing could be drawn, otherwise a warning.

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

/// What the flags of a picture that is drawn again do not say.
#[derive(Debug, Default)]
pub struct Repeat {
    /// Its number in its batch and the size of the batch, if it was one of several.
    pub position: Option<(usize, usize)>,
    /// Whether its prompt was written by this program.
    pub own: bool,
}

/// The settings of the picture at `path` as flags, to be put before those that were typed. `args` are the typed
/// flags, `given` their names.
///
/// # Errors
/// [`ErrorKind::File`] for a picture without settings; [`ErrorKind::Usage`] for settings that do not
/// exist here and for files that must be passed.
pub fn settings(args: &Args, path: &Path, given: &BTreeSet<String>) -> Result<(Vec<OsString>, Repeat)> {
    let facts = inspect::picture(path).map_err(|e| e.at("--from"))?;
    let stored = StoredSettings {
        path,
        infotext: infotext(&facts, path)?,
        given,
        size: (facts.width, facts.height),
        json: args.json,
    };
    stored.check_files(args)?;
    let read = stored.flags(args)?;
    stored.warn(args, &facts, &read.warnings)?;
    let mut before = read.flags;
    let mut repeat = Repeat { own: stored.is_ours() && !stored.has("prompt"), ..Repeat::default() };
    let batch = ["batch_size", "batch_count"].iter().any(|id| given.contains(*id));
    if let (Some(size), Some(at), false) = (stored.number("Batch size"), stored.number("Batch pos"), batch) {
        if at >= size {
            return Err(stored.wrong("Batch pos").expected(format!("less than the batch size, {size}")));
        }
        repeat.position = Some((at, size));
        before.push(format!("--batch-size={size}").into());
    }
    Ok((before, repeat))
}

/// An error about the settings in the picture at `path`.
pub fn unusable(path: &Path, error: Error) -> Error {
    Error::usage("the picture's settings cannot be used")
        .file(path)
        .cause(error)
        .hint("override it with a flag")
}

/// The settings in the picture at `path`.
fn infotext<'p>(facts: &'p PictureFacts, path: &Path) -> Result<&'p Infotext> {
    if let Some(infotext) = facts.settings.as_ref().filter(|found| !found.settings.is_empty()) {
        return Ok(infotext);
    }
    let error = Error::new(ErrorKind::File, "the picture contains no settings that can be read")
        .file(path)
        .expected("settings as A1111 or another supported program writes them, in a PNG, JPEG or WebP");
    Err(match (&facts.workflow, facts.program) {
        (Some(_), _) => error.found("a workflow of ComfyUI").hint("`sagittal run` draws it again"),
        (None, Some(program)) if facts.settings.is_none() => {
            error.found(format!("those of {program}, which are not read")).hint("pass them as flags")
        }
        _ => error.hint("image editors often remove the settings"),
    })
}

/// A sentence about a file that differs from the one that a picture was made with.
pub fn differs(what: &str, expected: &str, found: &str) -> String {
    format!("the {what} is not the one that the picture was made with: expected {expected}, found {found}")
}

/// A picture's settings, and which flags on the command line override them.
pub struct StoredSettings<'a> {
    path: &'a Path,
    pub(super) infotext: &'a Infotext,
    given: &'a BTreeSet<String>,
    /// Of the picture, width and height.
    pub(super) size: (usize, usize),
    json: bool,
}

impl StoredSettings<'_> {
    fn number(&self, name: &str) -> Option<usize> {
        self.infotext.get(name)?.parse().ok()
    }

    pub(super) fn wrong(&self, name: &str) -> Error {
        let found = self.infotext.get(name).unwrap_or_default();
        Error::usage("a setting of the picture does not exist here").file(self.path).at(name).found(found)
    }

    /// Whether this program made the picture.
    pub(super) fn is_ours(&self) -> bool {
        self.infotext.get("Version").is_some_and(|version| version.starts_with("sagittal"))
    }

    /// Whether the flag of this identifier was typed.
    pub(super) fn has(&self, id: &str) -> bool {
        self.given.contains(id)
    }

    /// Checks that the files which the picture was made from are passed.
    fn check_files(&self, args: &Args) -> Result<()> {
        let missing = |what: &str, name: &str, hint: String| {
            Error::usage(format!("the picture was made with {what}, which is not stored in it"))
                .file(self.path)
                .expected(name)
                .hint(hint)
        };
        let file = |name: &str| match Path::new(name).extension() {
            Some(e) if e.eq_ignore_ascii_case("safetensors") => name.to_owned(),
            _ => format!("{name}.safetensors"),
        };
        let model = first_of(self.infotext, &["Model", "Unet"]);
        if let Some(name) = model.filter(|name| args.model.is_none() && *name != EMBEDDED) {
            return Err(missing("a model", name, format!("pass it with -m, such as -m {}", file(name))));
        }
        // A1111 writes a strength for its hires pass over a picture made from text, too.
        let second = self.infotext.settings.iter().any(|(name, _)| name.starts_with("Hires "));
        let started = self.infotext.get(START);
        let started = started.or(self.infotext.get("Denoising strength").filter(|_| !second).map(|_| ""));
        if let Some(name) = started.filter(|_| args.init_img.is_none()) {
            let error = Error::usage("the picture was made from another picture, which is not stored in it")
                .file(self.path);
            return Err(match name {
                "" => error.hint("pass the picture that it was made from with -i FILE"),
                name => error.expected(name).hint(format!("pass it with -i, such as -i {name}")),
            });
        }
        if let Some(name) = self.infotext.get(MASK).filter(|_| args.mask.is_none()) {
            return Err(missing("a mask", name, format!("pass it with --mask, such as --mask {name}")));
        }
        if !self.is_ours() {
            return Ok(());
        }
        if let Some(name) = self.infotext.get("VAE").filter(|_| args.vae.is_none()) {
            return Err(missing(
                "another VAE",
                name,
                format!("pass it with --vae, such as --vae {}", file(name)),
            ));
        }
        match self.infotext.get(TEXT_ENCODER).filter(|_| args.text_encoder.is_empty()) {
            Some(names) => Err(missing("other text encoders", names, "pass them with --text-encoder".into())),
            None => Ok(()),
        }
    }

    /// Warns of what will differ.
    fn warn(&self, args: &Args, facts: &PictureFacts, more: &[String]) -> Result<()> {
        let warn = |text: String| terminal::warning(self.json, &format!("{}: {text}", self.path.display()));
        let other = |what: &str, expected: &str, found: &str| warn(differs(what, expected, found));
        if let Some(expected) = self.infotext.get("Model hash") {
            let found = match &args.model {
                None => embedded::digest(),
                Some(path) if path.is_dir() => None,
                Some(path) if expected.len() == 8 => Some(digest::old(path)?),
                Some(path) => Some(whole_hash(path)?),
            };
            match found {
                Some(found) if found.starts_with(&expected.to_lowercase()) => {}
                Some(found) => other("model", expected, &found[..expected.len().clamp(1, found.len())]),
                None => warn("whether the model is the same cannot be checked for a folder".into()),
            }
        }
        for (pair, what, file) in [
            ("VAE hash", "VAE", &args.vae),
            (START_HASH, "picture to start from", &args.init_img),
            (MASK_HASH, "mask", &args.mask),
        ] {
            let Some((expected, file)) = self.infotext.get(pair).zip(file.as_ref()) else { continue };
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
                // A1111's names for the checkpoint's own.
                let named = self
                    .infotext
                    .get(pair)
                    .filter(|name| !["", "None", "Automatic", "Default (model)"].contains(name));
                if let Some(name) = named.filter(|_| !given) {
                    warn(format!(
                        "it was made with {what} {name}, the model's own is used instead: pass it with {flag}"
                    ));
                }
            }
        }
        if let (Some(program), Some(syntax)) = (facts.program, facts.syntax) {
            warn(format!("{program} has prompt syntax that is plain text here: {syntax}"));
        }
        let mut unknown: Vec<&str> = self
            .infotext
            .settings
            .iter()
            .map(|(name, _)| name.as_str())
            .filter(|name| !is_known(name))
            .collect();
        unknown.dedup();
        if !unknown.is_empty() {
            warn(format!("settings that do not exist here are ignored: {}", unknown.join(", ")));
        }
        if self.is_ours() && facts.workflow.is_some() {
            warn("it was drawn by a workflow: `sagittal run` gives the same bytes".into());
        } else if !self.is_ours() {
            warn(
                "another program made it: the same settings give a similar picture, not the same bytes"
                    .into(),
            );
            if !self.infotext.get("RNG").is_some_and(|rng| rng.eq_ignore_ascii_case("cpu")) {
                warn(
                    "its noise was drawn on a GPU, here by the CPU generator: the picture will differ".into(),
                );
            }
        }
        Ok(())
    }
}
