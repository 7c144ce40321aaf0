//! The number after a colon, read as Python's `float()` reads it.
#![warn(clippy::indexing_slicing, clippy::string_slice)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::string_slice))]

/// The zeros of the decimal digits outside ASCII (Unicode category Nd), each followed by its nine
/// fellows: an input method for another script may give `(cat:２)`.
const ZEROS: [u32; 65] = [
    0x0660, 0x06f0, 0x07c0, 0x0966, 0x09e6, 0x0a66, 0x0ae6, 0x0b66, 0x0be6, 0x0c66, 0x0ce6, 0x0d66, 0x0de6,
    0x0e50, 0x0ed0, 0x0f20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50, 0x1bb0,
    0x1c40, 0x1c50, 0xa620, 0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10, 0x104a0, 0x10d30,
    0x11066, 0x110f0, 0x11136, 0x111d0, 0x112f0, 0x11450, 0x114d0, 0x11650, 0x116c0, 0x11730, 0x118e0,
    0x11950, 0x11c50, 0x11d50, 0x11da0, 0x16a60, 0x16ac0, 0x16b50, 0x1d7ce, 0x1d7d8, 0x1d7e2, 0x1d7ec,
    0x1d7f6, 0x1e140, 0x1e2f0, 0x1e950, 0x1fbf0,
];

/// The value of `text`, or `None` where Python would raise. Beyond Rust's own grammar this allows
/// space around the number, `_` between digits, and the digits of every script.
pub(super) fn python_float(text: &str) -> Option<f64> {
    let ascii: String = text.chars().map(to_ascii).collect::<Option<_>>()?;
    let number = ascii.trim_matches([' ', '\t', '\n', '\u{b}', '\u{c}', '\r']);
    without_underscores(number)?.parse().ok()
}

/// The ASCII character that `float()` sees in place of `c`.
fn to_ascii(c: char) -> Option<char> {
    if c.is_ascii() {
        return Some(c);
    }
    if c.is_whitespace() {
        return Some(' ');
    }
    let code = u32::from(c);
    let zero = ZEROS.get(ZEROS.partition_point(|&zero| zero <= code).checked_sub(1)?)?;
    char::from_digit(code - zero, 10)
}

/// `number` less its `_`, each of which must have a digit on both sides.
fn without_underscores(number: &str) -> Option<String> {
    let mut parts = number.split('_').peekable();
    let mut joined = String::with_capacity(number.len());
    while let Some(part) = parts.next() {
        let starts_badly = !joined.is_empty() && !part.starts_with(|c: char| c.is_ascii_digit());
        let ends_badly = parts.peek().is_some() && !part.ends_with(|c: char| c.is_ascii_digit());
        if starts_badly || ends_badly {
            return None;
        }
        joined.push_str(part);
    }
    Some(joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_python_reads() {
        let cases = [
            ("1.3", 1.3),
            (" 1.25 ", 1.25),
            ("\u{a0}1.5\u{2003}", 1.5),
            ("1e1", 10.0),
            (".5", 0.5),
            ("5.", 5.0),
            ("+1", 1.0),
            ("-0.5", -0.5),
            ("1_000.2_5e0_1", 10002.5),
            ("２.５", 2.5),
            ("1\u{661}", 11.0),
            ("𝟙", 1.0),
            ("inf", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
            ("1e999", f64::INFINITY),
        ];
        for (text, value) in cases {
            assert_eq!(python_float(text), Some(value), "{text:?}");
        }
        assert!(python_float("NaN").is_some_and(f64::is_nan));
    }

    #[test]
    fn refuses_what_python_refuses() {
        let words =
            ["", " ", ".", "abc", "1 2", "1e", "0x10", "1,5", "1\0", "\u{1c}1.5", "½", "Ⅷ", "1\u{301}"];
        let underscores = ["_", "1_", "_1", "1__0", "1_.5", "1._5", "i_nf"];
        for text in words.into_iter().chain(underscores) {
            assert_eq!(python_float(text), None, "{text:?}");
        }
    }
}
