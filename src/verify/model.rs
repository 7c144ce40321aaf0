//! A set of a family's model: its parts one by one.

use super::compare::Findings;
use super::context::Context;
use super::set::{Kind, Set};
use super::{run, step, text, unet, vae};
use crate::Result;

pub(super) fn verify(context: &mut Context<'_, '_>) -> Result<()> {
    type VerifyPart = fn(&mut Context<'_, '_>) -> Result<()>;
    let parts: [(&str, VerifyPart); 5] = [
        ("text", text::verify),
        ("unet", unet::verify),
        ("vae", vae::verify),
        ("step", step::verify),
        ("run", run::verify),
    ];
    for (_, part) in parts.iter().filter(|(name, _)| context.set.wants(name)) {
        part(context)?;
    }
    Ok(())
}

/// Lists every case of a set whose model does not run.
pub(super) fn all_unsupported(set: &Set, findings: &mut Findings<'_>, why: &str) {
    let mut list = |part: &str, names: Vec<&str>| {
        for name in names.into_iter().filter(|_| set.wants(part)) {
            findings.unsupported(&format!("{part}.{name}"), why);
        }
    };
    let names = |key| set.root().list(key).iter().filter_map(|c| c.name().ok()).collect::<Vec<_>>();
    if set.kind() == Kind::Chunk {
        list("truth", names("truth"));
        return list("comfyui", names("comfyui_behaviour"));
    }
    list("text", set.cases_with("text", "cond"));
    list("vae", [set.cases_with("vae", "z"), set.cases_with("vae", "image")].concat());
    for part in ["unet", "step", "run"] {
        list(part, names(part));
    }
}
