//! The weights in a folder of one network: one file, or shards that an index lists.
#![warn(clippy::indexing_slicing, clippy::string_slice)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::named_tensors::Checkpoint;
use crate::{Error, ErrorKind, Result};

/// What diffusers and transformers call the weights of a network, before the variant.
const NAMES: [&str; 2] = ["diffusion_pytorch_model", "model"];
/// What a text of settings may take; an index of SDXL's UNet has 0.2 MB.
const MAX_JSON: u64 = 16 << 20;
/// No model has more shards.
const MAX_SHARDS: usize = 256;

/// Opens the weights in `folder` under the names that the files have; None if there are none.
pub(super) fn open(folder: &Path) -> Result<Option<Checkpoint>> {
    let files = list(folder)?;
    match choose(folder, &files)? {
        Some(file) if file.contains(".index.") => sharded(folder, &file).map(Some),
        Some(file) => Checkpoint::open_file(&folder.join(file)).map(Some),
        None => match files.iter().find(|f| f.ends_with(".bin") || f.ends_with(".msgpack")) {
            None => Ok(None),
            Some(pickle) => Err(Error::new(ErrorKind::File, "the weights are not in safetensors files")
                .file(folder.join(pickle))
                .expected(format!("{}.safetensors or {}.safetensors", NAMES[0], NAMES[1]))
                .hint(
                    "pickles can run code when loaded and are not read: diffusers' save_pretrained(FOLDER, safe_serialization=True) converts the model",
                )),
        },
    }
}

/// Names of the files in a folder, sorted.
fn list(folder: &Path) -> Result<BTreeSet<String>> {
    let cannot = |e| Error::io(folder, "cannot read the folder", e);
    let entries = fs::read_dir(folder).map_err(cannot)?;
    // A folder of a model has a handful of files.
    entries.take(10_000).map(|e| Ok(e.map_err(cannot)?.file_name().to_string_lossy().into_owned())).collect()
}

/// The file to read: the plain one before `.fp16` before the only other variant.
fn choose(folder: &Path, files: &BTreeSet<String>) -> Result<Option<String>> {
    for name in NAMES {
        let usual = [
            format!("{name}.safetensors"),
            format!("{name}.safetensors.index.json"),
            format!("{name}.fp16.safetensors"),
            format!("{name}.safetensors.index.fp16.json"),
        ];
        if let Some(file) = usual.into_iter().find(|f| files.contains(f)) {
            return Ok(Some(file));
        }
        let variant = |f: &&String| {
            let rest = f.strip_prefix(name).and_then(|f| f.strip_prefix('.'));
            rest.is_some_and(|rest| {
                rest.ends_with(".safetensors") || (rest.contains(".index.") && rest.ends_with(".json"))
            })
        };
        let others: Vec<&String> = files.iter().filter(variant).collect();
        match others.as_slice() {
            [] => {}
            [one] => return Ok(Some((*one).clone())),
            [one, two, ..] => {
                return Err(Error::new(ErrorKind::File, "the folder has several variants of the weights")
                    .file(folder)
                    .expected(format!("{name}.safetensors"))
                    .found(format!("{one}, {two}"))
                    .hint("rename the one you want, or move the others away"));
            }
        }
    }
    Ok(None)
}

/// Opens the shards of an index, and holds both to each other: a tensor that the index does not
/// list, or that lies elsewhere than it says, means that the files are of different models.
fn sharded(folder: &Path, index: &str) -> Result<Checkpoint> {
    let path = folder.join(index);
    let places = places(&path)?;
    let shards: BTreeSet<&str> = places.values().map(String::as_str).collect();
    let lies = |what: &str| {
        Error::new(ErrorKind::File, what)
            .file(&path)
            .hint("the files are not of one model: fetch the folder again")
    };
    if shards.is_empty() || shards.len() > MAX_SHARDS {
        return Err(lies("the index has an impossible number of shards")
            .expected(format!("1 to {MAX_SHARDS}"))
            .found(shards.len().to_string()));
    }
    let mut whole: Option<Checkpoint> = None;
    for shard in shards {
        let file = folder.join(shard);
        if !file.is_file() {
            return Err(lies("a shard is missing").expected(shard).found("no such file in the folder"));
        }
        let part = Checkpoint::open_file(&file)?;
        if let Some(name) = part.names().find(|name| places.get(*name).is_none_or(|at| at != shard)) {
            let listed = places.get(name).map_or("nowhere", String::as_str);
            return Err(lies("a tensor is not where the index says")
                .at(name)
                .expected(format!("it in {listed}"))
                .found(format!("it in {shard}")));
        }
        whole = Some(match whole {
            None => part,
            Some(whole) => whole.joined(part)?,
        });
    }
    let mut whole = whole.ok_or_else(|| Error::internal("an index without shards"))?;
    match places.iter().find(|(name, _)| !whole.has(name)) {
        None => {
            whole.file = path;
            Ok(whole)
        }
        Some((name, shard)) => Err(lies("the index lists a tensor that its shard lacks")
            .at(name)
            .found(format!("none in {shard}"))),
    }
}

/// The `weight_map` of an index: the shard of each tensor.
fn places(path: &Path) -> Result<BTreeMap<String, String>> {
    let index = json(path)?;
    let bad = |what: &str| Error::new(ErrorKind::File, what).file(path).hint("fetch the file again");
    let map = index.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| bad("the index has no weight_map").expected("{\"weight_map\": {…}}"))?;
    let place = |(name, shard): (&String, &Value)| match shard.as_str() {
        // Anything but a plain name would lead out of the folder.
        Some(shard) if is_plain(shard) => Ok((name.clone(), shard.to_owned())),
        _ => Err(bad("the index names a shard outside its folder")
            .at(name.chars().take(200).collect::<String>())
            .expected("the plain name of a .safetensors file")
            .found(shard.to_string().chars().take(200).collect::<String>())),
    };
    map.iter().map(place).collect()
}

fn is_plain(name: &str) -> bool {
    name.ends_with(".safetensors") && !name.contains(['/', '\\', ':']) && !name.chars().any(char::is_control)
}

/// A text of settings.
///
/// # Errors
/// [`ErrorKind::File`] if it cannot be read, is too long, or is not JSON.
pub(super) fn json(path: &Path) -> Result<Value> {
    let cannot = |e| Error::io(path, "cannot read the file", e);
    let meta = fs::metadata(path).map_err(cannot)?;
    if !meta.is_file() || meta.len() > MAX_JSON {
        return Err(Error::new(ErrorKind::File, "not a file of settings")
            .file(path)
            .expected(format!("JSON text of at most {MAX_JSON} bytes"))
            .found(if meta.is_file() { format!("{} bytes", meta.len()) } else { "no regular file".into() }));
    }
    let text = fs::read(path).map_err(cannot)?;
    serde_json::from_slice(&text).map_err(|e| {
        Error::new(ErrorKind::File, "not valid JSON").file(path).cause(e).hint("fetch the file again")
    })
}
