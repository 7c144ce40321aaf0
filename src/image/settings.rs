//! Which program made a picture, by the texts that it left, and its settings in A1111's words. Programs that
//! write JSON differ in names alone, so that a table for each is all there is to them.

use serde_json::{Map, Value};

use super::infotext::Infotext;
use super::{parameters, texts};

/// What a picture tells of how it was made.
#[derive(Debug, Clone, PartialEq)]
pub struct Made {
    /// The program, as people call it.
    pub program: &'static str,
    /// Its settings; None of a program whose settings are not read.
    pub settings: Option<Infotext>,
    /// How the program's prompts differ from A1111's, where this one holds such a place.
    pub syntax: Option<&'static str>,
}

impl Made {
    fn unread(program: &'static str) -> Self {
        Self { program, settings: None, syntax: None }
    }
}

/// A program's names for A1111's pairs. Places are JSON pointers; of several the first that is there counts.
struct Words {
    program: &'static str,
    prompt: &'static [&'static str],
    negative: &'static [&'static str],
    /// Two numbers in one value.
    size: &'static [&'static str],
    pairs: &'static [(&'static str, &'static str)],
    /// Keys that tell nothing a run depends on.
    idle: &'static [&'static str],
    /// What weighs words there, and what to say of it.
    syntax: (&'static [&'static str], &'static str),
}

const SWARM: Words = Words {
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
        &["<random:", "<segment:", "<object:", "<wildcard:"],
        "words such as <segment:…> are SwarmUI's own",
    ),
};

const FOOOCUS: Words = Words {
    program: "Fooocus",
    prompt: &["/prompt", "/Prompt"],
    negative: &["/negative_prompt", "/Negative"],
    size: &["/resolution"],
    pairs: &[
        ("/base_model", "Model"),
        ("/base_model_name", "Model"),
        ("/base_model_hash", "Model hash"),
        ("/seed", "Seed"),
        ("/steps", "Steps"),
        ("/guidance_scale", "CFG scale"),
        ("/cfg", "CFG scale"),
        ("/sampler", "Sampler"),
        ("/sampler_name", "Sampler"),
        ("/scheduler", "Schedule type"),
        ("/clip_skip", "Clip skip"),
        ("/vae", "VAE"),
        ("/version", "Version"),
    ],
    idle: &["metadata_scheme", "created_by", "full_prompt", "full_negative_prompt", "loras", "software"],
    syntax: (&[], ""),
};

const INVOKE: Words = Words {
    program: "InvokeAI",
    prompt: &["/positive_prompt", "/image/prompt/0/prompt", "/image/prompt"],
    negative: &["/negative_prompt"],
    size: &[],
    pairs: &[
        ("/model/name", "Model"),
        ("/model/model_name", "Model"),
        ("/model_weights", "Model"),
        ("/seed", "Seed"),
        ("/image/seed", "Seed"),
        ("/steps", "Steps"),
        ("/image/steps", "Steps"),
        ("/cfg_scale", "CFG scale"),
        ("/image/cfg_scale", "CFG scale"),
        ("/scheduler", "Sampler"),
        ("/image/sampler", "Sampler"),
        ("/clip_skip", "Clip skip"),
        ("/strength", "Denoising strength"),
        ("/vae/name", "VAE"),
        ("/vae/model_name", "VAE"),
        ("/rand_device", "RNG"),
        ("/app_version", "Version"),
    ],
    idle: &[
        "generation_mode",
        "app_id",
        "model_hash",
        "loras",
        "positive_style_prompt",
        "negative_style_prompt",
    ],
    syntax: (&["++", "--", ")1.", ")0.", ").", "["], "words++ and (words)1.2 weigh words in InvokeAI"),
};

const NOVEL: Words = Words {
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
        ("/strength", "Denoising strength"),
        ("/Software", "Version"),
    ],
    idle: &[
        "n_samples",
        "hide_debug_overlay",
        "request_type",
        "signed_hash",
        "version",
        "Description",
        "v4_prompt",
        "v4_negative_prompt",
    ],
    syntax: (&["{", "[", "::"], "{words}, [words] and 1.2::words:: weigh words in NovelAI"),
};

const EASY: Words = Words {
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
    idle: &["num_outputs", "output_format", "original_prompt", "used_random_seed"],
    syntax: (&[], ""),
};

const DRAW_THINGS: Words = Words {
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
    ],
    // The whole of its settings once more.
    idle: &["v2", "lora", "profile"],
    syntax: (&[], ""),
};

/// What the texts (keyword, text) of a picture tell; None if they tell nothing of a program that is known, or
/// hold a workflow of ComfyUI alone.
pub fn made(texts: &[(String, String)]) -> Option<Made> {
    let find = |keyword: &str| texts.iter().find(|(k, _)| k == keyword).map(|(_, text)| text.as_str());
    let json = |keyword: &str| serde_json::from_str::<Map<String, Value>>(find(keyword)?).ok();
    if let Some(object) = json(parameters::KEYWORD) {
        return Some(match object.get("sui_image_params") {
            Some(Value::Object(inner)) => read(&SWARM, inner.clone()),
            _ if find("fooocus_scheme").is_some() || holds(&object, &["base_model", "base_model_name"]) => {
                read(&FOOOCUS, object)
            }
            _ => Made::unread("a program that writes JSON of its own"),
        });
    }
    if let Some(text) = find(parameters::KEYWORD) {
        return Some(of_a1111(text));
    }
    if let Some(object) = json("invokeai_metadata").or_else(|| json("sd-metadata")) {
        return Some(read(&INVOKE, object));
    }
    if find("Software").is_some_and(|software| software.starts_with("NovelAI"))
        && let Some(mut object) = json("Comment")
    {
        for key in ["Software", "Source", "Description"] {
            object.extend(find(key).map(|text| (key.to_owned(), text.into())));
        }
        return Some(read(&NOVEL, object));
    }
    if find("num_inference_steps").is_some() && find("prompt").is_some() {
        let all = texts.iter().map(|(keyword, text)| (keyword.clone(), text.as_str().into()));
        return Some(read(&EASY, all.collect()));
    }
    if let Some(xmp) = find(texts::XMP) {
        if let Some(text) = element(xmp, "sdcpp:parameters") {
            return Some(of_a1111(&text));
        }
        let comment = element(xmp, "exif:UserComment").and_then(|text| serde_json::from_str(&text).ok());
        if let Some(object) = comment.filter(|object: &Map<String, Value>| holds(object, &["c"])) {
            return Some(read(&DRAW_THINGS, object));
        }
    }
    if find("Dream").is_some() {
        return Some(Made::unread("an InvokeAI before version 2"));
    }
    find("Description").filter(|text| text.contains("Job ID:")).map(|_| Made::unread("Midjourney"))
}

/// Settings as A1111 writes them, by whom they are.
fn of_a1111(text: &str) -> Made {
    let settings = Infotext::parse(text);
    let version = settings.get("Version").unwrap_or_default();
    let known =
        ["sagittal", "stable-diffusion.cpp", "Fooocus"].into_iter().find(|name| version.starts_with(name));
    let forge = version.strip_prefix('f').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let program = known.unwrap_or(if forge { "Forge" } else { "A1111" });
    Made { program, settings: Some(settings), syntax: None }
}

fn holds(object: &Map<String, Value>, keys: &[&str]) -> bool {
    keys.iter().any(|key| object.contains_key(*key))
}

/// The settings of `object` by the words of a program. What the words do not know stands under its own name.
fn read(words: &Words, object: Map<String, Value>) -> Made {
    let (loras, json) = (loras(&object), Value::Object(object));
    let mut used: Vec<&str> = vec!["width", "height"];
    let mut first = |places: &'static [&'static str]| {
        used.extend(places.iter().filter_map(|place| place.split('/').nth(1)));
        places.iter().find_map(|place| told(json.pointer(place)?))
    };
    let (mut prompt, negative) = (first(words.prompt).unwrap_or_default(), first(words.negative));
    let size = first(words.size).or_else(|| {
        let side = |name: &str| told(json.get(name).or(json.pointer(&format!("/image/{name}")))?);
        Some(format!("{}x{}", side("width")?, side("height")?))
    });
    let mut settings: Vec<(String, String)> = Vec::new();
    let is_set = |settings: &[(String, String)], name: &str| settings.iter().any(|(known, _)| known == name);
    for (place, name) in words.pairs {
        used.extend(place.split('/').nth(1));
        if let Some(value) = json.pointer(place).and_then(told).filter(|_| !is_set(&settings, name)) {
            settings.extend(setting(words.program, name, value).map(|value| ((*name).to_owned(), value)));
        }
    }
    settings.extend(size.and_then(|size| Some(("Size".to_owned(), two_numbers(&size)?))));
    for (name, weight) in &loras {
        prompt.push_str(&format!(" <lora:{name}:{weight}>"));
    }
    let lora_keys = |key: &str| !loras.is_empty() && key.starts_with("lora_combined_");
    let unknown = |key: &str| !used.contains(&key) && !words.idle.contains(&key) && !lora_keys(key);
    for (key, value) in json.as_object().into_iter().flatten().filter(|(key, _)| unknown(key)) {
        settings.extend(told(value).filter(|v| v != "0" && v != "False").map(|value| (key.clone(), value)));
    }
    if !is_set(&settings, "Version") {
        settings.push(("Version".into(), words.program.into()));
    }
    let (marks, sentence) = words.syntax;
    let texts = [Some(prompt.as_str()), negative.as_deref()];
    let differs = texts.iter().flatten().any(|text| marks.iter().any(|mark| text.contains(mark)));
    let negative = negative.into_iter().collect();
    Made {
        program: words.program,
        settings: Some(Infotext { prompt, negative, settings }),
        syntax: differs.then_some(sentence),
    }
}

/// A value as A1111 has it; None where it says nothing.
fn setting(program: &str, name: &str, value: String) -> Option<String> {
    match name {
        // SwarmUI counts from the end with a minus, InvokeAI the layers that are left out.
        "Clip skip" => match (program, value.parse::<i64>()) {
            ("InvokeAI", Ok(skipped)) => (skipped > 0).then(|| (skipped + 1).to_string()),
            (_, Ok(layer)) => Some(layer.unsigned_abs().to_string()).filter(|layer| layer != "0"),
            _ => Some(value),
        },
        "Denoising strength" => (value.parse() != Ok(1.0)).then_some(value),
        "RNG" => Some(value.to_uppercase()),
        _ => Some(value),
    }
}

/// A value as text; None for one that says nothing.
fn told(value: &Value) -> Option<String> {
    let text = match value {
        Value::Null => return None,
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::String(text) => text.clone(),
        Value::Array(all) if all.is_empty() => return None,
        Value::Object(all) if all.is_empty() => return None,
        other => other.to_string(),
    };
    Some(text).filter(|text| !text.is_empty())
}

/// `WxH` of the first two whole numbers in `text`.
fn two_numbers(text: &str) -> Option<String> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
    Some(format!("{}x{}", numbers.next()?, numbers.next()?))
}

/// LoRAs (name, weight) in the ways of the programs above.
fn loras(object: &Map<String, Value>) -> Vec<(String, String)> {
    const NAMES: [&str; 6] =
        ["/model/name", "/model/model_name", "/lora/name", "/lora/model_name", "/file", "/name"];
    let plain = |name: &str| {
        let stem = [".safetensors", ".ckpt", ".pt"].iter().find_map(|end| name.strip_suffix(end));
        // What ends a name in a tag cannot stand in it.
        stem.unwrap_or(name).trim().replace([':', '<', '>'], "")
    };
    let list = object.get("loras").or(object.get("lora")).and_then(Value::as_array);
    let weights = object.get("loraweights").and_then(Value::as_array);
    let one = |(at, entry): (usize, &Value)| {
        let (name, weight) = match entry {
            Value::String(name) => (Some(name.as_str()), weights.and_then(|weights| weights.get(at))),
            Value::Array(pair) => (pair.first().and_then(Value::as_str), pair.get(1)),
            entry => (NAMES.iter().find_map(|place| entry.pointer(place)?.as_str()), entry.get("weight")),
        };
        Some((plain(name?), weight.and_then(told).unwrap_or_else(|| "1".into())))
    };
    let mut found: Vec<(String, String)> = list.into_iter().flatten().enumerate().filter_map(one).collect();
    if found.is_empty() {
        let combined = object.iter().filter(|(key, _)| key.starts_with("lora_combined_"));
        let pair = |text: &str| {
            text.rsplit_once(" : ").map(|(name, weight)| (plain(name), weight.trim().to_owned()))
        };
        found.extend(combined.filter_map(|(_, value)| pair(value.as_str()?)));
    }
    found.retain(|(name, weight)| !name.is_empty() && weight.parse::<f32>().is_ok());
    found
}

/// The text in the first element called `name` of an XML document, in whatever elements it is wrapped.
fn element(xml: &str, name: &str) -> Option<String> {
    let (_, after) = xml.split_once(&format!("<{name}"))?;
    let (_, inside) = after.split_once('>')?;
    let (inside, _) = inside.split_once(&format!("</{name}>"))?;
    let mut text = String::new();
    let mut rest = inside;
    while let Some((before, tag)) = rest.split_once('<') {
        text.push_str(before);
        rest = tag.split_once('>').map_or("", |(_, after)| after);
    }
    text.push_str(rest);
    Some(unescaped(text.trim()))
}

/// Text without XML's five names and its numbers for letters.
fn unescaped(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        let letter = after.split_once(';').and_then(|(name, after)| {
            let number = |digits: &str, base| u32::from_str_radix(digits, base).ok().and_then(char::from_u32);
            let letter = match name {
                "amp" => Some('&'),
                "lt" => Some('<'),
                "gt" => Some('>'),
                "quot" => Some('"'),
                "apos" => Some('\''),
                _ => match name.strip_prefix('#')? {
                    hex if hex.starts_with('x') => number(hex.get(1..)?, 16),
                    digits => number(digits, 10),
                },
            };
            Some((letter?, after))
        });
        match letter {
            Some((letter, after)) => {
                out.push(letter);
                rest = after;
            }
            None => {
                out.push('&');
                rest = after;
            }
        }
    }
    out + rest
}
