//! Where learned vectors (textual inversion) are, and which tensor of a file is for which text encoder.
//!
//! An embedding is a `.safetensors` file of one to some dozen vectors as wide as the text encoder's tokens. Its
//! tensors are called after the encoders where a model has two (`clip_l` and `clip_g`, or `text_encoders_0` and `_1`),
//! `emb_params`, `string_to_param.*`, or anything if there is one alone. A LoRA may hold embeddings that it was
//! trained with, as `bundle_emb.NAME.` and such a tensor.
#![warn(clippy::indexing_slicing, clippy::string_slice)]

use std::sync::Arc;

use super::{Embeddings, Vectors};
use crate::checkpoint::Checkpoint;
use crate::families::Tower;
use crate::folder::Folder;
use crate::lora::{BUNDLED, Lora};
use crate::model::config::TextConfig;
use crate::{Error, ErrorKind, Result};

/// Where `embedding:name` is looked for: in LoRAs, then in folders, the first that has it.
#[derive(Debug, Clone, Default)]
pub struct EmbeddingSources {
    /// LoRAs in use that hold embeddings.
    pub loras: Vec<Arc<Lora>>,
    /// Folders of files.
    pub folders: Vec<Folder>,
}

impl EmbeddingSources {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.loras.is_empty() && self.folders.is_empty()
    }

    /// Why there is no embedding `name`, with names like it.
    pub fn missing(&self, name: &str) -> String {
        let bundled: Vec<&str> = self.loras.iter().flat_map(|lora| lora.embeddings()).collect();
        match (self.folders.first(), bundled.is_empty()) {
            (Some(folder), _) => folder.missing("embedding", name).to_string(),
            (None, false) => {
                format!("the LoRAs hold {}, and no folder of embeddings was given", bundled.join(", "))
            }
            (None, true) => "no folder of embeddings was given".into(),
        }
    }
}

/// The vectors in some places for one text encoder of a model.
#[derive(Debug, Clone, Copy)]
pub struct Learned<'a> {
    places: &'a EmbeddingSources,
    encoders: &'a [TextConfig],
    this: usize,
}

/// Ten chunks. Real embeddings have 1 to 75 vectors.
const MOST_VECTORS: usize = 750;
/// Names of tensors in A1111's files, the second with a name of its own behind it.
const USUAL: [&str; 2] = ["emb_params", "string_to_param."];
/// Ends of names of vectors that are for what the encoder gives, not for what it takes (OneTrainer).
const OUTPUT: &str = "_out";

/// A tensor that may be vectors, under its whole and its short name.
struct Candidate<'f> {
    name: &'f str,
    short: &'f str,
    count: usize,
    width: usize,
}

impl Candidate<'_> {
    fn fits(&self) -> bool {
        (1..=MOST_VECTORS).contains(&self.count)
    }
}

impl<'a> Learned<'a> {
    /// The vectors for encoder `this` of a model's `encoders`, counted from 0.
    pub fn new(places: &'a EmbeddingSources, encoders: &'a [TextConfig], this: usize) -> Self {
        Self { places, encoders, this }
    }

    /// As a prompt takes them.
    pub fn as_embeddings(&self) -> Embeddings<'_> {
        if self.places.is_empty() { Embeddings::Named } else { Embeddings::Found(self) }
    }

    /// The tensors below `prefix` that may be vectors: not numbers alone, such as the step of the training.
    fn candidates<'f>(file: &'f Checkpoint, prefix: &'f str) -> Vec<Candidate<'f>> {
        let all = file.names_under(prefix).filter_map(|name| {
            let tensor = file.tensor(name)?;
            let short = name.strip_prefix(prefix)?;
            let [count, width] = vectors(&tensor.shape)?;
            let taken = !short.ends_with(OUTPUT) && !short.starts_with("string_to_token.");
            taken.then_some(Candidate { name, short, count, width })
        });
        all.collect()
    }

    /// The tensor for each encoder, at least one.
    fn share<'f>(&self, file: &'f Checkpoint, prefix: &'f str) -> Result<Vec<Option<&'f str>>> {
        let candidates = Self::candidates(file, prefix);
        let named = |(i, config): (usize, &TextConfig)| {
            let keys = [key(config).to_owned(), format!("text_encoders_{i}")];
            candidates.iter().find(|c| keys.iter().any(|key| key == c.short))
        };
        let found: Vec<_> = self.encoders.iter().enumerate().map(named).collect();
        if found.iter().any(Option::is_some) {
            let wrong = found.iter().zip(self.encoders);
            if let Some(c) = wrong.filter_map(|(c, t)| c.filter(|c| !c.fits() || c.width != t.width)).next() {
                return Err(self.misfit(file, c.name));
            }
            return Ok(found.into_iter().map(|c| c.map(|c| c.name)).collect());
        }
        let usual = USUAL.iter().find_map(|start| candidates.iter().find(|c| c.short.starts_with(start)));
        let one = match (usual, &candidates[..]) {
            (Some(usual), _) => usual,
            (None, [one]) => one,
            (None, _) => return Err(self.no_embedding(file, prefix)),
        };
        // A file for SD 1 has no names for encoders: its width shows that it is for SDXL's first.
        let of_width = |config: &TextConfig| (one.fits() && config.width == one.width).then_some(one.name);
        let found: Vec<_> = self.encoders.iter().map(of_width).collect();
        if found.iter().all(Option::is_none) {
            return Err(self.misfit(file, one.name));
        }
        Ok(found)
    }

    fn no_embedding(&self, file: &Checkpoint, prefix: &str) -> Error {
        let names: Vec<&str> = file.names_under(prefix).collect();
        let keys: Vec<&str> = self.encoders.iter().map(key).collect();
        let error = file
            .fault("no embedding for this text encoder")
            .expected(format!("a tensor {} or {}, or one alone", keys.join(" or "), USUAL[0]))
            .found(format!(
                "{} tensors such as {}",
                names.len(),
                names.iter().take(3).copied().collect::<Vec<_>>().join(", ")
            ));
        match names.iter().find(|name| name.starts_with(BUNDLED)) {
            Some(_) => {
                error.hint("it is a LoRA with an embedding in it: use it as a LoRA, and name the embedding")
            }
            None => error.hint("pass an embedding made for this family of models"),
        }
    }

    fn misfit(&self, file: &Checkpoint, tensor: &str) -> Error {
        let shape = file.tensor(tensor).map_or(&[][..], |t| &t.shape);
        let wanted: Vec<String> = self
            .encoders
            .iter()
            .map(|config| format!("{} values for {}", config.width, key(config)))
            .collect();
        Error::new(ErrorKind::Model, "the embedding does not fit this text encoder")
            .file(file.file())
            .at(tensor)
            .expected(format!("1 to {MOST_VECTORS} vectors of {}", wanted.join(" or ")))
            .found(format!("{shape:?}"))
            .hint(match shape.last() {
                Some(768) => "it seems to be made for SD 1",
                Some(1024) => "it seems to be made for SD 2",
                Some(1280) => "it seems to be made for SDXL",
                _ => "pass one made for this family of models",
            })
    }

    fn read(&self, file: &Checkpoint, prefix: &str) -> Result<Vec<Vec<f32>>> {
        let Some(tensor) = self.share(file, prefix)?.get(self.this).copied().flatten() else {
            return Ok(Vec::new());
        };
        let shape = file.tensor(tensor).map_or(&[][..], |t| &t.shape);
        let values = file.read_f32(tensor, shape)?;
        let width = shape.last().copied().unwrap_or(1).max(1);
        Ok(values.chunks_exact(width).map(<[f32]>::to_vec).collect())
    }
}

/// How many vectors a tensor of this shape is, and how wide they are: `[width]`, `[count, width]`, or that with further
/// dimensions of 1 before it. A count of 0 for other shapes, None for a number alone.
fn vectors(shape: &[usize]) -> Option<[usize; 2]> {
    match *shape {
        [] => None,
        [width] => Some([1, width]),
        [ref before @ .., count, width] => {
            Some([if before.iter().all(|d| *d == 1) { count } else { 0 }, width])
        }
    }
}

/// The tensors of a file that is an embedding, with number and width of their vectors; none if it is something else.
/// A tensor of any name counts alone, if it is as wide as tokens are: `widths`.
pub(crate) fn vectors_in(file: &Checkpoint, widths: &[usize]) -> Vec<(String, usize, usize)> {
    const KEYS: [&str; 5] = ["clip_l", "clip_g", "clip_h", "text_encoders_0", "text_encoders_1"];
    let candidates = Learned::candidates(file, "");
    let alone = candidates.len() == 1;
    let named =
        |c: &Candidate<'_>| KEYS.contains(&c.short) || USUAL.iter().any(|start| c.short.starts_with(start));
    // A1111's trainer of old called the tensor after the token, `<moss>`.
    let token = |name: &str| name.starts_with('<') && name.ends_with('>');
    let wide =
        |c: &Candidate<'_>| alone && !c.short.contains('.') && (widths.contains(&c.width) || token(c.short));
    let of = candidates.iter().filter(|c| named(c) || wide(c));
    of.map(|c| (c.name.to_owned(), c.count, c.width)).collect()
}

/// ComfyUI's name for the encoder, by which files for models of two encoders are sorted.
pub(crate) fn key(config: &TextConfig) -> &'static str {
    match config.tower {
        Tower::L => "clip_l",
        Tower::H => "clip_h",
        Tower::G => "clip_g",
    }
}

impl Vectors for Learned<'_> {
    /// # Errors
    /// [`ErrorKind::Usage`] for a name that leads out of the folder; [`ErrorKind::File`] or
    /// [`ErrorKind::Model`] if the file is no embedding, or one of another width.
    fn find(&self, name: &str) -> Result<Option<Vec<Vec<f32>>>> {
        for lora in &self.places.loras {
            if lora.embeddings().any(|own| own == name) {
                return self.read(lora.tensors(), &format!("{BUNDLED}{name}.")).map(Some);
            }
        }
        for folder in &self.places.folders {
            if let Some(path) = folder.find(name)? {
                return self.read(&Checkpoint::open(path)?, "").map(Some);
            }
        }
        Ok(None)
    }
}
