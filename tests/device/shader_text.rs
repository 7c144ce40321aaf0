//! What shaders' texts keep to beyond what naga asks, in every variant and every way to write it: other readers
//! of WGSL are stricter, and one of them leaves variables in loops as the pass before left them.

use super::shaders::variants;
use crate::common::Failures;
use sagittal::internals::shader::{self, Offers};

/// Faults of every text, each once.
fn faults_of_all(faults: impl Fn(&[Token<'_>]) -> Vec<String>) {
    let mut failures = Failures::default();
    let (mut texts, mut seen) = (0, std::collections::HashSet::new());
    for (variant, _) in variants() {
        for (native, shared_loads) in [(false, false), (false, true), (true, false), (true, true)] {
            let matrices = variant.matrices().filter(|_| native).into_iter().collect();
            let text = shader::source(&variant, &Offers { matrices, shared_loads }).unwrap();
            texts += 1;
            for fault in faults(&tokens(&text)) {
                let said = format!("{}: {fault}", variant.kernel);
                failures.check(!seen.insert(said.clone()), || said);
            }
        }
    }
    assert!(texts > 4000, "{texts} texts");
    failures.finish();
}

/// The language makes a variable of a loop zero at each pass. Not all that compile it do.
#[test]
fn every_variable_of_a_function_has_an_initial_value() {
    faults_of_all(without_initial_value);
}

/// The language lets no reader guess: `a | b << c`, `a << b + c` and `a || b && c` take parentheses.
#[test]
fn operators_that_mix_badly_are_in_parentheses() {
    faults_of_all(mixed);
}

/// The tests above find what they look for.
#[test]
fn faults_of_texts_are_found() {
    let no_value = |body: &str| without_initial_value(&tokens(&format!("fn f() {{ {body} }}"))).len();
    assert_eq!(no_value("loop { var x: array<vec4<f32>, 4>; }"), 1);
    assert_eq!(no_value("var x: u32; var y: f32 = 1.0;"), 1);
    assert_eq!(no_value("var x = array<vec4<f32>, 4>(); for (var i = 0u; i < 4u; i++) {}"), 0);
    assert_eq!(without_initial_value(&tokens("var<private> x: u32; fn f() { let y = x; }")), [""; 0]);
    let bad = [
        "x = a | b << 1u;",
        "x = a >> 1u << 2u;",
        "x = a >> 1u & 1u;",
        "x = a << b + c;",
        "x = a * b << c;",
        "x = a & b | c;",
        "x = a ^ b & c;",
        "x = a & b == c;",
        "x = a < b == c;",
        "x = a || b && c;",
        "x = f(a, b | c + d);",
        "x = y[a && b || c];",
        "if a && b || c { }",
        "return a | vec4<u32>(b) >> c;",
        "x |= a & b << c;",
    ];
    for text in bad {
        assert_eq!(mixed(&tokens(text)).len(), 1, "{text}");
    }
    let good = [
        "x = a | (b << 1u) | c;",
        "x = (a >> 1u) & 1u;",
        "x = a + b * c - d / e % f;",
        "x = a + b < c * d && e == f;",
        "x = a << 1u < b && c >= d >> 2u;",
        "x = -a | ~b | *c;",
        "x = (a || b) && c || d;",
        "var x = array<array<vec4<f32>, 4u * Q>, 2>(); x = select(a & b, c, d < e);",
        "fn f(a: ptr<function, array<u32, 4>>) -> vec2<u32> { return vec2<u32>(*a << 1u, -a >> 2u); }",
        "for (var i = 0u; i < 4u && x; i++) { y <<= i; }",
        "if a && !b { c[d | e] = f || g; }",
    ];
    for text in good {
        let found = mixed(&tokens(text));
        // `(a || b) && c || d` mixes still: its brackets are around something else.
        assert_eq!(found.len(), usize::from(text.contains("&& c || d")), "{text}: {found:?}");
    }
}

/// A piece of a text, and the line it is in.
#[derive(Debug, Clone, Copy)]
struct Token<'t> {
    kind: Kind,
    word: &'t str,
    line: &'t str,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// A name or a number.
    Word,
    /// `(`, `[`, `{`, or the `<` behind a type's name.
    Open,
    Close,
    /// Between two expressions: `,`, `;`, assignments and the like.
    Between,
    /// With an expression on either side.
    Operator,
    /// Before an expression.
    Unary,
}

/// Signs between words, longest first.
const SIGNS: [&str; 43] = [
    "<<=", ">>=", "<<", ">>", "<=", ">=", "==", "!=", "&&", "||", "->", "++", "--", "+=", "-=", "*=", "/=",
    "%=", "&=", "|=", "^=", "<", ">", "=", "&", "|", "^", "+", "-", "*", "/", "%", "!", "~", "(", ")", "[",
    "]", "{", "}", ",", ";", ":",
];

fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut found: Vec<Token<'_>> = Vec::new();
    let mut templates = Vec::new();
    for line in text.lines() {
        let line = line.split("//").next().unwrap_or_default().trim();
        let mut rest = line;
        while let Some(first) = rest.chars().next() {
            let is_word = |c: char| c.is_alphanumeric() || "_.@".contains(c);
            let length = match rest.find(|c| !is_word(c)).unwrap_or(rest.len()) {
                0 if first.is_whitespace() => {
                    rest = &rest[first.len_utf8()..];
                    continue;
                }
                0 => SIGNS.iter().find(|s| rest.starts_with(**s)).expect("a sign of the language").len(),
                word => word,
            };
            let mut word = &rest[..length];
            // A list of a type's parameters begins right behind its name; operators have spaces around them.
            let before = found.last().copied();
            let follows_word = before.is_some_and(|t| t.kind == Kind::Word && ends_at(t.word, rest));
            let ends_template = word.starts_with('>') && templates.last() == Some(&'<');
            if ends_template {
                word = &word[..1];
            }
            let after_value = before.is_some_and(|t| {
                matches!(t.kind, Kind::Close) && t.word != "}"
                    || t.kind == Kind::Word && !KEYWORDS.contains(&t.word)
            });
            let kind = match word {
                "<" if follows_word => Kind::Open,
                ">" if ends_template => Kind::Close,
                "(" | "[" | "{" => Kind::Open,
                ")" | "]" | "}" => Kind::Close,
                "->" | "++" | "--" | "," | ";" | ":" | "=" => Kind::Between,
                "<=" | ">=" | "==" | "!=" => Kind::Operator,
                _ if word.starts_with(is_word) => Kind::Word,
                _ if word.len() > 1 && word.ends_with('=') => Kind::Between,
                _ if after_value => Kind::Operator,
                _ => Kind::Unary,
            };
            match kind {
                Kind::Open => templates.extend(word.chars()),
                Kind::Close => drop(templates.pop()),
                _ => {}
            }
            found.push(Token { kind, word, line });
            rest = &rest[word.len()..];
        }
    }
    assert!(templates.is_empty(), "brackets that stay open");
    found
}

/// Whether `rest` goes on where `word` of the same line ended.
fn ends_at(word: &str, rest: &str) -> bool {
    std::ptr::eq(word.as_bytes().as_ptr_range().end, rest.as_ptr())
}

/// Words behind which an expression begins.
const KEYWORDS: [&str; 6] = ["return", "if", "while", "switch", "case", "in"];

fn without_initial_value(tokens: &[Token<'_>]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        match token.word {
            "{" => depth += 1,
            "}" => depth -= 1,
            "var" if depth > 0 => {
                let mut until = tokens[at..].iter().take_while(|t| t.word != ";");
                if !until.any(|t| t.word == "=") {
                    faults.push(format!("no initial value: {}", token.line));
                }
            }
            _ => {}
        }
    }
    faults
}

/// Expressions whose operators the language wants apart.
fn mixed(tokens: &[Token<'_>]) -> Vec<String> {
    // For each bracket that is open, the operators since the last expression began.
    let mut open: Vec<Vec<&str>> = vec![Vec::new()];
    let mut faults = Vec::new();
    for token in tokens {
        let ended = match token.kind {
            Kind::Open if token.word == "{" => open.last_mut().map(std::mem::take),
            Kind::Between => open.last_mut().map(std::mem::take),
            Kind::Close => open.pop(),
            _ => None,
        };
        if ended.is_some_and(|operators| !keeps_apart(&operators)) {
            faults.push(format!("operators mix: {}", token.line));
        }
        match token.kind {
            Kind::Open => open.push(Vec::new()),
            Kind::Operator => open.last_mut().expect("balanced").push(token.word),
            _ => {}
        }
    }
    faults
}

/// Whether these operators may follow each other in an expression.
fn keeps_apart(operators: &[&str]) -> bool {
    let is = |kind: &'static [&'static str]| move |o: &&str| kind.contains(o);
    if operators.iter().any(is(&["&", "|", "^"])) {
        return operators.iter().all(|o| *o == operators[0]);
    }
    if operators.contains(&"&&") && operators.contains(&"||") {
        return false;
    }
    operators.split(is(&["&&", "||"])).all(|one| {
        let sides: Vec<&[&str]> = one.split(is(&["<", ">", "<=", ">=", "==", "!="])).collect();
        let shifts = |side: &&[&str]| side.iter().any(is(&["<<", ">>"]));
        sides.len() <= 2 && sides.iter().all(|side| !shifts(side) || side.len() == 1)
    })
}
