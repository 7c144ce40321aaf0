//! The words of each program: its names for A1111's pairs, and what a table cannot say.
#![warn(clippy::indexing_slicing, clippy::string_slice)]

use serde_json::Value;

use super::super::infotext::Infotext;
use super::values::as_text;

/// A program's names for A1111's pairs. Places are JSON pointers; of several the first that is there counts.
pub(super) struct Words {
    pub program: &'static str,
    pub prompt: &'static [&'static str],
    pub negative: &'static [&'static str],
    /// Two numbers in one value.
    pub size: &'static [&'static str],
    pub pairs: &'static [(&'static str, &'static str)],
    /// Keys of nothing that a run depends on, or that [`more`](Self::more) reads.
    pub idle: &'static [&'static str],
    /// What weighs words there, and what to say of it.
    pub syntax: (&'static [&'static str], &'static str),
    /// What a table cannot say, out of all of the object.
    pub more: fn(&Value, &mut Infotext),
}

fn add(settings: &mut Infotext, name: &str, value: impl Into<String>) {
    settings.settings.push((name.into(), value.into()));
}

/// The picture was started from another, whose name is not stored.
fn started(settings: &mut Infotext, strength: Option<String>) {
    add(settings, "Init image", "");
    if let Some(strength) = strength {
        add(settings, "Denoising strength", strength);
    }
}

pub(super) const SWARM: Words = Words {
    program: "SwarmUI",
    prompt: &["/prompt"],
    negative: &["/negativeprompt"],
    size: &[],
    pairs: &[
        ("/model", "Model"),
        ("/seed", "Seed"),
        ("/steps", "Steps"),
        ("/cfgscale", "CFG scale"),
        ("/sampler", "Sampler"),
        ("/comfyuisampler", "Sampler"),
        ("/scheduler", "Schedule type"),
        ("/comfyuischeduler", "Schedule type"),
        ("/clipstopatlayer", "Clip skip"),
        ("/initimagecreativity", "Denoising strength"),
        ("/vae", "VAE"),
        ("/swarm_version", "Version"),
    ],
    idle: &["images", "aspectratio", "automaticvae", "loras", "loraweights", "original_prompt"],
    syntax: (
        &[
            "<random:",
            "<segment:",
            "<object:",
            "<wildcard:",
            "<region:",
            "<break>",
            "<base",
            "<refiner",
            "<extend:",
            "<alternate:",
            "<fromto[",
        ],
        "words such as <segment:…> are SwarmUI's own",
    ),
    more: of_swarm,
};

/// Noise is that of ComfyUI's CPU; embeddings are written as a tag.
fn of_swarm(_: &Value, settings: &mut Infotext) {
    add(settings, "RNG", "CPU");
    for text in std::iter::once(&mut settings.prompt).chain(&mut settings.negative) {
        let mut out = String::new();
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once("<embed:") {
            // A mark without an end is text.
            let Some((name, behind)) = after.split_once('>') else { break };
            out.push_str(before);
            let stem = [".safetensors", ".pt", ".bin"].iter().find_map(|end| name.strip_suffix(end));
            out.push_str(&format!("embedding:{}", stem.unwrap_or(name)));
            rest = behind;
        }
        *text = out + rest;
    }
}

pub(super) const FOOOCUS: Words = Words {
    program: "Fooocus",
    // What styles made of the words is what was drawn.
    prompt: &["/full_prompt", "/prompt"],
    negative: &["/full_negative_prompt", "/negative_prompt"],
    size: &["/resolution"],
    pairs: &[
        ("/base_model", "Model"),
        ("/base_model_hash", "Model hash"),
        ("/seed", "Seed"),
        ("/steps", "Steps"),
        ("/guidance_scale", "CFG scale"),
        ("/sampler", "Sampler"),
        ("/scheduler", "Schedule type"),
        ("/clip_skip", "Clip skip"),
        ("/vae", "VAE"),
        ("/version", "Version"),
    ],
    idle: &["metadata_scheme", "created_by", "loras", "styles"],
    syntax: (&[], ""),
    more: on_cpu,
};

/// Noise is ComfyUI's, of the CPU.
fn on_cpu(_: &Value, settings: &mut Infotext) {
    add(settings, "RNG", "CPU");
}

pub(super) const RUINED: Words = Words {
    program: "RuinedFooocus",
    prompt: &["/Prompt"],
    negative: &["/Negative"],
    size: &["/resolution"],
    pairs: &[
        ("/base_model_name", "Model"),
        ("/base_model_hash", "Model hash"),
        ("/seed", "Seed"),
        ("/steps", "Steps"),
        ("/cfg", "CFG scale"),
        ("/sampler_name", "Sampler"),
        ("/scheduler", "Schedule type"),
        ("/clip_skip", "Clip skip"),
        ("/denoise", "Denoising strength"),
        ("/vae", "VAE"),
    ],
    idle: &["loras", "software", "start_step"],
    syntax: (&[], ""),
    more: on_cpu,
};

pub(super) const INVOKE: Words = Words {
    program: "InvokeAI",
    prompt: &["/positive_prompt", "/image/prompt/0/prompt", "/image/prompt"],
    negative: &["/negative_prompt"],
    size: &[],
    pairs: &[
        ("/model/name", "Model"),
        ("/model/model_name", "Model"),
        ("/model_weights", "Model"),
        ("/model_id", "Model"),
        ("/seed", "Seed"),
        ("/image/seed", "Seed"),
        ("/steps", "Steps"),
        ("/image/steps", "Steps"),
        ("/cfg_scale", "CFG scale"),
        ("/image/cfg_scale", "CFG scale"),
        ("/scheduler", "Sampler"),
        ("/image/sampler", "Sampler"),
        ("/clip_skip", "Clip skip"),
        ("/vae/name", "VAE"),
        ("/vae/model_name", "VAE"),
        ("/rand_device", "RNG"),
        ("/app_version", "Version"),
    ],
    idle: &[
        "generation_mode",
        "strength",
        "app_id",
        "model_hash",
        "loras",
        "positive_style_prompt",
        "negative_style_prompt",
        "canvas_v2_metadata",
    ],
    syntax: (&["++", "--", ")1.", ")0.", ").", "["], "words++ and (words)1.2 weigh words in InvokeAI"),
    more: of_invoke,
};

/// How the picture came about: since version 5 by the mode alone, before 3 in a part of its own. Samplers of
/// version 2 had names of their own.
fn of_invoke(all: &Value, settings: &mut Infotext) {
    let text = |place: &str| all.pointer(place).and_then(as_text);
    let mode = text("/generation_mode").or_else(|| text("/image/type"));
    let strength = ["/strength", "/image/strength"].iter().find_map(|place| text(place));
    match mode {
        Some(mode) if mode.ends_with("txt2img") => {}
        Some(_) => started(settings, strength),
        None => {
            let less = strength.filter(|strength| strength.parse() != Ok(1.0));
            less.into_iter().for_each(|strength| add(settings, "Denoising strength", strength));
        }
    }
    if all.get("image").is_some() {
        let old = [("k_dpmpp_2", "dpmpp_2m"), ("k_dpmpp_2_a", "dpmpp_2s_ancestral")];
        for (_, value) in settings.settings.iter_mut().filter(|(name, _)| name == "Sampler") {
            if let Some((_, own)) = old.iter().find(|(old, _)| old == value) {
                *value = (*own).to_owned();
            }
        }
    }
    // Of several weighed prompts only the first is read.
    let more = all.pointer("/image/prompt").and_then(Value::as_array).map_or(0, Vec::len);
    if more > 1 {
        add(settings, "further prompts", (more - 1).to_string());
    }
}

pub(super) const NOVEL: Words = Words {
    program: "NovelAI",
    prompt: &["/prompt", "/Description"],
    negative: &["/uc"],
    size: &[],
    pairs: &[
        ("/Source", "Model"),
        ("/seed", "Seed"),
        ("/steps", "Steps"),
        ("/scale", "CFG scale"),
        ("/sampler", "Sampler"),
        ("/noise_schedule", "Schedule type"),
        ("/Software", "Version"),
    ],
    idle: &[
        "n_samples",
        "hide_debug_overlay",
        "request_type",
        "strength",
        "noise",
        "signed_hash",
        "version",
        "Description",
        "v4_prompt",
        "v4_negative_prompt",
    ],
    syntax: (&["{", "[", "::"], "{words}, [words] and 1.2::words:: weigh words in NovelAI"),
    more: of_novel,
};

/// There is a strength for pictures made from text, too.
fn of_novel(all: &Value, settings: &mut Infotext) {
    let text = |key: &str| all.get(key).and_then(as_text);
    if text("request_type").is_some_and(|kind| ["Img2ImgRequest", "NativeInfillingRequest"].contains(&&*kind))
    {
        started(settings, text("strength"));
    }
}

pub(super) const EASY: Words = Words {
    program: "Easy Diffusion",
    prompt: &["/prompt"],
    negative: &["/negative_prompt"],
    size: &[],
    pairs: &[
        ("/use_stable_diffusion_model", "Model"),
        ("/seed", "Seed"),
        ("/num_inference_steps", "Steps"),
        ("/guidance_scale", "CFG scale"),
        ("/sampler_name", "Sampler"),
        ("/sampler", "Sampler"),
        ("/scheduler_name", "Schedule type"),
        ("/prompt_strength", "Denoising strength"),
        ("/use_vae_model", "VAE"),
    ],
    idle: &[
        "num_outputs",
        "output_format",
        "original_prompt",
        "used_random_seed",
        "clip_skip",
        "use_lora_model",
        "lora_alpha",
    ],
    syntax: (&[], ""),
    more: of_easy,
};

/// Its clip skip is a switch; samplers without a schedule of their own use that of Karras.
fn of_easy(all: &Value, settings: &mut Infotext) {
    if all.get("clip_skip").and_then(as_text).is_some_and(|skip| skip.eq_ignore_ascii_case("true")) {
        add(settings, "Clip skip", "2");
    }
    const KARRAS: [&str; 4] = ["dpmpp_2m", "dpmpp_2m_sde", "dpmpp_sde", "dpmpp_2s_a"];
    let is_karras = settings.get("Sampler").is_some_and(|name| KARRAS.contains(&name));
    if settings.get("Schedule type").is_none() && is_karras {
        add(settings, "Schedule type", "karras");
    }
}

/// What Easy Diffusion calls its keys where it writes them as for a text file.
pub(super) const EASY_LABELS: [(&str, &str); 15] = [
    ("Prompt", "prompt"),
    ("Negative Prompt", "negative_prompt"),
    ("Seed", "seed"),
    ("Stable Diffusion model", "use_stable_diffusion_model"),
    ("Clip Skip", "clip_skip"),
    ("VAE model", "use_vae_model"),
    ("Sampler", "sampler_name"),
    ("Scheduler", "scheduler_name"),
    ("Steps", "num_inference_steps"),
    ("Guidance Scale", "guidance_scale"),
    ("Width", "width"),
    ("Height", "height"),
    ("Prompt Strength", "prompt_strength"),
    ("LoRA model", "use_lora_model"),
    ("LoRA Strength", "lora_alpha"),
];

pub(super) const DRAW_THINGS: Words = Words {
    program: "Draw Things",
    prompt: &["/c"],
    negative: &["/uc"],
    size: &["/size"],
    pairs: &[
        ("/model", "Model"),
        ("/seed", "Seed"),
        ("/steps", "Steps"),
        ("/scale", "CFG scale"),
        ("/sampler", "Sampler"),
        ("/strength", "Denoising strength"),
        ("/clip_skip", "Clip skip"),
        ("/original_size", "Original size"),
        ("/target_size", "Target size"),
    ],
    // The whole of its settings once more.
    idle: &["v2", "lora", "profile", "seed_mode", "crop_top", "crop_left"],
    syntax: (&[], ""),
    more: of_draw_things,
};

/// Whose generator draws the noise, and SDXL's corner.
fn of_draw_things(all: &Value, settings: &mut Infotext) {
    let text = |key: &str| all.get(key).and_then(as_text);
    match text("seed_mode").as_deref() {
        Some("Torch CPU Compatible") => add(settings, "RNG", "CPU"),
        Some("NVIDIA GPU Compatible") => add(settings, "RNG", "GPU"),
        Some(other) => add(settings, "RNG", other),
        None => {}
    }
    if let (Some(top), Some(left)) = (text("crop_top"), text("crop_left")) {
        add(settings, "Crop", format!("{top}/{left}"));
    }
}
