//! Recognises sound safetensors files that are no Stable Diffusion checkpoint, by their names.

use super::named_tensors::Checkpoint;
use crate::Result;

/// Parts of names that give a kind of model away, what it is, and what to do.
struct Sign {
    parts: &'static [&'static str],
    what: &'static str,
    hint: &'static str,
}

const FULL: &str = "pass a full checkpoint (UNet, VAE and text encoder in one file)";
const PART: &str = "pass a checkpoint, or a UNet's file, and this beside it as VAE or text encoder";
const OTHER: &str = "only networks of the Stable Diffusion 1, 2 and XL families are known";

/// The first sign that any name contains decides: from the particular to the general.
const SIGNS: &[Sign] = &[
    Sign {
        parts: &["hada_w1", "lokr_w", "oft_blocks", ".dora_scale"],
        what: "a relative of LoRA (LoHa, LoKr, OFT or DoRA)",
        hint: "it changes a checkpoint and cannot be run alone: pass the checkpoint",
    },
    Sign {
        parts: &["lora_unet_", "lora_te", ".lora_A.", ".lora_up.", ".lora_down."],
        what: "a LoRA",
        hint: "it changes a checkpoint and cannot be run alone: pass the checkpoint",
    },
    Sign { parts: &["control_model.", "controlnet_", "input_hint_block."], what: "a ControlNet", hint: FULL },
    Sign { parts: &["ip_adapter.", "image_proj."], what: "an IP-Adapter", hint: FULL },
    Sign {
        parts: &["motion_modules.", "motion_module."],
        what: "a motion module of AnimateDiff",
        hint: FULL,
    },
    Sign {
        parts: &["RRDB_trunk.", "body.0.rdb1.", "model.1.sub.0.RDB1.", "upsampler.0.weight"],
        what: "an upscaler of pictures",
        hint: FULL,
    },
    Sign {
        parts: &[".SelfAttention.relative_attention_bias"],
        what: "T5, a text encoder of others",
        hint: OTHER,
    },
    Sign { parts: &["vision_model."], what: "an encoder of pictures (CLIP vision)", hint: FULL },
    Sign {
        parts: &["emb_params", "string_to_param"],
        what: "a textual-inversion embedding",
        hint: "prompts name it, as embedding:NAME: pass the checkpoint",
    },
    Sign {
        parts: &["taesd", "decoder.layers.", "encoder.layers.0.weight", "3.conv.0.weight"],
        what: "a tiny autoencoder for previews (TAESD)",
        hint: "it is not supported: previews are drawn without one, and pictures need the family's whole VAE",
    },
    Sign {
        parts: &["double_blocks.", "joint_blocks.", "single_transformer_blocks."],
        what: "a diffusion transformer (such as Flux or SD3)",
        hint: OTHER,
    },
    Sign {
        parts: &["down_blocks.0.", "mid_block."],
        what: "an incomplete part of a model in the diffusers layout",
        hint: "pass the model's whole folder, or its single-file version",
    },
    Sign { parts: &["decoder.up.0.", "decoder.up_blocks."], what: "a VAE without a UNet", hint: PART },
    Sign { parts: &["text_model.encoder.", "resblocks."], what: "a text encoder without a UNet", hint: PART },
    Sign { parts: &["model_ema."], what: "an EMA copy without the network itself", hint: FULL },
    Sign { parts: &["model.layers."], what: "a language model", hint: OTHER },
];

/// Refuses a file that holds no UNet of this family, or one whose weights need more than decoding.
///
/// # Errors
/// [`ErrorKind::Model`](crate::ErrorKind::Model), saying what the file seems to be.
pub(crate) fn refuse_foreign(model: &Checkpoint) -> Result<()> {
    refuse_quantised(model)?;
    if let Some(name) = name_with(model, &["time_stack.", "time_mixer", "temporal_transformer"]) {
        return Err(model.fault("a video model").at(name).hint(OTHER));
    }
    // Networks of known shape that are to be sampled in a way of their own.
    for (mark, what) in [
        ("edm_mean", "a model with EDM's scaling of latents (Playground 2.5)"),
        ("edm_std", "a model with EDM's scaling of latents (Playground 2.5)"),
        ("edm_vpred.sigma_max", "a model with EDM's noise levels (CosXL)"),
        ("edm_vpred.sigma_min", "a model with EDM's noise levels (CosXL)"),
        (
            "model.diffusion_model.time_embed.cond_proj.weight",
            "a network that takes its guidance scale as an input (LCM)",
        ),
    ] {
        if model.has(mark) {
            return Err(model.fault("this kind of model is not supported").at(mark).found(what).hint(OTHER));
        }
    }
    if model.has("model.diffusion_model.input_blocks.0.0.weight") {
        return Ok(());
    }
    let error = model
        .fault("no Stable Diffusion checkpoint")
        .expected("tensors under model.diffusion_model.input_blocks");
    if model.names().len() == 0 {
        return Err(error.found("a file without tensors").hint("fetch the file again"));
    }
    let sign = SIGNS.iter().find(|sign| name_with(model, sign.parts).is_some());
    Err(match sign {
        Some(sign) => error.found(sign.what).hint(sign.hint),
        None if model.has("input_blocks.0.0.weight") => error.found("an incomplete UNet").hint(FULL),
        None => error.found(examples(model)).hint(FULL),
    })
}

/// What a file seems to be that is no checkpoint.
pub(super) fn seems(model: &Checkpoint) -> Option<&'static str> {
    SIGNS.iter().find(|sign| name_with(model, sign.parts).is_some()).map(|sign| sign.what)
}

/// Weights stored with a scale of their own would decode without complaint, to wrong values.
pub(super) fn refuse_quantised(model: &Checkpoint) -> Result<()> {
    const SIGNS: [&str; 11] = [
        ".scale_weight",
        ".weight_scale",
        ".scale_input",
        ".input_scale",
        "scaled_fp8",
        ".comfy_quant",
        ".quant_state.",
        ".quant_map",
        ".absmax",
        ".qweight",
        ".weight_scb",
    ];
    let sign = |name: &&str| {
        let name = name.to_ascii_lowercase();
        SIGNS.iter().any(|sign| name.contains(sign))
    };
    match model.names().find(sign) {
        None => Ok(()),
        Some(name) => Err(model
            .fault("the weights are quantised with scales")
            .at(name)
            .hint("pass the checkpoint as F32, F16, BF16 or plain F8")),
    }
}

fn name_with<'a>(model: &'a Checkpoint, parts: &[&str]) -> Option<&'a str> {
    model.names().find(|name| parts.iter().any(|part| name.contains(part)))
}

/// The first names, so that the reader can see what the file is.
fn examples(model: &Checkpoint) -> String {
    let names: Vec<&str> = model.names().take(3).collect();
    format!("{} tensors such as {}", model.names().len(), names.join(", "))
}
