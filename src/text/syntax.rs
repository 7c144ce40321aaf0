//! What people write in prompts for other programs, and what is read otherwise here. ComfyUI takes all of
//! it for words; so does this crate, but for [`compose`].

use std::fmt;

use super::compose;

/// The log's target of what [`Model::generate`](crate::Model::generate) tells of prompts, for a program that
/// tells of them itself.
pub const LOG: &str = "sagittal::prompts";

/// Letters of an example in a sentence.
const EXAMPLE: usize = 40;
/// What A1111 multiplies a weight by for each bracket.
const LESS: f32 = 1.0 / 1.1;
/// Deeper groups are nobody's meaning, and would take their time.
const DEEPEST: usize = 64;

/// A way of writing that means something elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A1111's `[cat:dog:0.5]`: other words from a step on.
    Editing,
    /// A1111's `[red|blue]`: words that take turns.
    Alternation,
    /// A1111's `[tree]`: words that weigh less.
    LessEmphasis,
    /// A1111's `\[`: a bracket that is one.
    Escape,
    /// `{red|blue}` of ComfyUI's editor and of the extension Dynamic Prompts: one of several at random.
    Choice,
    /// A1111's `a cat AND a dog`: prompts whose effects add up.
    And,
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
            Kind::And => write!(
                f,
                "A1111's AND adds prompts up, here they are averaged: a CFG scale {strength} times as large is the same"
            ),
        }
    }
}

/// What `prompt` holds of such kinds, each told once, with its first place.
///
/// ```
/// use sagittal::text::syntax::{Kind, notes};
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
    let parts = compose::parts(prompt);
    if parts.len() > 1 {
        let sum: f32 = parts.iter().map(|part| part.strength).sum();
        add(Kind::And, "AND", (sum * 1e4).round() / 1e4);
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

/// The letters of a group that stand in no group of their own.
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
    fn brackets_tell_their_weight() {
        for (text, weight) in
            [("[tree]", "0.91"), ("a [[tree]]", "0.83"), ("[[[tree]]]", "0.75"), ("[[a] b]", "0.91")]
        {
            let note = notes(text).remove(0).to_string();
            assert!(note.contains(&format!("(words:{weight})")), "{text}: {note}");
        }
    }

    #[test]
    fn each_way_of_writing_is_told_by_its_name() {
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
