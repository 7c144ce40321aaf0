//! Which program made a picture, by the texts that it left, and its settings in A1111's words. Programs that
//! write JSON differ in names alone, so that a table for each is all there is to them.
#![warn(clippy::indexing_slicing, clippy::string_slice)]

mod loras;
mod programs;
mod read;
mod values;

use serde_json::{Map, Value};

use super::infotext::{Infotext, KEYWORD};
use super::texts;
use programs::{DRAW_THINGS, EASY, FOOOCUS, INVOKE, NOVEL, RUINED, SWARM};
pub use read::Made;
use read::read;

/// What the texts (keyword, text) of a picture say; None if they say nothing of a program that is known, or
/// hold a workflow of ComfyUI alone.
pub fn made(texts: &[(String, String)]) -> Option<Made> {
    let find = |keyword: &str| texts.iter().find(|(k, _)| k == keyword).map(|(_, text)| text.as_str());
    let json = |keyword: &str| serde_json::from_str::<Map<String, Value>>(find(keyword)?).ok();
    // SwarmUI of a day in November 2023 used ComfyUI's keyword; in JPEGs it does so with the camera's fields.
    let swarm = |object: &Map<String, Value>| match object.get("sui_image_params") {
        Some(Value::Object(inner)) => Some(read(&SWARM, inner.clone())),
        _ => None,
    };
    if let Some(made) = [KEYWORD, "prompt", "Model"].iter().find_map(|key| swarm(&json(key)?)) {
        return Some(made);
    }
    if let Some(object) = json(KEYWORD) {
        let words = match &object {
            object if object.contains_key("base_model_name") => &RUINED,
            object if find("fooocus_scheme").is_some() || object.contains_key("base_model") => &FOOOCUS,
            object if object.contains_key("num_inference_steps") => &EASY,
            object if object.contains_key("c") && object.contains_key("uc") => &DRAW_THINGS,
            _ => return Some(Made::unread("a program that writes JSON of its own")),
        };
        return Some(read(words, object));
    }
    if let Some(text) = find(KEYWORD) {
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
    if find("Stable Diffusion model").is_some() && find("Guidance Scale").is_some() {
        let name =
            |label: &str| programs::EASY_LABELS.iter().find(|(own, _)| *own == label).map(|(_, key)| *key);
        let all =
            texts.iter().map(|(label, text)| (name(label).unwrap_or(label).to_owned(), text.as_str().into()));
        return Some(read(&EASY, all.collect()));
    }
    if let Some(xmp) = find(texts::XMP) {
        if let Some(text) = element(xmp, "sdcpp:parameters") {
            return Some(of_a1111(&text));
        }
        let comment = element(xmp, "exif:UserComment").and_then(|text| serde_json::from_str(&text).ok());
        if let Some(object) = comment.filter(|object: &Map<String, Value>| object.contains_key("c")) {
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
    let mut settings = Infotext::parse(text);
    // Fooocus has a word of its own in what else are A1111's.
    if settings.get("Schedule type").is_none() {
        let own = settings.settings.iter_mut().find(|(name, _)| name == "Scheduler");
        own.into_iter().for_each(|(name, _)| *name = "Schedule type".into());
    }
    let version = settings.get("Version").unwrap_or_default();
    let known =
        ["sagittal", "stable-diffusion.cpp", "Fooocus"].into_iter().find(|name| version.starts_with(name));
    let forge = version.strip_prefix('f').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let program = known.unwrap_or(if forge { "Forge" } else { "A1111" });
    Made { program, settings: Some(settings), syntax: None }
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
