//! Warnings before a run: flags without effect, and prompt syntax that other programs read differently.

use std::collections::BTreeSet;

use sagittal::Request;
use sagittal::internals::text::embedding;
use sagittal::internals::text::syntax::{self, Kind};
use sagittal::lora::tags;

use crate::support::args::Args;
use crate::support::terminal;

/// A flag without effect: its clap id, and why it has none.
pub type IdleFlag = (&'static str, String);

/// The flags of `args` that have no effect on `request`, whether they were typed or not.
pub fn idle_flags(args: &Args, request: &Request) -> Vec<IdleFlag> {
    let (sag, sampler) = (request.guidance.sag(), request.solver.sampler);
    let cfg_is_1 = request.guidance.cfg == 1.0;
    let mut idle: Vec<IdleFlag> = Vec::new();
    let mut unless = |effect: bool, flags: &[&'static str], why: &str| {
        if !effect {
            idle.extend(flags.iter().map(|flag| (*flag, why.to_owned())));
        }
    };
    unless(sampler.adds_noise(), &["eta", "s_noise"], &format!("{sampler} adds no noise"));
    let parts = ["sag_threshold", "sag_start", "sag_end", "sag_cond"];
    unless(sag.is_on(), &parts, "Self-Attention Guidance is off");
    // A blur of 0 turns it off, so the blur has an effect.
    unless(sag.scale != 0.0, &["sag_blur"], "Self-Attention Guidance is off");
    unless(sag.scale == 0.0 || sag.is_on(), &["sag_scale"], "a blur of 0 turns Self-Attention Guidance off");
    unless(!sag.is_on() || cfg_is_1, &["sag_cond"], "the CFG scale is not 1");
    unless(args.pag_scale != 0.0, &["pag_start", "pag_end"], "Perturbed-Attention Guidance is off");
    unless(args.seg_scale != 0.0, &["seg_blur", "seg_start", "seg_end"], "Smoothed Energy Guidance is off");
    unless(args.seg_scale == 0.0 || args.seg_blur != 0.0, &["seg_scale"], "a blur of 0 turns it off");
    let steps = request.schedule.steps;
    unless(
        args.preview_every <= steps,
        &["preview_every"],
        &format!("with {} the only preview is the last", terminal::count(steps, "step")),
    );
    let negative = !cfg_is_1 || sampler.needs_uncond() || (sag.is_on() && !sag.cond_at_cfg_1);
    unless(negative, &["negative"], "at a CFG scale of 1 the negative prompt is not used");
    let mut prompts = args.prompt.iter().chain(&args.negative);
    unless(
        prompts.any(|text| embedding::names_any(text)),
        &["embedding_dir"],
        "no prompt names an embedding",
    );
    let tagged = args.prompt.iter().any(|text| tags::take(text).is_ok_and(|(_, tags)| !tags.is_empty()));
    unless(tagged, &["lora_dir"], "no prompt names a LoRA");
    idle
}

/// Warns of the idle flags that were typed; `given` are the ids of typed flags.
pub fn warn_of_idle_flags(json: bool, idle: &[IdleFlag], given: &BTreeSet<String>) {
    let mut warned = BTreeSet::new();
    for (id, why) in idle.iter().filter(|(id, _)| given.contains(*id)) {
        if warned.insert(id) {
            warn_of_idle_flag(json, id, why);
        }
    }
}

/// Warns of an idle flag by its clap id.
pub fn warn_of_idle_flag(json: bool, id: &str, why: &str) {
    terminal::warning(json, &format!("--{} has no effect: {why}", long_name(id)));
}

/// The long name of the flag with the clap id `id`.
pub fn long_name(id: &str) -> String {
    if id == "negative" { "negative-prompt".to_owned() } else { id.replace('_', "-") }
}

/// Warns of syntax in the prompts of `all` that other programs read differently, once for each kind. `own` prompts
/// come from a picture of this program, whose AND has this program's meaning.
pub fn warn_of_prompt_syntax<'a>(json: bool, all: impl IntoIterator<Item = &'a Args>, own: bool) {
    let mut warned = BTreeSet::new();
    for args in all {
        let prompts = args.prompt.iter().map(|text| (text, true));
        for (text, composed) in prompts.chain(args.negative.iter().map(|text| (text, false))) {
            let means = |kind| kind != Kind::And || (composed && !own);
            for note in syntax::notes(text).into_iter().filter(|note| means(note.kind)) {
                if warned.insert(note.to_string()) {
                    terminal::warning(json, &note.to_string());
                }
            }
        }
    }
}
