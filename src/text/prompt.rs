//! Prompts: parentheses and weights to segments, segments to 77-token chunks, as ComfyUI does both.
#![warn(clippy::indexing_slicing, clippy::string_slice)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::string_slice))]

use super::embedding::{self, Embeddings, Word};
use super::tokenizer::{END, START, Tokenizer, VOCABULARY};
use super::weight::python_float;
use crate::{Error, Result};

/// The ids in a [`Chunk`]: what a CLIP text encoder reads at a time.
pub const CHUNK: usize = 77;

/// A group of this many ids or more is cut where a chunk ends; a smaller one moves to the next whole.
const CUT_FROM: usize = 8;

/// Ends the chunk at this point; a control character, so that no words mean it by accident. See
/// [`breaks`](super::compose::breaks).
pub const BREAK: char = '\u{3}';

/// What one more pair of parentheses multiplies the weight by.
const EMPHASIS: f64 = 1.1;

/// A stretch of a prompt with one weight.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// The words, escapes resolved; never empty.
    pub text: String,
    /// The weight, 1.0 outside parentheses. It may be anything `float()` reads: negative, infinite, NaN.
    pub weight: f32,
}

/// The ids and weights of one pass through the text encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// [`START`], up to 75 ids of the text, [`END`], then padding. Ids from [`VOCABULARY`] on are
    /// for [`Tokens::vectors`].
    pub ids: [u32; CHUNK],
    /// The weight of each id: 1.0 for start, end and padding.
    pub weights: [f32; CHUNK],
}

/// A whole prompt for one text encoder.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tokens {
    /// At least one chunk; an empty prompt is start, end and padding.
    pub chunks: Vec<Chunk>,
    /// The names after `embedding:` that have no vector, in order: worth a warning.
    pub missing_embeddings: Vec<String>,
    /// Names after `embedding:` that have no vectors for this text encoder, and some for another.
    pub embeddings_elsewhere: Vec<String>,
    /// The learned vectors of embeddings: id [`VOCABULARY`] + i in a chunk is `vectors[i]`.
    pub vectors: Vec<Vec<f32>>,
}

impl Tokens {
    /// Whether any weight differs from 1.0, so that the encoding of the empty prompt is needed too.
    pub fn weighted(&self) -> bool {
        self.chunks.iter().flat_map(|chunk| chunk.weights).any(|weight| weight != 1.0)
    }
}

/// The segments of `text`, by ComfyUI's rules:
///
/// - `(words)` multiplies the weight by 1.1, and nests; `(words:1.3)` sets it, whatever is around.
/// - `\(` and `\)` are plain parentheses. `[` and `]` are plain always.
/// - A `)` too many is plain, and so is one `(` after it. A `(` that is never closed is plain with all
///   that follows, unless the text ends in `)`: then that one closes it.
///
/// ```
/// let segments = sagittal::internals::text::prompt::parse("a (red:1.3) ((cat))");
/// let weights: Vec<f32> = segments.iter().map(|segment| segment.weight).collect();
/// assert_eq!(weights, [1.0, 1.3, 1.0, 1.21]);
/// assert_eq!(segments[3].text, "cat");
/// ```
pub fn parse(text: &str) -> Vec<Segment> {
    let text = escape(text);
    let groups = groups(&text);
    let mut segments = Vec::new();
    let mut plain = |text: &str, weight: f64| {
        if !text.is_empty() {
            segments.push(Segment { text: unescape(text), weight: weight as f32 });
        }
    };
    let between = |start: usize, end: usize| text.get(start..end).unwrap_or_default();
    // A stack of its own, since prompts may nest deeper than the thread's stack allows.
    let mut spans = vec![Span { start: 0, end: text.len(), weight: 1.0 }];
    while let Some(span) = spans.pop() {
        let next = groups.partition_point(|group| group.start < span.start);
        let Some(group) = groups.get(next).filter(|group| group.start < span.end) else {
            plain(between(span.start, span.end), span.weight);
            continue;
        };
        plain(between(span.start, group.start), span.weight);
        let end = group.end.min(span.end);
        if end < span.end {
            spans.push(Span { start: end, ..span });
        }
        if end - group.start >= 2 && between(group.start, end).ends_with(')') {
            spans.push(inside(&text, group.start + 1, end - 1, span.weight));
        } else {
            plain(between(group.start, end), span.weight);
        }
    }
    segments
}

/// The chunks of a prompt, padded with `pad`: [`END`] for CLIP-L, 0 for CLIP-G and CLIP-H.
///
/// Each segment is a group of ids; a group of fewer than 8 is kept within a chunk, a longer one is cut
/// at the 75th id. Words `embedding:name` have no tokens here, see [`Embeddings::Named`].
///
/// # Errors
/// [`Usage`](crate::ErrorKind::Usage) if `pad` is not in the vocabulary.
pub fn chunks(tokenizer: &Tokenizer, text: &str, pad: u32) -> Result<Tokens> {
    chunks_with(tokenizer, text, pad, Embeddings::default())
}

/// [`chunks`], with a say in what `embedding:name` means.
///
/// # Errors
/// As [`chunks`], and those of [`Vectors::find`](super::Vectors::find).
pub fn chunks_with(
    tokenizer: &Tokenizer,
    text: &str,
    pad: u32,
    embeddings: Embeddings<'_>,
) -> Result<Tokens> {
    if pad >= VOCABULARY {
        return Err(Error::usage("no such padding token")
            .expected(format!("an id below {VOCABULARY}"))
            .found(pad.to_string())
            .hint(format!("CLIP-L pads with {END}, CLIP-G and CLIP-H with 0")));
    }
    let mut tokens = Tokens::default();
    let mut chunk = OpenChunk::new(pad);
    for segment in parse(text) {
        for word in embedding::words(&segment.text, embeddings)? {
            match word {
                Word::Text(text) => {
                    for (i, text) in text.split(BREAK).enumerate() {
                        if i > 0 {
                            chunk.finish(&mut tokens.chunks);
                        }
                        chunk.add(&tokenizer.encode(text), segment.weight, &mut tokens.chunks);
                    }
                }
                Word::Vectors(vectors) => {
                    let first = VOCABULARY + tokens.vectors.len() as u32;
                    let ids: Vec<u32> = (first..).take(vectors.len()).collect();
                    tokens.vectors.extend(vectors);
                    chunk.add(&ids, segment.weight, &mut tokens.chunks);
                }
                Word::Missing(name) => tokens.missing_embeddings.push(name),
                Word::Elsewhere(name) => tokens.embeddings_elsewhere.push(name),
            }
        }
    }
    // After a break at the very end there is nothing to say.
    if chunk.len > 1 || tokens.chunks.is_empty() {
        chunk.finish(&mut tokens.chunks);
    }
    Ok(tokens)
}

/// The names of embeddings in `text` that `embeddings` does not have; nothing becomes tokens.
///
/// # Errors
/// Those of [`Vectors::find`](super::Vectors::find).
pub fn missing_embeddings(text: &str, embeddings: Embeddings<'_>) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    for segment in parse(text) {
        let words = embedding::words(&segment.text, embeddings)?;
        missing.extend(words.into_iter().filter_map(|word| match word {
            Word::Missing(name) => Some(name),
            _ => None,
        }));
    }
    Ok(missing)
}

/// The chunk being filled.
struct OpenChunk {
    chunk: Chunk,
    len: usize,
    pad: u32,
}

impl OpenChunk {
    fn new(pad: u32) -> Self {
        let mut chunk = Chunk { ids: [pad; CHUNK], weights: [1.0; CHUNK] };
        chunk.ids[0] = START;
        OpenChunk { chunk, len: 1, pad }
    }

    /// Adds a group of ids, going on to further chunks as need be.
    fn add(&mut self, mut group: &[u32], weight: f32, done: &mut Vec<Chunk>) {
        let cut = group.len() >= CUT_FROM;
        loop {
            let room = CHUNK - 1 - self.len;
            if group.len() <= room {
                return self.put(group, weight);
            }
            if cut {
                let (now, later) = group.split_at(room);
                self.put(now, weight);
                group = later;
            }
            self.finish(done);
        }
    }

    fn put(&mut self, ids: &[u32], weight: f32) {
        let places = self.chunk.ids.iter_mut().zip(&mut self.chunk.weights).skip(self.len);
        for ((id_at, weight_at), id) in places.zip(ids) {
            (*id_at, *weight_at) = (*id, weight);
        }
        self.len += ids.len();
    }

    /// Ends this chunk and opens the next.
    fn finish(&mut self, done: &mut Vec<Chunk>) {
        if let Some(last) = self.chunk.ids.get_mut(self.len) {
            *last = END;
        }
        done.push(std::mem::replace(self, OpenChunk::new(self.pad)).chunk);
    }
}

/// A stretch of the prompt yet to be read, in bytes, and the weight around it.
#[derive(Clone, Copy)]
struct Span {
    start: usize,
    end: usize,
    weight: f64,
}

/// A `(` that opens a group, and the place after the `)` that closes it: `usize::MAX` if none does.
struct Parentheses {
    start: usize,
    end: usize,
}

/// All groups, nested ones too, in the order of their starts.
fn groups(text: &str) -> Vec<Parentheses> {
    let mut groups: Vec<Parentheses> = Vec::new();
    let mut open = Vec::new();
    // How many `)` came too many: each makes one later `(` plain.
    let mut surplus = 0_usize;
    for (at, parenthesis) in text.bytes().enumerate() {
        match parenthesis {
            b'(' if surplus > 0 => surplus -= 1,
            b'(' => {
                open.push(groups.len());
                groups.push(Parentheses { start: at, end: usize::MAX });
            }
            b')' => match open.pop() {
                Some(group) => groups.get_mut(group).into_iter().for_each(|group| group.end = at + 1),
                None => surplus += 1,
            },
            _ => {}
        }
    }
    groups
}

/// What is between the parentheses of a group: its words, and the weight they get.
fn inside(text: &str, start: usize, end: usize, around: f64) -> Span {
    let body = text.get(start..end).unwrap_or_default();
    // A parenthesis after the colon cannot be in a number, so the search need not go past one; this
    // keeps it from reading the same text at every level of nesting.
    let last = body.rfind([':', '(', ')']).and_then(|at| body.split_at_checked(at));
    let (words, number) = last.unwrap_or_default();
    match number.strip_prefix(':').filter(|_| !words.is_empty()).and_then(python_float) {
        Some(weight) => Span { start, end: start + words.len(), weight },
        None => Span { start, end, weight: around * EMPHASIS },
    }
}

/// Stand-ins for escaped parentheses, which neither group nor end a weight. Control characters, as in
/// ComfyUI: a prompt that holds them gets parentheses for them there too.
const ESCAPES: [(&str, &str, &str); 2] = [("\\)", "\0\u{1}", ")"), ("\\(", "\0\u{2}", "(")];

fn escape(text: &str) -> String {
    ESCAPES.iter().fold(text.to_owned(), |text, (escaped, stand_in, _)| text.replace(escaped, stand_in))
}

fn unescape(text: &str) -> String {
    ESCAPES.iter().fold(text.to_owned(), |text, (_, stand_in, plain)| text.replace(stand_in, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Segments as `text*weight`, which reads better than the structs.
    fn parsed(text: &str) -> String {
        let show = |segment: &Segment| format!("{}*{}", segment.text, segment.weight);
        parse(text).iter().map(show).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn parentheses_weigh() {
        let cases = [
            ("", ""),
            ("a cat", "a cat*1"),
            ("(cat)", "cat*1.1"),
            ("((cat))", "cat*1.21"),
            ("(a (b (c)))", "a *1.1|b *1.21|c*1.331"),
            ("(cat:1.3)", "cat*1.3"),
            ("(outer (inner:1.5) text:1.2)", "outer *1.2|inner*1.5| text*1.2"),
            ("(a (b):2)", "a *2|b*2.2"),
            ("(a:b:1.1)", "a:b*1.1"),
            ("(:1.3)", ":1.3*1.1"),
            ("(cat:)", "cat:*1.1"),
            ("(cat:nan)", "cat*NaN"),
            ("(cat:2(x))", "cat:2*1.1|x*1.21"),
            ("()( )", " *1.1"),
        ];
        for (text, expected) in cases {
            assert_eq!(parsed(text), expected, "{text:?}");
        }
    }

    #[test]
    fn odd_parentheses_are_as_odd_as_in_comfyui() {
        let cases = [
            ("unbalanced (paren", "unbalanced *1|(paren*1"),
            ("unbalanced paren)", "unbalanced paren)*1"),
            ("))((", "))((*1"),
            (") (a) (b)", ") (a) (b)*1"),
            ("(a (b) c", "(a (b) c*1"),
            ("(a (b)", "a *1.1|(b*1.1"),
            ("((((x)", "(((x*1.1"),
            (r"\(not weighted\)", "(not weighted)*1"),
            (r"(a \(b\) c:1.4)", "a (b) c*1.4"),
            (r"\\(odd", r"\(odd*1"),
            ("\0\u{1}", ")*1"),
        ];
        for (text, expected) in cases {
            assert_eq!(parsed(text), expected, "{text:?}");
        }
    }

    #[test]
    fn small_groups_move_whole_and_large_ones_are_cut() {
        let tokenizer = Tokenizer::new();
        let lengths = |text: &str| -> Vec<usize> {
            let words = |chunk: &Chunk| chunk.ids.iter().position(|&id| id == END).unwrap() - 1;
            chunks(&tokenizer, text, 0).unwrap().chunks.iter().map(words).collect()
        };
        let cats = "cat ".repeat(70);
        assert_eq!(lengths(&format!("{cats}(a b c d e f g)")), [70, 7]);
        assert_eq!(lengths(&format!("{cats}(a b c d e f g h)")), [75, 3]);
        assert_eq!(lengths(&"cat ".repeat(75)), [75]);
        assert_eq!(lengths(&"cat ".repeat(76)), [75, 1]);
    }

    #[test]
    fn a_break_begins_a_chunk() {
        let tokenizer = Tokenizer::new();
        let lengths = |text: &str| -> Vec<usize> {
            let text = crate::text::compose::breaks(text);
            let words = |chunk: &Chunk| chunk.ids.iter().position(|&id| id == END).unwrap() - 1;
            chunks(&tokenizer, &text, 0).unwrap().chunks.iter().map(words).collect()
        };
        assert_eq!(lengths("a b BREAK c"), [2, 1]);
        assert_eq!(lengths("a (b BREAK c d:1.2)"), [2, 2]);
        assert_eq!(lengths("BREAK a BREAK BREAK"), [0, 1, 0]);
        assert_eq!(lengths("BREAK"), [0]);
        assert_eq!(lengths(&format!("{}BREAK cat", "cat ".repeat(75))), [75, 1]);
        let weights = chunks(&tokenizer, &crate::text::compose::breaks("(b BREAK c:1.2)"), 0).unwrap();
        assert_eq!(weights.chunks.iter().map(|c| c.weights[1]).collect::<Vec<_>>(), [1.2, 1.2]);
    }

    #[test]
    fn embeddings_are_named_or_text() {
        let tokenizer = Tokenizer::new();
        let named = chunks(&tokenizer, "a (embedding:foo, bar:2)", END).unwrap();
        assert_eq!(named.missing_embeddings, ["foo"]);
        assert_eq!(named.chunks[0].ids[..5], [START, 320, 267, 2411, END]);
        assert_eq!(named.chunks[0].weights[..5], [1.0, 1.0, 2.0, 2.0, 1.0]);
        assert!(named.weighted());
        let text = chunks_with(&tokenizer, "embedding:foo", END, Embeddings::Text).unwrap();
        assert!(text.missing_embeddings.is_empty() && !text.weighted());
        assert_eq!(text.chunks[0].ids[1..5], [19703, 796, 281, 23435]);
    }

    #[test]
    fn padding_must_be_a_token() {
        let error = chunks(&Tokenizer::new(), "", VOCABULARY).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Usage);
    }
}
