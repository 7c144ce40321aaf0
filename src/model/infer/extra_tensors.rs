//! Every tensor that a network's layers use must be there, and every tensor of a network must be used.
//!
//! What no layer uses is reported once, by kind. What would change pictures (adapters, gates, biases of
//! layers that have none) is refused: leaving it out would give other pictures than the author's.

use std::collections::{BTreeMap, HashMap};

use crate::checkpoint::{Checkpoint, EncoderPlace, FoundEncoder};
use crate::graph::{Graph, Weight};
use crate::model::config::{TextConfig, UNET, UnetConfig, VAE, VaeConfig};
use crate::model::{unet, vae};
use crate::text::clip;
use crate::{Remedy, Result};

/// Most kinds of tensors that a message names.
const MOST_KINDS: usize = 6;

/// What leaving a tensor out does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Effect {
    /// Nothing, and most files have it: not worth a word.
    Usual,
    /// Nothing that is known of.
    Unknown,
    /// Other pictures.
    Changes,
}

/// Names and shapes of the tensors that layers use.
type Used = HashMap<String, Vec<usize>>;

fn used_by<'a>(weights: impl IntoIterator<Item = &'a Weight>) -> Used {
    let each = |w: &'a Weight| w.sources.iter().cloned().zip(w.shapes.iter().cloned());
    weights.into_iter().flat_map(each).collect()
}

/// Checks that all tensors that the UNet's layers use are there, and reports those that no layer uses.
///
/// # Errors
/// [`ErrorKind::Model`](crate::ErrorKind::Model) naming a tensor that is missing, or those left over.
pub(super) fn check_unet(model: &Checkpoint, config: &UnetConfig) -> Result<()> {
    check_beside(model)?;
    let used = used_by(&unet::weights(config)?);
    all_there(model, &used)?;
    let effect = |rest: &str, name: &str| match model.tensor(name) {
        // A mark, such as a version: no layer has a name without a dot.
        Some(info) if !rest.contains('.') && info.elements() <= 1 => Effect::Unknown,
        _ => Effect::Changes,
    };
    left_over(model, "the UNet", UNET, &used, effect)
}

/// The same for the autoencoder.
pub(super) fn check_vae(model: &Checkpoint, config: &VaeConfig) -> Result<()> {
    let graphs = [vae::decoder(config, 8, 8)?, vae::encoder(config, 64, 64)?];
    let used = used_by(graphs.iter().flat_map(Graph::weights));
    all_there(model, &used)?;
    let effect = |rest: &str, _: &str| {
        let modules = ["encoder.", "decoder.", "quant_conv", "post_quant_conv"];
        match modules.iter().any(|module| rest.starts_with(module)) {
            true => Effect::Changes,
            // Parts of its training.
            false if ["loss.", "model_ema."].iter().any(|start| rest.starts_with(start)) => Effect::Usual,
            false => Effect::Unknown,
        }
    };
    left_over(model, "the VAE", VAE, &used, effect)
}

/// The same for a text encoder.
pub(super) fn check_text(model: &Checkpoint, config: &TextConfig) -> Result<()> {
    let mut used = used_by(clip::whole(config)?.weights());
    used.extend(clip::tables(config));
    all_there(model, &used)?;
    // Marks of the library that wrote it; the last is OpenAI's for pictures beside texts.
    let usual = ["position_ids", "logit_scale", "logit_bias", "attn_mask"];
    let effect = |rest: &str, _: &str| match rest {
        _ if usual.iter().any(|end| rest == *end || rest.ends_with(&format!(".{end}"))) => Effect::Usual,
        // The first encoder's pooled vector is not read.
        "text_projection" | "text_projection.weight" if config.projection.is_none() => Effect::Usual,
        // The half of CLIP that looks at pictures.
        _ if rest.starts_with("visual.") => Effect::Usual,
        _ if beyond(rest, config) => Effect::Unknown,
        _ => Effect::Changes,
    };
    left_over(model, "the text encoder", &config.prefix, &used, effect)
}

/// Looks at what lies in the places of text encoders and is no part of them; `seen` are the encoders.
pub(super) fn check_areas(model: &Checkpoint, slots: &[EncoderPlace], seen: &[FoundEncoder]) -> Result<()> {
    let outside = |name: &&str| {
        let at = seen.iter().find(|seen| name.starts_with(&seen.prefix));
        at.is_none() && !name.ends_with("text_projection.weight")
    };
    for slot in slots {
        let names: Vec<&str> = model.names_under(slot.area).filter(outside).collect();
        let (usual, others): (Vec<&str>, Vec<&str>) = names.into_iter().partition(|name| {
            ["logit_scale", "logit_bias", "position_ids", ".visual.", "vision_model.", "visual_projection"]
                .iter()
                .any(|part| name.contains(part))
        });
        let (changing, others): (Vec<&str>, Vec<&str>) =
            others.into_iter().partition(|name| ["lora", "adapter"].iter().any(|part| name.contains(part)));
        report(model, "the text encoder", &changing, Effect::Changes)?;
        report(model, "the text encoder", &others, Effect::Unknown)?;
        report(model, "the text encoder", &usual, Effect::Usual)?;
    }
    Ok(())
}

/// What lies beside the networks and would change them: adapters, other networks that act on them.
const CHANGING: [&str; 11] = [
    "lora_unet_",
    "lora_te",
    "lycoris_",
    "lora_prior",
    "control_model.",
    "controlnet.",
    "ip_adapter.",
    "image_proj.",
    "motion_module",
    "adapter.",
    "position_net.",
];
/// What files of trainers have beside the networks: noise schedules, averages, the state of the training, what was merged.
const USUAL_BESIDE: [&str; 26] = [
    "model.",
    "model_ema.",
    "first_stage_model.",
    "cond_stage_model.",
    "conditioner.",
    "text_encoders.",
    "vae.",
    "unet.",
    "denoiser.",
    "embedding_manager.",
    "optimizer",
    "state_dict",
    "global_step",
    "epoch",
    "alphas_cumprod",
    "betas",
    "sqrt_",
    "log_one_minus",
    "posterior_",
    "lvlb_weights",
    "logvar",
    "scale_factor",
    "v_pred",
    "ztsnr",
    "edm_",
    "bundle_emb.",
];

/// Looks at what lies beside the networks.
fn check_beside(model: &Checkpoint) -> Result<()> {
    let seen = model.encoders();
    let known = |name: &str| {
        USUAL_BESIDE.iter().any(|start| name.starts_with(start))
            || seen.iter().any(|seen| name.starts_with(&seen.prefix))
            // Of an encoder's file, beside its layers.
            || ["text_projection", "logit_scale", "position_ids", "visual."].iter().any(|part| name.contains(part))
    };
    let names: Vec<&str> = model.names().filter(|name| !known(name)).collect();
    let (changing, others): (Vec<&str>, Vec<&str>) =
        names.into_iter().partition(|name| CHANGING.iter().any(|start| name.starts_with(start)));
    report(model, "the file", &changing, Effect::Changes)?;
    report(model, "the file", &others, Effect::Unknown)
}

/// Whether a tensor is of a layer behind those that the settings count.
fn beyond(rest: &str, config: &TextConfig) -> bool {
    let layer = ["encoder.layers.", "transformer.resblocks."].iter().find_map(|at| rest.strip_prefix(at));
    let number = layer.and_then(|layer| layer.split('.').next()?.parse::<usize>().ok());
    number.is_some_and(|number| number >= config.layers)
}

fn all_there(model: &Checkpoint, used: &Used) -> Result<()> {
    // The first by name, whatever the order of a map.
    let sorted: BTreeMap<&String, &Vec<usize>> = used.iter().collect();
    sorted.into_iter().try_for_each(|(name, shape)| model.expect(name, shape))
}

/// Reports the tensors below `prefix` that no layer uses; `effect` is given the rest of a name and the full name.
fn left_over(
    model: &Checkpoint,
    network: &str,
    prefix: &str,
    used: &Used,
    effect: impl Fn(&str, &str) -> Effect,
) -> Result<()> {
    let mut by_effect: BTreeMap<Effect, Vec<&str>> = BTreeMap::new();
    for name in model.names_under(prefix).filter(|name| !used.contains_key(*name)) {
        by_effect.entry(effect(&name[prefix.len()..], name)).or_default().push(name);
    }
    // What is refused comes first, so that a warning is not followed by an error.
    by_effect.into_iter().rev().try_for_each(|(effect, names)| report(model, network, &names, effect))
}

fn report(model: &Checkpoint, network: &str, names: &[&str], effect: Effect) -> Result<()> {
    let Some(first) = names.first() else { return Ok(()) };
    let kinds = kinds(names.iter().map(|name| model.stored_name(name)));
    let file = model.file_of(first);
    match effect {
        Effect::Usual => log::debug!("{}: {network} does not take {kinds}", file.display()),
        Effect::Changes if !model.ignores_extra() => {
            return Err(model
                .fault(format!("{network} has tensors that no layer takes and that would change pictures"))
                .file(file)
                .at(model.stored_name(first))
                .found(kinds)
                .expected("no adapters, gates or further biases, which are not supported")
                .hint("pass a model without them")
                .remedy(Remedy::IgnoreExtra));
        }
        Effect::Changes => model.warn_of(
            file,
            format_args!(
                "{network} has tensors that no layer takes; they are left out, though they would change \
                 pictures: {kinds}"
            ),
        ),
        Effect::Unknown => model.warn_of(
            file,
            format_args!("{network} has tensors that no layer takes; they are left out: {kinds}"),
        ),
    }
    Ok(())
}

/// Names with `N` in place of their numbers, each kind once, with how many there are.
fn kinds<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for name in names {
        let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let parts: Vec<&str> = name.split('.').map(|part| if number(part) { "N" } else { part }).collect();
        *counts.entry(parts.join(".")).or_default() += 1;
    }
    let total: usize = counts.values().sum();
    let kinds: Vec<String> =
        counts.iter().take(MOST_KINDS).map(|(kind, count)| format!("{kind} ({count})")).collect();
    let more = match counts.len().saturating_sub(MOST_KINDS) {
        0 => String::new(),
        more => format!(" and {more} more kinds, {total} tensors in all"),
    };
    format!("{}{more}", kinds.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_grouped_by_kind() {
        let names = ["a.1.b", "a.22.b", "a.x1.b", "c"];
        assert_eq!(kinds(names.into_iter()), "a.N.b (2), a.x1.b (1), c (1)");
        let many: Vec<String> = (b'a'..=b'i').map(|c| char::from(c).to_string()).collect();
        let text = kinds(many.iter().map(String::as_str));
        assert!(text.ends_with("f (1) and 3 more kinds, 9 tensors in all"), "{text}");
    }
}
