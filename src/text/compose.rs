//! `AND` and `BREAK`, which users of A1111's web UI write in prompts. ComfyUI knows neither: there
//! they are words like others, so nothing here happens unless it is asked for.
#![warn(clippy::indexing_slicing, clippy::string_slice)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::string_slice))]

use super::prompt::BREAK;

/// A prompt among several that count together.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Its text.
    pub text: String,
    /// How much it counts; 1 is the usual.
    pub strength: f32,
}

impl Part {
    /// A prompt that counts as usual.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), strength: 1.0 }
    }
}

/// The prompts that the word `AND` sets apart, each with the strength after its last colon, if a
/// number ends it: `a cat :1.2 AND a dog`. A text without `AND` is one prompt, whatever its end.
///
/// ```
/// use sagittal::internals::text::compose::{Part, parts};
/// assert_eq!(parts("a cat :1.5 AND a (dog:2)"), [
///     Part { text: "a cat".into(), strength: 1.5 },
///     Part { text: "a (dog:2)".into(), strength: 1.0 },
/// ]);
/// assert_eq!(parts("16:9"), [Part { text: "16:9".into(), strength: 1.0 }]);
/// ```
pub fn parts(text: &str) -> Vec<Part> {
    match split(text, "AND").as_slice() {
        [_] => vec![Part::new(text)],
        several => several.iter().map(|part| part_of(part)).collect(),
    }
}

/// `text` with a mark for each word `BREAK`, at which [`chunks`](super::prompt::chunks) begins a
/// new chunk of 77 tokens.
pub fn breaks(text: &str) -> String {
    split(text, "BREAK").join(&BREAK.to_string())
}

/// `text` without its strength, and the strength.
fn part_of(text: &str) -> Part {
    let text = text.trim();
    let (before, number) = text.rsplit_once(':').unwrap_or((text, ""));
    match plain_number(number.trim()) {
        Some(strength) => Part { text: before.trim_end().to_owned(), strength },
        None => Part::new(text),
    }
}

/// A decimal number without exponent: words such as `nan` or `1e5` belong to the text.
fn plain_number(text: &str) -> Option<f32> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let plain = digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    text.parse().ok().filter(|number: &f32| plain && number.is_finite())
}

/// `text` cut at each `word` that is a word of its own.
fn split<'t>(text: &'t str, word: &str) -> Vec<&'t str> {
    let is_letter = |c: char| c.is_alphanumeric() || c == '_';
    let (mut pieces, mut start) = (Vec::new(), 0);
    for (at, _) in text.match_indices(word) {
        let end = at + word.len();
        let (before, after) = (text.get(..at).unwrap_or_default(), text.get(end..).unwrap_or_default());
        if !before.ends_with(is_letter) && !after.starts_with(is_letter) {
            pieces.push(text.get(start..at).unwrap_or_default());
            start = end;
        }
    }
    pieces.push(text.get(start..).unwrap_or_default());
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parts as `text*strength`.
    fn shown(text: &str) -> String {
        parts(text).iter().map(|p| format!("{}*{}", p.text, p.strength)).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn and_sets_prompts_apart() {
        let cases = [
            ("", "*1"),
            ("a AND b", "a*1|b*1"),
            (" a:1.2 AND b :.5 AND c: -2", "a*1.2|b*0.5|c*-2"),
            ("a AND", "a*1|*1"),
            ("a:+3.AND b", "a*3|b*1"),
            ("SAND AND_ ANDY land", "SAND AND_ ANDY land*1"),
            ("éAND AND x", "éAND*1|x*1"),
            ("a:nan AND b:1e5 AND c: AND d:1.2.3", "a:nan*1|b:1e5*1|c:*1|d:1.2.3*1"),
            ("at 12:30:2 AND :3", "at 12:30*2|*3"),
            (" as it is :2 ", " as it is :2 *1"),
        ];
        for (text, expected) in cases {
            assert_eq!(shown(text), expected, "{text:?}");
        }
    }

    #[test]
    fn break_becomes_a_mark() {
        assert_eq!(breaks("a BREAK b,BREAK\nBREAKFAST"), "a \u{3} b,\u{3}\nBREAKFAST");
        assert_eq!(breaks("no"), "no");
    }
}
