//! Files of weights: whole models, single networks, LoRAs and embeddings.

use std::path::Path;

use super::facts::{EmbeddingFacts, Inspected, LoraFacts, ModelFacts, Part, Tally};
use crate::checkpoint::{Checkpoint, WIDTHS, refuse_foreign};
use crate::lora::Lora;
use crate::model::config::{TextConfig, VaeConfig};
use crate::model::{DiffusionConfig, ModelConfig};
use crate::text::embedding_files;
use crate::{Error, Result};

/// Names of the networks' parts, by what their tensors' names begin with in the original layout or in
/// a file of their own; the first that fits counts.
const PARTS: [(&str, &str); 20] = [
    ("model.diffusion_model.", "UNet"),
    ("first_stage_model.", "VAE"),
    ("cond_stage_model.", "text encoder"),
    ("conditioner.embedders.0.", "text encoder 1"),
    ("conditioner.embedders.1.", "text encoder 2"),
    ("model_ema.", "EMA copy of the UNet"),
    ("text_model.", "text encoder"),
    ("transformer.text_model.", "text encoder"),
    ("transformer.resblocks.", "text encoder"),
    ("text_encoders.", "text encoder"),
    ("clip_l.", "text encoder"),
    ("clip_g.", "text encoder"),
    ("clip_h.", "text encoder"),
    // As OpenAI and OpenCLIP name them in files of their own.
    ("token_embedding.", "text encoder"),
    ("positional_embedding", "text encoder"),
    ("ln_final.", "text encoder"),
    ("text_projection", "text encoder"),
    ("visual.", "image encoder"),
    ("vision_model.", "image encoder"),
    ("visual_projection.", "image encoder"),
];
/// What belongs to no network: noise schedules, marks, positions.
const REST: &str = "other tensors";

/// Looks at weights.
pub(super) fn inspect(path: &Path) -> Result<Inspected> {
    of_checkpoint(Checkpoint::open(path)?)
}

/// Looks at what an open file holds.
pub(super) fn of_checkpoint(model: Checkpoint) -> Result<Inspected> {
    let path = &model.file().to_owned();
    let foreign = refuse_foreign(&model).err();
    let has = |part: &str| model.names().any(|name| name.contains(part));
    if foreign.is_some() {
        let pairs = [".lora_A.", ".lora_B.", "lora_down.", "lora_up.", "lora.down.", "lora_linear_layer."];
        if pairs.iter().any(|p| has(p)) {
            return lora(path).map(Inspected::Lora);
        }
        // Its relatives have names of many kinds: whatever opens as one and holds no network is one.
        let network = parts(&model).iter().any(|part| part.name != REST);
        if let (false, Ok(facts)) = (network, lora(path)) {
            return Ok(Inspected::Lora(facts));
        }
        if let Some(facts) = embedding(&model, path)? {
            return Ok(Inspected::Embedding(facts));
        }
    }
    let parts = parts(&model);
    let network = |part: &Part| part.name != REST;
    match foreign {
        // What holds no network known here gets its own error.
        Some(error) if !parts.iter().any(network) => Err(error),
        foreign => Ok(Inspected::Model(Box::new(facts(&model, path, parts, foreign)))),
    }
}

fn facts(model: &Checkpoint, path: &Path, parts: Vec<Part>, foreign: Option<Error>) -> ModelFacts {
    let inferred = ModelConfig::infer(model);
    let runnable = inferred.as_ref().map(|config| config.runnable(path).err().map(|e| e.to_string()));
    let obstacle = match (foreign, runnable) {
        (Some(error), _) => Some(error.to_string()),
        (None, Ok(obstacle)) => obstacle,
        (None, Err(error)) => Some(error.to_string()),
    };
    let config = inferred.ok();
    let diffusion = match &config {
        Some(config) => Some(DiffusionConfig::of(config)),
        None => DiffusionConfig::infer(model).ok(),
    };
    ModelFacts {
        file: path.to_owned(),
        diffusion,
        vae: VaeConfig::infer(model).ok(),
        text: match &config {
            Some(config) => config.text.clone(),
            None => encoders(model, path),
        },
        config,
        obstacle,
        parts,
        all: Tally::of(model, model.names()),
        metadata: model.metadata().clone(),
    }
}

/// What is known of text encoders without all that they belong to.
fn encoders(model: &Checkpoint, path: &Path) -> Vec<TextConfig> {
    let alone = || {
        // By itself an encoder is renamed for the place that it seems to be made for.
        let file = Checkpoint::open(path).ok()?;
        TextConfig::infer_all(&Checkpoint::text_encoders(vec![file]).ok()?).ok()
    };
    TextConfig::infer_all(model).ok().or_else(alone).unwrap_or_default()
}

fn parts(model: &Checkpoint) -> Vec<Part> {
    let seen = model.encoders();
    let of = |name: &str| {
        let known = PARTS.iter().find(|(prefix, _)| name.starts_with(prefix));
        let encoder = || seen.iter().any(|s| !s.prefix.is_empty() && name.starts_with(&s.prefix));
        known.map_or_else(|| if encoder() { "text encoder" } else { REST }, |(_, part)| *part)
    };
    let mut parts: Vec<Part> = Vec::new();
    for name in model.names() {
        let part = of(name);
        let at = parts.iter().position(|p| p.name == part).unwrap_or_else(|| {
            parts.push(Part { name: part, tally: Tally::default() });
            parts.len() - 1
        });
        parts[at].tally.add(model, name);
    }
    // The UNet first, what belongs to none last.
    let order = |part: &Part| PARTS.iter().position(|(_, name)| *name == part.name).unwrap_or(PARTS.len());
    parts.sort_by_key(order);
    parts
}

fn lora(path: &Path) -> Result<LoraFacts> {
    let lora = Lora::open(path)?;
    let tensors = lora.tensors();
    Ok(LoraFacts {
        file: path.to_owned(),
        name: lora.name(),
        modules: lora.len(),
        ranks: lora.ranks(),
        kinds: lora.kinds(),
        changes: lora.parts(),
        embeddings: lora.embeddings().map(str::to_owned).collect(),
        warnings: lora.warnings().to_vec(),
        family: lora.family(),
        all: Tally::of(tensors, tensors.names()),
        metadata: tensors.metadata().clone(),
    })
}

/// The facts of a file in which all is vectors as wide as a text encoder's tokens; None if it is something
/// else.
///
/// # Errors
/// [`ErrorKind::Model`](crate::ErrorKind::Model) for an embedding that is no list of vectors.
fn embedding(model: &Checkpoint, path: &Path) -> Result<Option<EmbeddingFacts>> {
    let vectors = embedding_files::vectors_in(model, &WIDTHS);
    if let Some((name, ..)) = vectors.iter().find(|(_, count, _)| *count == 0) {
        let shape = model.tensor(name).map_or(&[][..], |t| &t.shape);
        return Err(model
            .fault("an embedding that is no list of vectors")
            .at(name)
            .expected("two dimensions, vectors and their width")
            .found(format!("{shape:?}"))
            .hint("store it as [vectors, width]"));
    }
    let Some(&(_, _, width)) = vectors.first() else { return Ok(None) };
    let family = match width {
        _ if vectors.len() > 1 => Some("SDXL"),
        768 => Some("SD 1"),
        1024 => Some("SD 2"),
        1280 => Some("SDXL"),
        _ => None,
    };
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let all = Tally::of(model, model.names());
    Ok(Some(EmbeddingFacts { file: path.to_owned(), name, vectors, family, all }))
}
