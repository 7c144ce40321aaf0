//! What people write in prompts for other programs, and what is read otherwise here. ComfyUI takes all of
//! it for words; so does this crate, but for [`compose`].
#![warn(clippy::indexing_slicing, clippy::string_slice)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::string_slice))]

use std::fmt;

use super::compose;

/// The log target of what [`Model::generate`](crate::Model::generate) reports of prompts, for a program that
/// reports them itself.
pub const LOG: &str = "sagittal::prompts";

/// Letters of an example in a sentence.
const EXAMPLE: usize = 40;
/// What A1111 multiplies a weight by for each bracket.
const LESS: f32 = 1.0 / 1.1;
/// Words of the extensions Regional Prompter and Neutral Prompt.
const EXTENSIONS: [&str; 9] =
    ["ADDCOMM", "ADDBASE", "ADDCOL", "ADDROW", "ADDP", "AND_PERP", "AND_SALT", "AND_TOPK", "AND_ALIGN"];
/// Deeper groups mean nothing in any program, and would take long.
const DEEPEST: usize = 64;

/// A way of writing that means something elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A1111's `[cat:dog:0.5]`: other words from a step on.
    Editing,
    /// A1111's `[red|blue]`: words that alternate from step to step.
    Alternation,
    /// A1111's `[tree]`: words that weigh less.
    LessEmphasis,
    /// A1111's `\[`: a bracket that is one.
    Escape,
    /// `{red|blue}` of ComfyUI's editor and of the extension Dynamic Prompts: one of several at random.
    Choice,
    /// A1111's `a cat AND a dog`: prompts whose effects add up.
    And,
    /// `__animal__` of Dynamic Prompts and others: a word out of a file.
    Wildcard,
    /// Words such as `ADDCOMM` and `AND_PERP`, which A1111's extensions look for.
    Extension,
    /// `<name:…>` other than a LoRA's.
    Tag,
}

/// A place in a prompt that is read otherwise elsewhere. Its text is a sentence for people.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    /// What it is.
    pub kind: Kind,
    /// The place, cut where it is long.
    pub example: String,
    /// Of [`Kind::And`], the sum of the prompts' strengths; of [`Kind::LessEmphasis`], the words' weight.
    pub strength: f32,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, example, strength } = self;
        let words = "is read as words like others";
        match kind {
            Kind::Editing => write!(f, "A1111's prompt editing, `{example}`, {words}"),
            Kind::Alternation => write!(f, "A1111's alternation of words, `{example}`, {words}"),
            Kind::LessEmphasis => {
                write!(
                    f,
                    "A1111's weight of less than 1, `{example}`, {words}: (words:{strength}) weighs them so"
                )
            }
            Kind::Escape => write!(f, "A1111's escaped bracket, `{example}`, {words}, its backslash too"),
            Kind::Choice => write!(f, "a choice at random, `{example}`, {words}"),
            Kind::Wildcard => write!(f, "a wildcard, `{example}`, {words}"),
            Kind::Extension => write!(f, "a word of A1111's extensions, `{example}`, {words}"),
            Kind::Tag => write!(f, "the tag `{example}` {words}: a LoRA's is <lora:NAME:WEIGHT>"),
            Kind::And => write!(
                f,
                "A1111's AND adds prompts up, here they are averaged: a CFG scale {strength} times as large is the same"
            ),
        }
    }
}

/// What `prompt` holds of such kinds, each once, with its first place.
///
/// ```
/// use sagittal::internals::text::syntax::{Kind, notes};
/// let kinds: Vec<Kind> = notes("a [cat:dog:0.5] in [red|blue]").iter().map(|note| note.kind).collect();
/// assert_eq!(kinds, [Kind::Editing, Kind::Alternation]);
/// assert!(notes("a (red:1.2) cat").is_empty());
/// ```
pub fn notes(prompt: &str) -> Vec<Note> {
    let mut notes: Vec<Note> = Vec::new();
    let mut add = |kind, example: &str, strength| {
        if !notes.iter().any(|note| note.kind == kind) {
            let long = example.chars().nth(EXAMPLE).is_some();
            let start: String = example.chars().take(EXAMPLE).collect();
            notes.push(Note { kind, example: if long { start + "…" } else { start }, strength });
        }
    };
    for (start, end) in groups(prompt) {
        let (Some(whole), Some(inner)) = (prompt.get(start..end), prompt.get(start + 1..end - 1)) else {
            continue;
        };
        let has_bar = at_top(inner).any(|c| c == '|');
        match (whole.starts_with('['), has_bar) {
            (true, true) => add(Kind::Alternation, whole, 1.0),
            (true, false) if ends_in_number(inner) => add(Kind::Editing, whole, 1.0),
            (true, false) if !inner.trim().is_empty() => add(Kind::LessEmphasis, whole, less(whole)),
            (false, true) => add(Kind::Choice, whole, 1.0),
            _ => {}
        }
    }
    if let Some(at) = ["\\[", "\\]"].iter().find_map(|escape| prompt.find(escape)) {
        add(Kind::Escape, prompt.get(at..at + 2).unwrap_or_default(), 1.0);
    }
    if let Some(name) = wildcard(prompt) {
        add(Kind::Wildcard, name, 1.0);
    }
    let mut words = prompt.split(|c: char| !c.is_ascii_alphabetic() && c != '_');
    if let Some(word) = words.find(|word| EXTENSIONS.contains(word)) {
        add(Kind::Extension, word, 1.0);
    }
    if let Some(tag) = tag(prompt) {
        add(Kind::Tag, tag, 1.0);
    }
    let parts = compose::parts(prompt);
    if parts.len() > 1 {
        let sum: f32 = parts.iter().map(|part| part.strength).sum();
        let sum = (sum * 1e4).round() / 1e4;
        // The sum of weights that add up to 1 is their average.
        if sum != 1.0 {
            add(Kind::And, "AND", sum);
        }
    }
    notes
}

/// The weight of words in so many brackets, one in the other, to two places.
fn less(whole: &str) -> f32 {
    let open = whole.bytes().take_while(|b| *b == b'[').count();
    let close = whole.bytes().rev().take_while(|b| *b == b']').count();
    let levels = i32::try_from(open.min(close)).unwrap_or(i32::MAX);
    (LESS.powi(levels) * 100.0).round() / 100.0
}

/// The first `__name__`.
fn wildcard(prompt: &str) -> Option<&str> {
    let marks: Vec<usize> = prompt.match_indices("__").map(|(at, _)| at).collect();
    let is_name = |name: &str| {
        !name.is_empty()
            && name.chars().all(|c| c.is_alphanumeric() || "-_/*.".contains(c))
            && !name.starts_with('_')
    };
    let mut pairs = marks.iter().zip(marks.get(1..).unwrap_or_default());
    let (start, end) = pairs.find(|(start, end)| prompt.get(**start + 2..**end).is_some_and(is_name))?;
    prompt.get(*start..*end + 2)
}

/// The first `<name:…>` that is no LoRA's and no hypernetwork's as A1111 writes them.
fn tag(prompt: &str) -> Option<&str> {
    prompt.match_indices('<').find_map(|(at, _)| {
        let rest = prompt.get(at..)?;
        let whole = rest.get(..=rest.find('>')?)?;
        let (name, _) = whole.get(1..)?.split_once(':')?;
        let word = name.trim().starts_with(char::is_alphabetic)
            && name.trim().chars().all(|c| c.is_alphanumeric() || c == '_');
        (word && !["lora", "lyco", "hypernet"].contains(&name)).then_some(whole)
    })
}

/// Whether the text ends in a colon and a number, as prompt editing does: a share of the steps, or a step.
fn ends_in_number(inner: &str) -> bool {
    inner.rsplit_once(':').is_some_and(|(_, number)| number.trim().parse::<f64>().is_ok())
}

/// Bytes from the opening to behind the closing bracket of each group, in the order of their starts. Brackets
/// without a partner are words in A1111 too.
fn groups(prompt: &str) -> Vec<(usize, usize)> {
    let (mut open, mut found, mut escaped) = (Vec::new(), Vec::new(), false);
    for (at, c) in prompt.char_indices() {
        match c {
            '[' | '{' if !escaped && open.len() < DEEPEST => open.push((at, c)),
            ']' | '}' if !escaped => {
                let partner = if c == ']' { '[' } else { '{' };
                let last = open.iter().rposition(|(_, opening)| *opening == partner);
                let start = last.and_then(|last| open.drain(last..).next());
                found.extend(start.map(|(start, _)| (start, at + 1)));
            }
            _ => {}
        }
        escaped = c == '\\' && !escaped;
    }
    found.sort_unstable();
    found
}

/// The letters of a group that are in no group inside it.
fn at_top(inner: &str) -> impl Iterator<Item = char> {
    let mut depth = 0_usize;
    inner.chars().filter(move |c| {
        match c {
            '[' | '{' | '(' => depth += 1,
            ']' | '}' | ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_extensions_read() {
        let of = |text: &str| notes(text).first().map(|note| (note.kind, note.example.clone()));
        for (text, kind, example) in [
            ("a __animals/wild__ in snow", Kind::Wildcard, "__animals/wild__"),
            ("a cat ADDCOMM b ADDROW c", Kind::Extension, "ADDCOMM"),
            ("a cat AND_PERP dog", Kind::Extension, "AND_PERP"),
            ("a <LORA:x:1> cat", Kind::Tag, "<LORA:x:1>"),
            ("a < lora:x:1> cat", Kind::Tag, "< lora:x:1>"),
        ] {
            assert_eq!(of(text), Some((kind, example.to_owned())), "{text}");
        }
        for text in ["a <lora:x:1> cat", "1 < 2: yes > no", "snake__case", "a __ b __", "<3 : >", "ADDED"] {
            assert_eq!(of(text), None, "{text}");
        }
    }

    #[test]
    fn brackets_give_their_weight() {
        for (text, weight) in
            [("[tree]", "0.91"), ("a [[tree]]", "0.83"), ("[[[tree]]]", "0.75"), ("[[a] b]", "0.91")]
        {
            let note = notes(text).remove(0).to_string();
            assert!(note.contains(&format!("(words:{weight})")), "{text}: {note}");
        }
    }

    #[test]
    fn each_way_of_writing_is_recognised() {
        use Kind::{Alternation, And, Choice, Editing, Escape, LessEmphasis};
        let cases: &[(&str, &[(Kind, &str)])] = &[
            ("a fox", &[]),
            ("a (fox:1.2), 16:9", &[]),
            ("a [cat:dog:0.5] b", &[(Editing, "[cat:dog:0.5]")]),
            ("[cat:10]", &[(Editing, "[cat:10]")]),
            ("[cat::0.25]", &[(Editing, "[cat::0.25]")]),
            ("[ (cat:1.2) : dog : .5 ]", &[(Editing, "[ (cat:1.2) : dog : .5 ]")]),
            ("[red|blue] [tree]", &[(Alternation, "[red|blue]"), (LessEmphasis, "[tree]")]),
            ("[[tree]]", &[(LessEmphasis, "[[tree]]")]),
            ("[a:[b|c]:0.5]", &[(Editing, "[a:[b|c]:0.5]"), (Alternation, "[b|c]")]),
            ("[the ratio 4:x]", &[(LessEmphasis, "[the ratio 4:x]")]),
            ("[] [open", &[]),
            ("close]", &[]),
            (r"a \[b\]", &[(Escape, r"\[")]),
            ("{red|blue} {odd}", &[(Choice, "{red|blue}")]),
            ("a cat AND a dog", &[(And, "AND")]),
            ("a cat :0.5 AND a dog :0.5", &[]),
            ("SAND and", &[]),
            ("[grün|🦊]", &[(Alternation, "[grün|🦊]")]),
        ];
        for (prompt, expected) in cases {
            let found = notes(prompt);
            let found: Vec<(Kind, &str)> = found.iter().map(|n| (n.kind, n.example.as_str())).collect();
            assert_eq!(found, *expected, "{prompt}");
        }
        assert!(notes("a :1.5 AND b :2").first().unwrap().to_string().contains("3.5 times"));
        assert!(
            notes(&format!("[{}]", "x".repeat(999))).first().unwrap().example.chars().count() == EXAMPLE + 1
        );
    }
}
