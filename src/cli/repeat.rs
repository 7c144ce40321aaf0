//! `--from PICTURE.png`: the settings in a picture as flags, in front of those that were typed. What
//! cannot be had again is told: as an error where nothing could be drawn, else as a warning.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;

use sagittal::checkpoint::digest;
use sagittal::image::infotext::Infotext;
use sagittal::inspect::{self, PictureFacts};
use sagittal::{Error, ErrorKind, Result, embedded};

use super::args::Args;
use super::origin::{EMBEDDED, MASK, MASK_HASH, START, START_HASH, TEXT_ENCODER, file_hash, whole_hash};
use super::tell;

/// Pairs whose values are a flag's as they are.
const FLAGS: [(&str, &str); 22] = [
    ("Steps", "steps"),
    ("CFG scale", "cfg-scale"),
    ("Seed", "seed"),
    ("Clip skip", "clip-skip"),
    ("Eta", "eta"),
    ("Sigma noise", "s-noise"),
    ("SAG Mask Threshold", "sag-threshold"),
    ("SAG Blur Sigma", "sag-blur"),
    ("SAG Start", "sag-start"),
    ("SAG End", "sag-end"),
    ("PAG Scale", "pag-scale"),
    ("PAG Start", "pag-start"),
    ("PAG End", "pag-end"),
    ("SEG Scale", "seg-scale"),
    ("SEG Blur Sigma", "seg-blur"),
    ("SEG Start", "seg-start"),
    ("SEG End", "seg-end"),
    ("Original size", "original-size"),
    ("Target size", "target-size"),
    ("Precision", "precision"),
    ("VAE precision", "vae-precision"),
    ("Prediction", "prediction"),
];

/// Pairs that are read here in ways of their own, or tell nothing that a run depends on.
const KNOWN: [&str; 31] = [
    "Sampler",
    "Schedule type",
    "Size",
    "Model",
    "Model hash",
    "RNG",
    "Version",
    "Denoising strength",
    "SAG Guidance Enabled",
    "SAG Guidance Scale",
    "SAG Attention",
    "Batch size",
    "Batch pos",
    "Crop",
    "VAE",
    "VAE hash",
    "VAE tile",
    "Max memory",
    "Matrices",
    "Lora hashes",
    "TI hashes",
    "Resize mode",
    "Hashes",
    "User",
    "Image CFG scale",
    "Face restoration",
    START,
    START_HASH,
    MASK,
    MASK_HASH,
    TEXT_ENCODER,
];

/// A picture to be drawn again.
#[derive(Debug, Default)]
pub struct Repeat {
    /// Which picture of how many it was, where it was one of a batch.
    pub position: Option<(usize, usize)>,
}

/// The settings of the picture at `path` as flags to stand in front of those that were typed, which
/// came to `args` and whose names are `given`.
///
/// # Errors
/// [`ErrorKind::File`] for a picture without settings; [`ErrorKind::Usage`] for settings that do not
/// exist here and for files that must be named by hand.
pub fn settings(args: &Args, path: &Path, given: &BTreeSet<String>) -> Result<(Vec<OsString>, Repeat)> {
    let facts = inspect::picture(path).map_err(|e| e.at("--from"))?;
    let source = Source { path, told: told(&facts, path)?, given, json: args.json };
    source.check_files(args)?;
    source.warn(args, &facts)?;
    let mut repeat = Repeat::default();
    let mut before = source.flags()?;
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
        .expected("a PNG with a chunk `parameters`, as sagittal and A1111 write it");
    Err(match facts.workflow {
        Some(_) => error.found("a workflow of ComfyUI").hint("`sagittal run` draws it again"),
        None => error.hint("programs that edit pictures leave their settings out"),
    })
}

/// A picture's settings and what stands beside them on the command line.
struct Source<'a> {
    path: &'a Path,
    told: &'a Infotext,
    given: &'a BTreeSet<String>,
    json: bool,
}

impl Source<'_> {
    fn number(&self, name: &str) -> Option<usize> {
        self.told.get(name)?.parse().ok()
    }

    fn wrong(&self, name: &str) -> Error {
        let found = self.told.get(name).unwrap_or_default();
        Error::usage("a setting of the picture does not exist here").file(self.path).at(name).found(found)
    }

    fn is_ours(&self) -> bool {
        self.told.get("Version").is_some_and(|version| version.starts_with("sagittal"))
    }

    fn has(&self, id: &str) -> bool {
        self.given.contains(id)
    }

    /// The settings as flags.
    fn flags(&self) -> Result<Vec<OsString>> {
        let mut flags: Vec<OsString> = Vec::new();
        let mut set = |name: &str, value: &str| flags.push(format!("--{name}={value}").into());
        if !self.has("prompt") {
            set("prompt", &self.told.prompt);
        }
        if !self.has("negative") {
            self.told.negative.iter().for_each(|n| set("negative-prompt", n));
        }
        for (pair, flag) in FLAGS {
            if let Some(value) = self.told.get(pair) {
                set(flag, value);
            }
        }
        match (self.told.sampler(), self.told.get("Sampler")) {
            (Some(sampler), _) => set("sampling-method", sampler.name()),
            (None, Some(_)) if !self.has("sampling_method") => {
                return Err(self.wrong("Sampler").hint("choose one of ours with --sampling-method"));
            }
            _ => {}
        }
        match (self.told.scheduler(), self.told.get("Schedule type")) {
            (Some(scheduler), _) => set("scheduler", scheduler.name()),
            (None, Some(_)) if !self.has("scheduler") => {
                return Err(self.wrong("Schedule type").hint("choose one of ours with --scheduler"));
            }
            _ => {}
        }
        let on = self.told.get("SAG Guidance Enabled") == Some("True");
        set("sag-scale", if on { self.told.get("SAG Guidance Scale").unwrap_or("0.5") } else { "0" });
        if let Some(crop) = self.told.get("Crop") {
            set("crop", &crop.replace('/', ","));
        }
        if let Some(tile) = self.told.get("VAE tile") {
            set("vae-tile", tile);
        }
        if let Some(mebibytes) = self.told.get("Max memory") {
            set("max-memory", mebibytes);
        }
        let start = self.has("init_img");
        if start && let Some(strength) = self.told.get("Denoising strength") {
            set("strength", strength);
        }
        // Without a size of its own a picture to start from is cut, with one it is scaled.
        if (!start || self.told.get("Resize mode").is_some())
            && let Some(size) = self.told.get("Size")
        {
            let (width, height) = size.split_once('x').ok_or_else(|| self.wrong("Size").expected("WxH"))?;
            set("width", width);
            set("height", height);
        }
        for (pair, flag) in [("SAG Attention", "--sag-cond"), ("Matrices", "--no-matrices")] {
            flags.extend(self.told.get(pair).map(|_| OsString::from(flag)));
        }
        Ok(flags)
    }

    /// Refuses to go on without the files that the picture was made from.
    fn check_files(&self, args: &Args) -> Result<()> {
        let missing = |what: &str, name: &str, hint: String| {
            Error::usage(format!("the picture was made with {what} that a picture cannot hold"))
                .file(self.path)
                .expected(name)
                .hint(hint)
        };
        let model = self.told.get("Model");
        if let Some(name) = model.filter(|name| args.model.is_none() && *name != EMBEDDED) {
            return Err(missing("a model", name, format!("pass it with -m, such as -m {name}.safetensors")));
        }
        let started = self.told.get(START).or(self.told.get("Denoising strength").map(|_| "a picture"));
        // A1111 tells a strength for its second pass over a picture made from text, too.
        let started = started.filter(|_| self.told.get("Hires upscale").is_none());
        if let Some(name) = started.filter(|_| args.init_img.is_none()) {
            return Err(missing(
                "a picture to start from",
                name,
                format!("pass it with -i, such as -i {name}"),
            ));
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
                format!("pass it with --vae, such as --vae {name}.safetensors"),
            ));
        }
        match self.told.get(TEXT_ENCODER).filter(|_| args.text_encoder.is_empty()) {
            Some(names) => Err(missing("other text encoders", names, "pass them with --text-encoder".into())),
            None => Ok(()),
        }
    }

    /// Tells what will differ.
    fn warn(&self, args: &Args, facts: &PictureFacts) -> Result<()> {
        let warn = |text: String| tell::warning(self.json, &format!("{}: {text}", self.path.display()));
        let other = |what: &str, expected: &str, found: &str| {
            warn(format!(
                "the {what} is not the one that the picture was made with: expected {expected}, found {found}"
            ));
        };
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
        let known = |name: &str| KNOWN.contains(&name) || FLAGS.iter().any(|(pair, _)| *pair == name);
        let unknown: Vec<&str> =
            self.told.settings.iter().map(|(name, _)| name.as_str()).filter(|name| !known(name)).collect();
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
            if self.told.get("RNG") != Some("CPU") {
                warn(
                    "its noise was drawn on a GPU, here it is the CPU generator's: the picture is another"
                        .into(),
                );
            }
        }
        Ok(())
    }
}
