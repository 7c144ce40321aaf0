//! CLIP's tokenizer: text to vocabulary ids, as transformers' `CLIPTokenizer` (version 5) gives them.
//!
//! In order: special tokens are set apart, text is put in Unicode form NFC and lower-cased character
//! by character, split into words, and each word goes through byte-pair encoding.
//!
//! The tables are those of Unicode 17: characters that the reference's older tables do not know may
//! come out as other words.
#![warn(clippy::indexing_slicing, clippy::string_slice)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::string_slice))]

use super::bpe::Bpe;
use std::fmt;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// `<|startoftext|>`, the first id of a chunk.
pub const START: u32 = 49406;

/// `<|endoftext|>`, the id after the last word of a chunk; CLIP-L also pads with it.
pub const END: u32 = 49407;

/// How many ids there are: 0 to [`END`].
pub const VOCABULARY: u32 = 49408;

const START_TEXT: &str = "<|startoftext|>";
const END_TEXT: &str = "<|endoftext|>";

/// What an apostrophe may carry along as a word of its own.
const CONTRACTIONS: [&str; 7] = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"];

/// CLIP's vocabulary. Making one takes some ten milliseconds: make one and keep it.
#[derive(Clone)]
pub struct Tokenizer {
    bpe: Bpe,
}

impl Tokenizer {
    /// The vocabulary of CLIP-L, CLIP-G and CLIP-H, which is the same.
    pub fn new() -> Self {
        Tokenizer { bpe: Bpe::new() }
    }

    /// The ids of `text`, without start and end. Any text has ids; the time is O(n log n) at worst.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        // The two special tokens differ in the reference: the end is looked for in the raw
        // text, the start in the normalised text, so that only the start may be in capitals.
        for (i, part) in text.split(END_TEXT).enumerate() {
            if i > 0 {
                ids.push(END);
            }
            let normal: String = part.nfc().flat_map(char::to_lowercase).collect();
            for (i, part) in normal.split(START_TEXT).enumerate() {
                if i > 0 {
                    ids.push(START);
                }
                for_each_word(part, |word| self.bpe.encode(word, &mut ids));
            }
        }
        ids
    }
}

impl Default for Tokenizer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Tokenizer {
    /// The name alone: the vocabulary is no reading.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer").finish_non_exhaustive()
    }
}

/// What a character is to the word splitter.
#[derive(PartialEq, Eq, Clone, Copy)]
enum Class {
    Space,
    Letter,
    Number,
    Other,
}

/// Splits `text` by CLIP's rule `'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+`.
fn for_each_word<'a>(mut text: &'a str, mut visit: impl FnMut(&'a str)) {
    loop {
        text = text.trim_start();
        if text.is_empty() {
            return;
        }
        // Capitals written `<|ENDOFTEXT|>` are words, but the splitter still sets them apart.
        if let Some(rest) = text.strip_prefix(END_TEXT) {
            ["<|", "endoftext", "|>"].into_iter().for_each(&mut visit);
            text = rest;
            continue;
        }
        let (word, rest) = text.split_at(first_word(text));
        visit(word);
        text = rest;
    }
}

/// The length in bytes of the word that `text` begins with.
fn first_word(text: &str) -> usize {
    if let Some(contraction) = CONTRACTIONS.iter().find(|c| text.starts_with(**c)) {
        return contraction.len();
    }
    let Some(first) = text.chars().next() else { return 0 };
    match class(first) {
        Class::Number => first.len_utf8(),
        kind => text.find(|c| class(c) != kind).unwrap_or(text.len()),
    }
}

fn class(c: char) -> Class {
    if c.is_whitespace() {
        Class::Space
    } else if c.is_numeric() {
        Class::Number
    } else if is_letter(c) {
        Class::Letter
    } else {
        Class::Other
    }
}

/// Unicode category L: what is alphabetic, less the vowel signs, which are marks, and the circled
/// and squared capitals, which are symbols. (The third difference, letter-like numbers, is a
/// [`Class::Number`] already.)
fn is_letter(c: char) -> bool {
    let enclosed = matches!(
        c,
        '\u{24b6}'..='\u{24e9}' | '\u{1f130}'..='\u{1f149}' | '\u{1f150}'..='\u{1f169}' | '\u{1f170}'..='\u{1f189}'
    );
    c.is_alphabetic() && !is_combining_mark(c) && !enclosed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        let mut words = Vec::new();
        for_each_word(text, |word| words.push(word));
        words
    }

    #[test]
    fn words_are_letters_single_numbers_and_runs_of_the_rest() {
        assert_eq!(words(" ab12 c!? "), ["ab", "1", "2", "c", "!?"]);
        assert_eq!(words("don't 'sad !'s"), ["don", "'t", "'s", "ad", "!'", "s"]);
        assert_eq!(words("a\u{301} ⓐⅷª"), ["a", "\u{301}", "ⓐ", "ⅷ", "ª"]);
        assert_eq!(words("<|endoftext|>!"), ["<|", "endoftext", "|>", "!"]);
        assert!(words(" \u{a0}\n").is_empty());
    }

    #[test]
    fn specials_are_single_ids_wherever_they_stand() {
        let tokenizer = Tokenizer::new();
        assert_eq!(tokenizer.encode("!<|endoftext|>!"), [256, END, 256]);
        assert_eq!(tokenizer.encode("<|StartOfText|> A"), [START, 320]);
        assert_eq!(tokenizer.encode("<|ENDOFTEXT|>x"), [27, 347, 40786, 4160, 91, 285, 343]);
        assert_eq!(tokenizer.encode("<start_of_text>"), [283, 1572, 318, 539, 318, 4160, 285]);
    }

    #[test]
    fn every_sigma_has_one_small_letter() {
        let tokenizer = Tokenizer::new();
        assert_eq!(tokenizer.encode("ΟΔΟΣ"), tokenizer.encode("οδοσ"));
    }
}
