//! What the cases of a model's set share: the model, its tolerances, prompts and guidance by the set's names.

use std::sync::atomic::AtomicBool;

use super::case::Case;
use super::compare::Findings;
use super::set::Set;
use super::tolerance::Tolerances;
use crate::Size;
use crate::families::LATENT_CELL;
use crate::guidance::{Conditioning, Entry, Guidance, Perturbed, Sag};
use crate::pipeline::{Model, Sizes};
use crate::{Error, ErrorKind, Result};

/// What the cases of a set share.
pub(super) struct Context<'a, 'f> {
    pub set: &'a Set,
    pub model: &'a Model,
    pub tolerances: Tolerances,
    pub findings: &'a mut Findings<'f>,
    pub cancel: &'a AtomicBool,
}

impl Context<'_, '_> {
    /// Runs a case under `name`. A fault of the case alone is noted and the others go on.
    ///
    /// # Errors
    /// Those after which no other case could run, and those of the set itself.
    pub fn case(&mut self, name: &str, run: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        match run(self) {
            Err(e) if matches!(e.kind(), ErrorKind::Cancelled | ErrorKind::File) => Err(e),
            Err(e) => {
                self.findings.failed(name, e.to_string());
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// The text of the prompt `name`.
    pub fn prompt(&self, name: &str) -> Result<&str> {
        let root = self.set.root();
        let prompts =
            root.object("text").and_then(|t| t.object("prompts")).or_else(|| root.object("prompts"));
        let missing = || {
            Error::new(ErrorKind::File, "the golden set has no such prompt").file(self.set.file()).at(name)
        };
        prompts.ok_or_else(missing)?.text(name).map_err(|_| missing())
    }

    /// The conditioning of the prompt `name` for latents of `(height, width)`: as the set has it,
    /// so that a fault of the text encoder shows there alone, else encoded here.
    pub fn entry(&self, name: &str, (height, width): (usize, usize)) -> Result<Entry> {
        let sizes = Sizes::of(Size::new(LATENT_CELL * width, LATENT_CELL * height));
        let tensor = format!("text.{name}.cond");
        match self.set.find(&tensor).map(|t| (t, t.shape.as_slice())) {
            Some((values, &[1, tokens, channels]))
                if tokens > 0 && channels == self.model.config().unet.context_dim =>
            {
                let mut entry = Entry::new(values.numbers(), tokens);
                if let Some(pooled) = self.set.find(&format!("text.{name}.pooled")) {
                    entry.vector = self.model.vector(Some(pooled.numbers()), sizes);
                }
                Ok(entry)
            }
            Some(_) => {
                let channels = self.model.config().unet.context_dim;
                Err(self.set.misshapen(&tensor, format!("[1, tokens, {channels}]")))
            }
            None => self.model.encode(self.prompt(name)?, None, sizes, self.cancel),
        }
    }

    /// Both sides of the guidance of a step or run, `pos` and `neg` unless it names others.
    pub fn conditioning(&self, case: &Case<'_>) -> Result<Conditioning> {
        let size = (case.size("height")?, case.size("width")?);
        let side = |key| self.entry(case.text(key).unwrap_or(key), size);
        Ok(Conditioning { positive: vec![side("pos")?], negative: vec![side("neg")?] })
    }
}

/// The SAG settings of a step or run; `null` is without.
pub(super) fn sag(case: &Case<'_>) -> Result<Sag> {
    let Some(sag) = case.object("sag") else { return Ok(Sag::off()) };
    let (scale, blur_sigma) = (sag.number("scale")? as f32, sag.number("blur_sigma")? as f32);
    Ok(Sag { scale, blur_sigma, ..Sag::default() })
}

/// CFG and SAG of a case.
pub(super) fn guidance(case: &Case<'_>) -> Result<Guidance> {
    Ok(Guidance::new(case.number("cfg")? as f32).with(sag(case)?))
}

/// The guidances beside SAG of a step, `null` or left out for none; widths of blurs may be `"inf"`.
pub(super) fn perturbed(case: &Case<'_>) -> Result<Vec<Perturbed>> {
    let one = |p: &Case<'_>| {
        let scale = p.number("scale")? as f32;
        match p.text("attention")? {
            "identity" => Ok(Perturbed::pag(scale)),
            "blurred" if p.text("sigma").is_ok_and(|s| s == "inf") => {
                Ok(Perturbed::seg(scale, f32::INFINITY))
            }
            "blurred" => Ok(Perturbed::seg(scale, p.number("sigma")? as f32)),
            other => Err(Error::new(ErrorKind::File, "an unknown perturbation in the golden set")
                .expected("identity or blurred")
                .found(other)),
        }
    };
    case.list("perturbed").iter().map(one).collect()
}
