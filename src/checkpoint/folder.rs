//! Folders: a whole pipeline in the diffusers layout, or one of its parts.
#![warn(clippy::indexing_slicing, clippy::string_slice)]

use std::path::Path;

use serde_json::Value;

use super::named_tensors::Checkpoint;
use super::{other_formats, shards};
use crate::{Error, ErrorKind, Result};

const INDEX: &str = "model_index.json";
/// The folders of the text encoders, in the order of their outputs.
const TEXT_FOLDERS: [&str; 2] = ["text_encoder", "text_encoder_2"];

/// Opens a folder.
pub(super) fn open(folder: &Path) -> Result<Checkpoint> {
    let pipeline = folder.join(INDEX);
    if pipeline.is_file() || folder.join("unet").is_dir() {
        return pipeline_of(folder, &pipeline);
    }
    part_of(folder)?.ok_or_else(|| other_formats::directory(folder))
}

/// Opens the parts that are there. A missing VAE or text encoder is not an error yet: it may be
/// laid over the rest afterwards.
fn pipeline_of(folder: &Path, index: &Path) -> Result<Checkpoint> {
    let class = if index.is_file() { class_of(index)? } else { String::new() };
    let Some(mut model) = part(folder, "unet")? else {
        return Err(Error::new(ErrorKind::Model, "the folder has no UNet")
            .file(folder)
            .expected("a folder unet with diffusion_pytorch_model.safetensors")
            .found(if class.is_empty() { "a folder without it".into() } else { class })
            .hint("only pipelines of Stable Diffusion 1, 2 and XL are known; fetch the whole folder"));
    };
    model.file = folder.into();
    if let Some(vae) = part(folder, "vae")? {
        model = model.with_vae(vae)?;
    }
    for name in TEXT_FOLDERS {
        if let Some(text) = part(folder, name)? {
            model = model.with_text_encoder(text)?;
        }
    }
    // The folder's own may be laid over once more.
    model.overlaid.clear();
    Ok(model)
}

/// The pipeline's class, such as `StableDiffusionXLPipeline`.
fn class_of(index: &Path) -> Result<String> {
    let value = shards::json(index)?;
    let members = value.as_object().ok_or_else(|| {
        Error::new(ErrorKind::File, "not a list of a pipeline's parts")
            .file(index)
            .hint("fetch the file again")
    })?;
    let class = members.get("_class_name").and_then(Value::as_str).unwrap_or_default();
    Ok(class.chars().filter(|c| !c.is_control()).take(80).collect())
}

/// One part of the pipeline.
fn part(folder: &Path, name: &str) -> Result<Option<Checkpoint>> {
    let path = folder.join(name);
    if path.is_dir() { part_of(&path) } else { Ok(None) }
}

/// A folder of one network, under the original names where they do not depend on another part, with
/// the settings beside its weights.
fn part_of(folder: &Path) -> Result<Option<Checkpoint>> {
    let Some(mut part) = shards::open(folder)? else { return Ok(None) };
    part.file = folder.into();
    part = part.in_original_layout()?;
    part.note_part(folder)?;
    Ok(Some(part))
}
