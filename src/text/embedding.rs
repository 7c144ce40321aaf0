//! `embedding:name` in a prompt: learned vectors (textual inversion) in place of a word's tokens.
#![warn(clippy::indexing_slicing, clippy::string_slice)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::string_slice))]

use std::fmt::Debug;

use crate::Result;

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
    /// The vectors called `name`, each as wide as a token; None if there is nothing of that name, and no vectors
    /// where what there is serves other encoders of the model alone.
    ///
    /// # Errors
    /// If they are there but cannot be used.
    fn find(&self, name: &str) -> Result<Option<Vec<Vec<f32>>>>;
}

/// A part of a segment that becomes tokens, or fails to, on its own.
#[derive(Debug, PartialEq)]
pub(super) enum Word {
    Text(String),
    Vectors(Vec<Vec<f32>>),
    Missing(String),
    /// Other text encoders have vectors of that name.
    Elsewhere(String),
}

const MARK: &str = "embedding:";

/// Whether a prompt names an embedding.
pub fn names_any(prompt: &str) -> bool {
    prompt.contains(MARK)
}

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
    let after_space = |&at: &usize| segment.get(..at).is_some_and(|before| before.ends_with(is_space));
    let cuts = segment.match_indices(MARK).map(|(at, _)| at).filter(after_space);
    let mut start = 0;
    cuts.chain([segment.len()])
        .filter_map(move |end| segment.get(std::mem::replace(&mut start, end)..end))
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
    words.push(match vectors {
        None => Word::Missing(bare.to_owned()),
        Some(vectors) if vectors.is_empty() => Word::Elsewhere(bare.to_owned()),
        Some(vectors) => Word::Vectors(vectors),
    });
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
