//! What a file is that is no LoRA known here.
#![warn(clippy::indexing_slicing, clippy::string_slice)]

use std::borrow::Cow;

use crate::checkpoint::Checkpoint;
use crate::{Error, Remedy, Resource, Result};

/// Ends of tensor names (or parts, if they end with `_`) that show another kind of change, and its name.
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
        let shows = |name: &&str| name.ends_with(part) || (part.ends_with('_') && name.contains(part));
        if let Some(name) = tensors.names().find(shows) {
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

/// Parts of names that show what a file without LoRA matrices is, and what to do with it.
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
