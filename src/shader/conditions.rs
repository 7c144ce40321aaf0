//! `#if NAME`, `#if !NAME`, `#else` and `#endif`: which lines of a WGSL file belong to a variant's text. They nest. An
//! unknown name is an error wherever it is, also between lines that are left out.

use std::fmt;

/// The names that `#if` lines may ask for, and whether each of them holds.
pub type Conditions = [(&'static str, bool)];

/// What is wrong with a file's directives, with the number of the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DirectiveError {
    /// `#if` with a name that is not among the conditions.
    UnknownName { line: usize, name: String },
    /// `#if` without a name or with more than one, or words behind `#else` or `#endif`.
    Malformed { line: usize },
    /// `#else` or `#endif` without an `#if`.
    WithoutIf { line: usize },
    /// A second `#else` of one `#if`.
    SecondElse { line: usize },
    /// `#if` without an `#endif`.
    MissingEndif { line: usize },
}

impl fmt::Display for DirectiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownName { line, name } => write!(f, "line {line}: #if does not know the name {name}"),
            Self::Malformed { line } => write!(f, "line {line}: a directive with too few or too many words"),
            Self::WithoutIf { line } => write!(f, "line {line}: no #if before it"),
            Self::SecondElse { line } => write!(f, "line {line}: a second #else"),
            Self::MissingEndif { line } => write!(f, "line {line}: #if without #endif"),
        }
    }
}

/// An `#if` that is not closed yet.
struct Open {
    line: usize,
    /// Whether its lines would be taken if all around it were.
    holds: bool,
    has_else: bool,
}

/// The lines of `text` that are left under `conditions`, without directives.
pub fn chosen<'t>(text: &'t str, conditions: &Conditions) -> Result<Vec<&'t str>, DirectiveError> {
    let mut open: Vec<Open> = Vec::new();
    let mut lines = Vec::new();
    for (line, content) in (1..).zip(text.lines()) {
        let mut words = content.split_whitespace();
        let (directive, name) = match words.next() {
            Some(word @ "#if") => (word, words.next().ok_or(DirectiveError::Malformed { line })?),
            Some(word @ ("#else" | "#endif")) => (word, ""),
            _ => {
                if open.iter().all(|o| o.holds) {
                    lines.push(content);
                }
                continue;
            }
        };
        if words.next().is_some() {
            return Err(DirectiveError::Malformed { line });
        }
        match directive {
            "#if" => open.push(Open { line, holds: holds(line, name, conditions)?, has_else: false }),
            "#else" => {
                let last = open.last_mut().ok_or(DirectiveError::WithoutIf { line })?;
                if last.has_else {
                    return Err(DirectiveError::SecondElse { line });
                }
                (last.holds, last.has_else) = (!last.holds, true);
            }
            _ => {
                open.pop().ok_or(DirectiveError::WithoutIf { line })?;
            }
        }
    }
    match open.pop() {
        Some(Open { line, .. }) => Err(DirectiveError::MissingEndif { line }),
        None => Ok(lines),
    }
}

/// Whether `NAME` or `!NAME` holds.
fn holds(line: usize, name: &str, conditions: &Conditions) -> Result<bool, DirectiveError> {
    let (plain, wanted) = name.strip_prefix('!').map_or((name, true), |plain| (plain, false));
    let known = conditions.iter().find(|(of, _)| *of == plain);
    let unknown = || DirectiveError::UnknownName { line, name: plain.to_owned() };
    known.map(|(_, value)| *value == wanted).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, a: bool, b: bool) -> Result<String, DirectiveError> {
        chosen(text, &[("A", a), ("B", b)]).map(|lines| lines.join(" "))
    }

    #[test]
    fn a_name_chooses_between_lines() {
        let text = "x\n#if A\ny\n#else\nz\n#endif\nw";
        assert_eq!(of(text, true, false), Ok("x y w".into()));
        assert_eq!(of(text, false, false), Ok("x z w".into()));
        assert_eq!(of("#if !A\ny\n#endif", false, false), Ok("y".into()));
        assert_eq!(of("#if !A\ny\n#endif", true, false), Ok(String::new()));
        // A line of WGSL is no directive, wherever it begins.
        assert_eq!(of("  #if A\n  y\n  #endif\n#import A", true, false), Ok("  y #import A".into()));
    }

    #[test]
    fn conditions_nest() {
        let text = "#if A\n#if B\n1\n#else\n2\n#endif\n3\n#else\n#if B\n4\n#endif\n5\n#endif";
        let all = [(true, true), (true, false), (false, true), (false, false)].map(|(a, b)| of(text, a, b));
        assert_eq!(all, ["1 3", "2 3", "4 5", "5"].map(|lines| Ok(lines.to_owned())));
    }

    #[test]
    fn mistakes_are_errors_with_their_line() {
        use DirectiveError as E;
        let unknown = |line, name: &str| E::UnknownName { line, name: name.into() };
        let cases = [
            ("#if C\n#endif", unknown(1, "C")),
            ("x\n#if !a\n#endif", unknown(2, "a")),
            // Also where no line is taken.
            ("#if A\n#if C\n#endif\n#endif", unknown(2, "C")),
            ("#if A && B\n#endif", E::Malformed { line: 1 }),
            ("#if\n#endif", E::Malformed { line: 1 }),
            ("#if A\n#else B\n#endif", E::Malformed { line: 2 }),
            ("#if A\n#endif A", E::Malformed { line: 2 }),
            ("x\n#else", E::WithoutIf { line: 2 }),
            ("#if A\n#endif\n#endif", E::WithoutIf { line: 3 }),
            ("#if A\n#else\n#else\n#endif", E::SecondElse { line: 3 }),
            ("x\n#if A\ny", E::MissingEndif { line: 2 }),
            // The inner one is what is open.
            ("#if A\n#if B\n#else\n", E::MissingEndif { line: 2 }),
            ("#if A\n#if B\n#endif\n", E::MissingEndif { line: 1 }),
        ];
        for (text, error) in cases {
            assert_eq!(of(text, false, true), Err(error), "{text}");
        }
    }
}
