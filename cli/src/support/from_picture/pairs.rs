//! The settings of a picture as flags: the flag of each pair of name and value, and how programs' meanings differ.

use std::ffi::OsString;

use sagittal::image::read;
use sagittal::internals::image::infotext::Infotext;
use sagittal::internals::sampler::names;
use sagittal::{Error, Result};

use crate::support::args::Args;
use crate::support::from_picture::StoredSettings;
use crate::support::from_picture::hashes;
use crate::support::origin::{COSTS, DISTRUSTED, EXTRA, MASK, MASK_HASH, START, START_HASH, TEXT_ENCODER};

/// Pairs whose value is passed to a flag unchanged.
const FLAGS: [(&str, &str); 16] = [
    ("Steps", "steps"),
    ("CFG scale", "cfg-scale"),
    ("Seed", "seed"),
    ("Sigma noise", "s-noise"),
    ("SAG Start", "sag-start"),
    ("SAG End", "sag-end"),
    ("SEG Scale", "seg-scale"),
    ("SEG Blur Sigma", "seg-blur"),
    ("SEG Start", "seg-start"),
    ("SEG End", "seg-end"),
    ("Original size", "original-size"),
    ("Target size", "target-size"),
    ("Precision", "precision"),
    ("VAE precision", "vae-precision"),
    ("Prediction", "prediction"),
    ("Max memory", "max-memory"),
];

/// Pairs that are read in special ways, or that a run does not depend on.
const KNOWN: [&str; 56] = [
    "Sampler",
    "Schedule type",
    "Size",
    "Eta",
    "Clip skip",
    "Model",
    "Model hash",
    "RNG",
    "Version",
    "Denoising strength",
    "SAG Guidance Enabled",
    "SAG Guidance Scale",
    "SAG Mask Threshold",
    "SAG Blur Sigma",
    "SAG Attention",
    "SAG bilinear interpolation",
    "SAG Attention Target",
    "SAG Base Model",
    "SAG Custom Resolution",
    "sag_enabled",
    "sag_scale",
    "sag_blur_sigma",
    "sag_threshold",
    "PAG Active",
    "PAG Scale",
    "PAG Start",
    "PAG End",
    "PAG Start Step",
    "PAG End Step",
    "pag_enabled",
    "pag_scale",
    "Batch size",
    "Batch pos",
    "Crop",
    "VAE",
    "VAE hash",
    "VAE tile",
    "Matrices",
    "Lora hashes",
    "Lora weights",
    "TI hashes",
    "Hashes",
    "Resize mode",
    "User",
    // stable-diffusion.cpp: of other families, other files, and all settings again as JSON.
    "Guidance",
    "TE",
    "Unet",
    "SDCPP",
    COSTS,
    DISTRUSTED,
    EXTRA,
    START,
    START_HASH,
    MASK,
    MASK_HASH,
    TEXT_ENCODER,
];

/// Whether a pair of this name is read.
pub fn is_known(name: &str) -> bool {
    KNOWN.contains(&name) || FLAGS.iter().any(|(pair, _)| *pair == name)
}

/// The sigma of SAG's blur in A1111's extension before it was a setting.
const FIRST_BLUR: f64 = 1.0;
/// The largest sigma of SAG's blur.
const WIDEST_BLUR: f64 = 10.0;

/// Flags, and warnings about settings that they do not reproduce.
#[derive(Default)]
pub struct Read {
    pub flags: Vec<OsString>,
    pub warnings: Vec<String>,
}

impl Read {
    fn set(&mut self, name: &str, value: impl AsRef<str>) {
        self.flags.push(format!("--{name}={}", value.as_ref()).into());
    }

    fn warn(&mut self, sentence: impl Into<String>) {
        self.warnings.push(sentence.into());
    }
}

impl StoredSettings<'_> {
    /// The settings as flags.
    pub(super) fn flags(&self, args: &Args) -> Result<Read> {
        let mut read = Read::default();
        let texts = hashes::texts(self, args)?;
        read.warnings = texts.warnings;
        if !self.has("prompt") {
            read.set("prompt", &texts.prompt);
        }
        if !self.has("negative") {
            texts.negative.iter().for_each(|n| read.set("negative-prompt", n));
        }
        for (pair, flag) in FLAGS {
            if let Some(value) = self.infotext.get(pair) {
                read.set(flag, value);
            }
        }
        self.sampling(args, &mut read)?;
        self.sag(&mut read);
        self.pag(&mut read);
        if let Some(crop) = self.infotext.get("Crop") {
            read.set("crop", crop.replace('/', ","));
        }
        if let Some(tile) = self.infotext.get("VAE tile") {
            read.set("vae-tile", tile);
        }
        // stable-diffusion.cpp writes 0 or less for the model's default.
        let skip = self.infotext.get("Clip skip");
        if let Some(skip) = skip.filter(|skip| !(self.is_cpp() && skip.parse::<i64>().is_ok_and(|n| n <= 0)))
        {
            read.set("clip-skip", skip);
        }
        if self.has("init_img")
            && let Some(strength) = self.infotext.get("Denoising strength")
        {
            read.set("strength", strength);
        }
        let own = format!("{}x{}", self.size.0, self.size.1);
        let size = self.infotext.get("Size");
        // Programs that do not write it draw the picture in its own size.
        if let Some(size) =
            size.or((!self.is_ours() && self.size.0 % 8 + self.size.1 % 8 == 0).then_some(&*own))
        {
            let (width, height) = size.split_once('x').ok_or_else(|| self.wrong("Size").expected("WxH"))?;
            if !self.is_cut(args, (width, height))? {
                read.set("width", width);
                read.set("height", height);
            }
        }
        if let Some(choice) = self.infotext.get("Matrices") {
            read.set("matrices", choice);
        }
        if let Some(hash) = self.infotext.get(COSTS)
            && !args.compute.device.has_costs(hash)
        {
            let advice = "name the same table with --table, or the pixels may differ by rounding";
            read.warnings.push(format!("the picture was made with the kernel costs {hash}: {advice}"));
        }
        if let Some(names) = self.infotext.get(DISTRUSTED) {
            let why = "its device computed them wrong or slowly, so the pixels may differ by rounding";
            read.warnings.push(format!("the picture was made without the kernels {names}: {why}"));
        }
        for (pair, flag) in [("SAG Attention", "--sag-cond"), (EXTRA, "--ignore-extra")] {
            read.flags.extend(self.infotext.get(pair).map(|_| OsString::from(flag)));
        }
        Ok(read)
    }

    /// Whether a picture of ours was cropped from its start picture, and that one is cropped to the same size now:
    /// with an explicit size it would be scaled.
    fn is_cut(&self, args: &Args, (width, height): (&str, &str)) -> Result<bool> {
        let Some(start) = args.init_img.as_ref().filter(|_| self.is_ours()) else { return Ok(false) };
        if self.infotext.get("Resize mode").is_some() {
            return Ok(false);
        }
        let start = read::picture(start)?;
        let cut = |side: usize| (side / 8 * 8).to_string();
        Ok((cut(start.width).as_str(), cut(start.height).as_str()) == (width, height))
    }

    fn sampling(&self, args: &Args, read: &mut Read) -> Result<()> {
        let sampler = match (self.infotext.sampler(), self.infotext.get("Sampler")) {
            (Some(sampler), _) => {
                read.set("sampling-method", sampler.name());
                Some(sampler)
            }
            (None, Some(name)) if !self.has("sampling_method") => {
                let cause = names::with_scheduler(name).err();
                let error = self.unknown("Sampler", cause);
                match names::beginning(name) {
                    // The scheduler after it is overridden by a flag.
                    Some(sampler) if self.has("scheduler") => {
                        read.set("sampling-method", sampler.name());
                        Some(sampler)
                    }
                    Some(_) => return Err(error.hint("choose a supported scheduler with --scheduler")),
                    None => return Err(error.hint("choose a supported one with --sampling-method")),
                }
            }
            _ => None,
        };
        match (self.infotext.scheduler(), self.infotext.get("Schedule type")) {
            (Some(scheduler), _) => read.set("scheduler", scheduler.name()),
            (None, Some(name)) if !self.has("scheduler") && args.sampling_method.scheduler.is_none() => {
                let cause = name.parse::<sagittal::sampler::Scheduler>().err();
                return Err(self
                    .unknown("Schedule type", cause)
                    .hint("choose a supported one with --scheduler"));
            }
            _ => {}
        }
        let Some(eta) = self.infotext.get("Eta") else { return Ok(()) };
        let number = eta.parse::<f64>().ok();
        // What stable-diffusion.cpp writes if eta was not set: infinity, and 0 in earlier versions, which wrote it
        // for samplers that do not use it, too. Those versions did not write SDCPP.
        let unset = number.is_some_and(|n| !n.is_finite());
        let old = self.is_cpp() && number == Some(0.0) && self.infotext.get("SDCPP").is_none();
        if !unset && !old {
            read.set("eta", eta);
        } else if old && !self.has("eta") && sampler.is_some_and(|s| s.adds_noise()) {
            read.warn(
                "stable-diffusion.cpp writes an eta of 0 for samplers that do not use it: \
                 the sampler's default is used; pass --eta 0 to use the written value",
            );
        }
        Ok(())
    }

    /// Self-Attention Guidance as this program, A1111's extension and Forge write it. Early versions of the extension
    /// switched it on by its scale alone.
    fn sag(&self, read: &mut Read) {
        let value = |name: &str| self.infotext.get(name);
        let is_true = |name: &str| value(name).is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let forge =
            is_true("sag_enabled") || (value("sag_enabled").is_none() && value("sag_scale").is_some());
        let own = is_true("SAG Guidance Enabled")
            || (value("SAG Guidance Enabled").is_none() && value("SAG Guidance Scale").is_some());
        let names = match (own, forge) {
            (true, _) => ["SAG Guidance Scale", "SAG Blur Sigma", "SAG Mask Threshold"],
            (false, true) => ["sag_scale", "sag_blur_sigma", "sag_threshold"],
            (false, false) => return read.set("sag-scale", "0"),
        };
        let [scale, blur, threshold] = names.map(value);
        read.set("sag-scale", scale.unwrap_or("0.5"));
        let first = if own { FIRST_BLUR.to_string() } else { "2".into() };
        let (blur, threshold) = (blur.unwrap_or(&first), threshold.unwrap_or("1"));
        let factor = self.sag_factor().filter(|factor| *factor != 1.0);
        match factor.zip(blur.parse::<f64>().ok()).zip(threshold.parse::<f64>().ok()) {
            None => {
                read.set("sag-blur", blur);
                read.set("sag-threshold", threshold);
            }
            Some(((factor, blur), threshold)) => {
                read.set("sag-blur", (blur * factor).min(WIDEST_BLUR).to_string());
                read.set("sag-threshold", (threshold * factor).to_string());
                read.warn(format!(
                    "SAG's blur and threshold are multiplied by {factor:.3}, as its extension does for SAG Custom \
                     Resolution"
                ));
            }
        }
        for (name, usual) in [("SAG bilinear interpolation", "False"), ("SAG Attention Target", "middle")] {
            if let Some(value) = value(name).filter(|value| !value.eq_ignore_ascii_case(usual)) {
                read.warn(format!("{name}: {value} is not supported, SAG uses {name}: {usual}"));
            }
        }
    }

    /// The ratio of the picture's side to the custom resolution that was set in A1111's extension.
    fn sag_factor(&self) -> Option<f64> {
        let number = |text: &str| text.trim().parse::<f64>().ok().filter(|n| *n > 0.0 && n.is_finite());
        let reference = number(self.infotext.get("SAG Custom Resolution")?)?;
        let (width, height) = self.infotext.get("Size")?.split_once('x')?;
        Some((number(width)? * number(height)?).sqrt() / reference)
    }

    /// Perturbed-Attention Guidance of Forge, and of A1111's extension, which counts steps where this program uses
    /// fractions of them.
    fn pag(&self, read: &mut Read) {
        let is_off =
            |name: &str| self.infotext.get(name).is_some_and(|value| value.eq_ignore_ascii_case("false"));
        let own = self.infotext.get("PAG Scale").filter(|_| !is_off("PAG Active"));
        let Some(scale) = own.or(self.infotext.get("pag_scale").filter(|_| !is_off("pag_enabled"))) else {
            return;
        };
        let number = |name: &str| self.infotext.get(name)?.parse::<f64>().ok();
        let share = |pair: &str, more: f64| {
            let steps = number("Steps").filter(|steps| *steps > 0.0)?;
            Some(((number(pair)? + more) / steps).clamp(0.0, 1.0))
        };
        let (start, end) = (share("PAG Start Step", 0.0), share("PAG End Step", 1.0));
        if start.is_some_and(|start| start >= end.unwrap_or(1.0)) {
            let steps = ["PAG Start Step", "PAG End Step", "Steps"]
                .map(|name| format!("{name} {}", self.infotext.get(name).unwrap_or("missing")));
            return read.warn(format!("PAG is off, since its range of steps is empty: {}", steps.join(", ")));
        }
        read.set("pag-scale", scale);
        for (share, pair, flag) in [(start, "PAG Start", "pag-start"), (end, "PAG End", "pag-end")] {
            let share = share.map(|share| share.to_string());
            if let Some(share) = share.or(self.infotext.get(pair).map(str::to_owned)) {
                read.set(flag, share);
            }
        }
    }

    fn unknown(&self, pair: &str, cause: Option<Error>) -> Error {
        let error = self.wrong(pair);
        match cause {
            Some(cause) => error.cause(cause),
            None => error,
        }
    }

    /// Whether stable-diffusion.cpp made the picture.
    pub(super) fn is_cpp(&self) -> bool {
        self.infotext.get("Version").is_some_and(|version| version.starts_with("stable-diffusion.cpp"))
    }
}

/// The value of the first pair of these names that is not empty.
pub fn first_of<'t>(infotext: &'t Infotext, names: &[&str]) -> Option<&'t str> {
    names.iter().filter_map(|name| infotext.get(name)).find(|value| !value.is_empty())
}
