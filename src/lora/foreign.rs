//! What a file is that is no LoRA known here, and which family a LoRA was made for.

use std::borrow::Cow;

use super::change::{Change, Kind};
use super::file::Lora;
use crate::checkpoint::Checkpoint;
use crate::{Error, Remedy, Resource, Result};

/// Ends of tensor names (or parts, if they end with `_`) that tell another kind of change, and its name.
const OTHER_KINDS: [(&str, &str); 6] = [
    (".on_input", "an IA3"),
    (".oft_diag", "an old form of OFT"),
    (".oft_R.weight", "PEFT's OFT"),
    (".boft_R", "PEFT's BOFT"),
    (".vera_lambda_", "a VeRA (shared random matrices)"),
    (".bias_values", "a LoRA with sparse differences"),
];

/// Refuses a file of changes that would come out wrong as a LoRA.
///
/// # Errors
/// [`ErrorKind::Model`](crate::ErrorKind::Model), naming the kind.
pub(super) fn refuse_other_kinds(tensors: &Checkpoint) -> Result<()> {
    for (part, kind) in OTHER_KINDS {
        let tells = |name: &&str| name.ends_with(part) || (part.ends_with('_') && name.contains(part));
        if let Some(name) = tensors.names().find(tells) {
            return Err(tensors
                .fault("this kind of model change is not supported")
                .at(name)
                .expected("a LoRA, LoCon, DoRA, LoHa, LoKr, GLoRA, OFT, BOFT or differences")
                .found(kind)
                .hint("merge it into a checkpoint with the program that made it, and pass that"));
        }
    }
    Ok(())
}

/// Parts of names that tell what a file without LoRA matrices is, and what to do with it.
const NO_LORA: [(&str, &str, Remedy); 8] = [
    ("model.diffusion_model.", "a checkpoint", Remedy::UseAs(Resource::Checkpoint)),
    ("emb_params", EMBEDDING, Remedy::UseAs(Resource::Embedding)),
    ("string_to_param", EMBEDDING, Remedy::UseAs(Resource::Embedding)),
    ("clip_g", EMBEDDING, Remedy::UseAs(Resource::Embedding)),
    ("control", "a ControlNet", Remedy::Advice(Cow::Borrowed("it is not supported"))),
    ("down_blocks.", "a part of a model in the diffusers layout", Remedy::Pass(Resource::Lora)),
    ("first_stage_model.", "a VAE", Remedy::UseAs(Resource::Vae)),
    ("text_model.", "a text encoder", Remedy::UseAs(Resource::TextEncoder)),
];
const EMBEDDING: &str = "a textual-inversion embedding";

/// The error for a file without any LoRA matrices.
pub(super) fn not_a_lora(tensors: &Checkpoint) -> Error {
    let error = tensors
        .fault("no LoRA")
        .expected("names that end in .lora_down.weight, .lora_A.weight, .hada_w1_a or the like");
    let known = NO_LORA.iter().find(|(part, ..)| tensors.names().any(|name| name.contains(part)));
    let first: Vec<&str> = tensors.names().take(3).collect();
    match known {
        Some((_, what, remedy)) => error.found(*what).remedy(remedy.clone()),
        None if first.is_empty() => error.found("a file without tensors").hint("fetch the file again"),
        None => error.found(format!("{} tensors such as {}", tensors.names().len(), first.join(", "))),
    }
}

/// What training programs write into a file: `modelspec.architecture` and `ss_base_model_version`.
const VERSIONS: [(&str, &str); 8] = [
    ("stable-diffusion-xl", "SDXL"),
    ("sdxl", "SDXL"),
    ("stable-diffusion-v1", "SD 1"),
    ("sd_v1", "SD 1"),
    ("stable-diffusion-v2", "SD 2"),
    ("sd_v2", "SD 2"),
    ("flux", "Flux"),
    ("sd3", "SD 3"),
];

/// Parts of module names that only one family has.
const MODULES: [(&str, &str); 5] = [
    ("double_blocks", "a diffusion transformer (such as Flux or SD 3)"),
    ("joint_blocks", "a diffusion transformer (such as Flux or SD 3)"),
    ("transformer_blocks_0_attn_", "a diffusion transformer (such as Flux or SD 3)"),
    ("lora_te2_", "SDXL"),
    ("text_encoder_2", "SDXL"),
];

/// The family that a LoRA seems to be made for: as the file says, or by what it changes.
pub(super) fn made_for(lora: &Lora) -> Option<&'static str> {
    let metadata = lora.tensors.metadata();
    let said = ["modelspec.architecture", "ss_base_model_version"].iter().find_map(|key| {
        let value = metadata.get(*key)?.to_lowercase();
        VERSIONS.iter().find(|(start, _)| value.starts_with(start)).map(|(_, family)| *family)
    });
    let has = |part: &str| lora.changes.iter().any(|c| c.module.replace('.', "_").contains(part));
    let named = || MODULES.iter().find(|(part, _)| has(part)).map(|(_, family)| *family);
    said.or_else(named).or_else(|| by_width(lora))
}

/// Cross-attention reads tokens of the text encoder's width, which differs in each family.
fn by_width(lora: &Lora) -> Option<&'static str> {
    let reads_text = |module: &str| ["attn2.to_k", "attn2_to_k"].iter().any(|end| module.ends_with(end));
    let of_pair = |change: &Change| match &change.kind {
        Kind::Pair { down, .. } if reads_text(&change.module) => lora.shape(down).get(1).copied(),
        _ => None,
    };
    match lora.changes.iter().find_map(of_pair)? {
        768 => Some("SD 1"),
        1024 => Some("SD 2"),
        2048 => Some("SDXL"),
        _ => None,
    }
}
