//! `embedding:name` in a prompt: learned vectors (textual inversion) in place of a word's tokens.
//!
//! An embedding is a `.safetensors` file of one to some dozen vectors as wide as the text encoder's
//! tokens. Its tensor is called after the encoder where a model has two (`clip_l`, `clip_g`),
//! `emb_params`, or anything if it is the only one.

use std::fmt::Debug;

use crate::checkpoint::Checkpoint;
use crate::folder::Folder;
use crate::model::config::{TextConfig, Tower};
use crate::{Error, ErrorKind, Result};

/// What `embedding:name` in a prompt means.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub enum Embeddings<'a> {
    /// It names learned vectors, but none are known: the word has no tokens and its name is in
    /// [`Tokens::missing_embeddings`](super::Tokens::missing_embeddings).
    #[default]
    Named,
    /// It names learned vectors; where there are none of that name, as [`Named`](Self::Named).
    /// ComfyUI too goes on without vectors that it does not find.
    Found(&'a dyn Vectors),
    /// It is text like any other: ComfyUI without a directory of embeddings.
    Text,
}

/// A collection of learned vectors.
pub trait Vectors: Debug {
    /// The vectors called `name`, each as wide as a token; None if there are none.
    ///
    /// # Errors
    /// If they are there but cannot be used.
    fn find(&self, name: &str) -> Result<Option<Vec<Vec<f32>>>>;
}

/// The vectors in the files of some folders, for one text encoder.
#[derive(Debug, Clone, Copy)]
pub struct Learned<'a> {
    folders: &'a [Folder],
    config: &'a TextConfig,
}

/// Ten chunks. Real embeddings have 1 to 75 vectors.
const MOST_VECTORS: usize = 750;
/// The name of the tensor in A1111's files.
const USUAL: &str = "emb_params";

impl<'a> Learned<'a> {
    /// The files in `folder`, for the encoder `config`.
    pub fn new(folder: &'a Folder, config: &'a TextConfig) -> Self {
        Self::among(std::slice::from_ref(folder), config)
    }

    /// The files in `folders`, the first that has one of a name, for the encoder `config`.
    pub fn among(folders: &'a [Folder], config: &'a TextConfig) -> Self {
        Self { folders, config }
    }

    /// ComfyUI's name for the encoder, by which files for models of two encoders are sorted.
    fn key(&self) -> &'static str {
        match self.config.tower {
            Tower::L => "clip_l",
            Tower::H => "clip_h",
            Tower::G => "clip_g",
        }
    }

    /// The tensor that is for this encoder.
    fn tensor<'f>(&self, file: &'f Checkpoint) -> Result<&'f str> {
        let names: Vec<&str> = file.names().collect();
        let known = [self.key(), USUAL].into_iter().find_map(|key| names.iter().find(|name| **name == key));
        match (known, &names[..]) {
            (Some(name), _) | (None, [name]) => Ok(name),
            _ => Err(file
                .fault("no embedding for this text encoder")
                .expected(format!("a tensor {} or {USUAL}, or one alone", self.key()))
                .found(format!("{} tensors such as {}", names.len(), names[..names.len().min(3)].join(", ")))
                .hint("pass an embedding made for this family of models")),
        }
    }
}

impl Vectors for Learned<'_> {
    /// # Errors
    /// [`ErrorKind::Usage`] for a name that leads out of the folder; [`ErrorKind::File`] or
    /// [`ErrorKind::Model`] if the file is no embedding, or one of another width.
    fn find(&self, name: &str) -> Result<Option<Vec<Vec<f32>>>> {
        let mut path = None;
        for folder in self.folders {
            path = path.or(folder.find(name)?);
        }
        let Some(path) = path else { return Ok(None) };
        let file = Checkpoint::open(path)?;
        let tensor = self.tensor(&file)?;
        let shape = file.tensor(tensor).map_or(&[][..], |t| &t.shape);
        let width = self.config.width;
        match *shape {
            [found] | [1..=MOST_VECTORS, found] if found == width => {
                let values = file.read_f32(tensor, shape)?;
                Ok(Some(values.chunks_exact(width).map(<[f32]>::to_vec).collect()))
            }
            _ => Err(Error::new(ErrorKind::Model, "the embedding does not fit this text encoder")
                .file(file.file())
                .at(tensor)
                .expected(format!("1 to {MOST_VECTORS} vectors of {width} values for {}", self.key()))
                .found(format!("{shape:?}"))
                .hint(match shape.last() {
                    Some(768) => "it seems to be made for SD 1",
                    Some(1024) => "it seems to be made for SD 2",
                    Some(1280) => "it seems to be made for SDXL",
                    _ => "pass one made for this family of models",
                })),
        }
    }
}

/// A part of a segment that becomes tokens, or fails to, on its own.
#[derive(Debug, PartialEq)]
pub(super) enum Word {
    Text(String),
    Vectors(Vec<Vec<f32>>),
    Missing(String),
}

const MARK: &str = "embedding:";

/// The words of `segment`: one, plus one for each mark that follows a space.
pub(super) fn words(segment: &str, embeddings: Embeddings<'_>) -> Result<Vec<Word>> {
    let mut words = Vec::new();
    for part in parts(segment) {
        match (part.strip_prefix(MARK), embeddings) {
            (Some(rest), Embeddings::Named) => named(rest, &|_| Ok(None), &mut words)?,
            (Some(rest), Embeddings::Found(vectors)) => {
                // "" would be the folder itself.
                let find = |name: &str| if name.is_empty() { Ok(None) } else { vectors.find(name) };
                named(rest, &find, &mut words)?;
            }
            _ => words.push(Word::Text(part.to_owned())),
        }
    }
    Ok(words)
}

/// `segment` cut before each mark that follows a space, without empty parts.
fn parts(segment: &str) -> impl Iterator<Item = &str> {
    let after_space = |&at: &usize| segment[..at].ends_with(is_space);
    let cuts = segment.match_indices(MARK).map(|(at, _)| at).filter(after_space);
    let mut start = 0;
    cuts.chain([segment.len()])
        .map(move |end| &segment[std::mem::replace(&mut start, end)..end])
        .filter(|part| !part.is_empty())
}

type Find<'a> = dyn Fn(&str) -> Result<Option<Vec<Vec<f32>>>> + 'a;

/// Reads what follows a mark: a name, which ends at a space, `<` or `[`, then more text.
fn named(rest: &str, find: &Find<'_>, words: &mut Vec<Word>) -> Result<()> {
    let mut pieces = rest.split(is_space).filter(|piece| !piece.is_empty());
    let first = pieces.next().unwrap_or_default();
    let (name, attached) = first.split_at(first.find(['<', '[']).unwrap_or(first.len()));
    let mut text = pieces.collect::<Vec<_>>().join(" ");
    if !attached.is_empty() {
        text = if text.is_empty() { attached.to_owned() } else { format!("{attached} {text}") };
    }
    let mut vectors = find(name)?;
    // A comma after the name belongs to the text. ComfyUI drops as many characters as the bare name
    // has, so a comma before the name lets the name's last letters through; so be it.
    let bare = name.trim_matches(',');
    if vectors.is_none() && bare.len() < name.len() {
        vectors = find(bare)?;
        let kept: String = name.chars().skip(bare.chars().count()).collect();
        text = format!("{kept} {text}");
    }
    words.push(vectors.map_or_else(|| Word::Missing(bare.to_owned()), Word::Vectors));
    if !text.is_empty() {
        words.push(Word::Text(text));
    }
    Ok(())
}

/// Space as Python has it: the four ASCII separators too.
fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(name: &str) -> Word {
        Word::Missing(name.into())
    }

    fn text(text: &str) -> Word {
        Word::Text(text.into())
    }

    #[test]
    fn a_name_ends_at_a_space_a_comma_or_a_bracket() {
        let cases = [
            ("embedding:foo bar  baz", vec![missing("foo"), text("bar baz")]),
            ("a embedding:foo, bar", vec![text("a "), missing("foo"), text(", bar")]),
            ("embedding:foo<lora:x> y", vec![missing("foo"), text("<lora:x> y")]),
            ("embedding:foo[x", vec![missing("foo"), text("[x")]),
            ("embedding:é,embedding:b\nembedding:c", vec![missing("é,embedding:b"), missing("c")]),
            ("embedding: foo", vec![missing("foo")]),
            ("embedding:,foo", vec![missing("foo"), text("o ")]),
            ("embedding:", vec![missing("")]),
            ("xembedding:foo", vec![text("xembedding:foo")]),
        ];
        for (segment, expected) in cases {
            assert_eq!(words(segment, Embeddings::Named).unwrap(), expected, "{segment:?}");
        }
    }

    #[test]
    fn as_text_the_mark_only_cuts() {
        assert_eq!(
            words("a embedding:foo, b", Embeddings::Text).unwrap(),
            [text("a "), text("embedding:foo, b")]
        );
    }
}
