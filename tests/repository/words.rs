//! The parts of Rust files: what users and programmers read (doc comments and string literals), and code.

/// What a piece of a Rust file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    Code,
    Doc,
    Comment,
    Literal,
}

/// Doc comments and string literals of a Rust file, each with its first line, from 1.
pub fn readable(rust: &str) -> Vec<(usize, String)> {
    let is_read = |(line, piece, text)| [Piece::Doc, Piece::Literal].contains(&piece).then_some((line, text));
    pieces(rust).into_iter().filter_map(is_read).collect()
}

/// A Rust file without comments and the insides of strings.
pub fn code(rust: &str) -> String {
    pieces(rust).into_iter().filter(|(_, piece, _)| *piece == Piece::Code).map(|(.., text)| text).collect()
}

/// The pieces of a Rust file, each with its first line, from 1. Code comes character by character.
fn pieces(rust: &str) -> Vec<(usize, Piece, String)> {
    let chars: Vec<char> = rust.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\n');
    let (mut found, mut line, mut i) = (Vec::new(), 1, 0);
    while i < chars.len() {
        let begin = i;
        let code = |end: usize| (Piece::Code, chars[begin..end.min(chars.len())].iter().collect());
        let (piece, text): (Piece, String) = match (at(i), at(i + 1)) {
            ('/', '/') => {
                let end = (i..chars.len()).find(|&k| chars[k] == '\n').unwrap_or(chars.len());
                let is_doc = at(i + 2) == '!' || (at(i + 2) == '/' && at(i + 3) != '/');
                i = end;
                match is_doc {
                    true => (Piece::Doc, chars[begin + 3..end].iter().collect()),
                    false => (Piece::Comment, chars[begin..end].iter().collect()),
                }
            }
            ('r', '"' | '#') if begin == 0 || !is_part_of_name(at(begin - 1)) => {
                let quote = (i + 1..chars.len()).find(|&k| chars[k] != '#').unwrap_or(chars.len());
                let marks = quote - i - 1;
                let ends = |k: &usize| chars[*k] == '"' && (1..=marks).all(|m| at(k + m) == '#');
                // `r#name` is no string.
                let end = (quote + 1..chars.len()).find(ends).filter(|_| at(quote) == '"');
                i = end.map_or(i + 1, |end| end + 1 + marks);
                match end {
                    Some(end) => (Piece::Literal, chars[quote + 1..end].iter().collect()),
                    None => code(i),
                }
            }
            ('"', _) => {
                i += 1;
                while i < chars.len() && chars[i] != '"' {
                    i += if chars[i] == '\\' { 2 } else { 1 };
                }
                i += 1;
                (Piece::Literal, chars[begin + 1..(i - 1).min(chars.len())].iter().collect())
            }
            // A character, such as '"'; otherwise a lifetime.
            ('\'', '\\') => {
                i = (i + 3..chars.len()).find(|&k| chars[k] == '\'').unwrap_or(i) + 1;
                code(i)
            }
            ('\'', _) if at(i + 2) == '\'' => {
                i += 3;
                code(i)
            }
            _ => {
                i += 1;
                code(i)
            }
        };
        found.push((line, piece, text));
        line += chars[begin..i.min(chars.len())].iter().filter(|c| **c == '\n').count();
    }
    found
}

fn is_part_of_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Lines and words of a text that starts in line `first`. Names in capitals are no words.
pub fn words(first: usize, text: &str) -> Vec<(usize, String)> {
    let of_line = |(i, line): (usize, &str)| {
        let words = line.split(|c: char| !is_part_of_name(c)).filter(|word| !word.is_empty());
        let words = words.filter(|word| word.chars().filter(|c| c.is_uppercase()).count() < 2);
        words.map(|word| (first + i, word.to_lowercase())).collect::<Vec<_>>()
    };
    text.lines().enumerate().flat_map(of_line).collect()
}

#[test]
fn texts_are_found() {
    let rust = "//! a\nlet x = \"b \\\" c\"; // d\nlet y = '\"'; /// e\nlet z = r#\"f \" g\"#; fn h<'a>() {}\n\"i\n j\"";
    let found: Vec<(usize, String)> = readable(rust);
    let found: Vec<(usize, &str)> = found.iter().map(|(line, text)| (*line, text.as_str())).collect();
    assert_eq!(found, [(1, " a"), (2, "b \\\" c"), (3, " e"), (4, "f \" g"), (5, "i\n j")]);
    assert_eq!(code(rust), "\nlet x = ; \nlet y = '\"'; \nlet z = ; fn h<'a>() {}\n");
    let all = words(5, "An\nold SIMD word_s");
    let all: Vec<(usize, &str)> = all.iter().map(|(line, word)| (*line, word.as_str())).collect();
    assert_eq!(all, [(5, "an"), (6, "old"), (6, "word_s")]);
}
