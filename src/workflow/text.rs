//! What ComfyUI's frontend replaces in texts before a workflow is run.

use serde_json::Value as Json;

use super::catalogue;
use super::graph::{Graph, Input, Node};

/// A point in local time, for file names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Year, four digits.
    pub year: u32,
    /// Month, from 1.
    pub month: u32,
    /// Day, from 1.
    pub day: u32,
    /// Hour, 0 to 23.
    pub hour: u32,
    /// Minute.
    pub minute: u32,
    /// Second.
    pub second: u32,
}

impl Default for Moment {
    /// The beginning of Unix time, for those who have no clock.
    fn default() -> Self {
        Self { year: 1970, month: 1, day: 1, hour: 0, minute: 0, second: 0 }
    }
}

impl Moment {
    /// `yyyy-MM-dd hh:mm:ss` and the like, letters by letters: `d`, `M`, `h`, `m`, `s` once or twice,
    /// `yy` and `yyyy`.
    fn format(&self, pattern: &str) -> String {
        let chars: Vec<char> = pattern.chars().collect();
        let mut out = String::new();
        let mut at = 0;
        while at < chars.len() {
            let letter = chars[at];
            let most = if letter == 'y' { 4 } else { 2 };
            let run = chars[at..].iter().take(most).take_while(|c| **c == letter).count();
            let number = match letter {
                'd' => self.day,
                'M' => self.month,
                'h' => self.hour,
                'm' => self.minute,
                's' => self.second,
                'y' if run == 2 => {
                    out.push_str(&format!("{:02}", self.year % 100));
                    at += run;
                    continue;
                }
                'y' if run == 4 => self.year,
                _ => {
                    out.extend(&chars[at..at + run.max(1)]);
                    at += run.max(1);
                    continue;
                }
            };
            out.push_str(&format!("{number:0run$}"));
            at += run;
        }
        out
    }
}

/// A file-name prefix with `%date:…%` and `%node.widget%` replaced; a node is called by its alias, its
/// title or its kind. What is unknown stays as it is.
pub(super) fn replaced(prefix: &str, graph: &Graph, now: &Moment) -> String {
    let mut out = String::new();
    let mut rest = prefix;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let Some((inside, behind)) = after.split_once('%') else {
            rest = &rest[before.len()..];
            out.push_str(rest);
            return out;
        };
        match replacement(inside, graph, now) {
            Some(text) => {
                out.push_str(&text);
                rest = behind;
            }
            None => {
                out.push('%');
                rest = after;
            }
        }
    }
    out + rest
}

fn replacement(inside: &str, graph: &Graph, now: &Moment) -> Option<String> {
    if let Some(pattern) = inside.strip_prefix("date:") {
        return Some(now.format(pattern));
    }
    let (name, widget) = inside.split_once('.')?;
    // Every node has its kind for an alias until somebody gives it another, and so with titles.
    let alias = |n: &&Node| n.alias.as_deref().unwrap_or(&n.class) == name;
    let title = |n: &&Node| n.title.as_deref().unwrap_or(catalogue::title(&n.class)) == name;
    let node = graph.named().find(alias).or_else(|| graph.named().find(title))?;
    let default = || catalogue::find(&node.class)?.input(widget)?.default();
    let value = match node.input(widget) {
        Some(Input::Value(value)) => value.clone(),
        Some(Input::Link { node, .. }) => graph.find(node)?.written()?.clone(),
        None => default()?,
    };
    Some(harmless(&shown(&value)))
}

/// A value as JavaScript shows it: `7.0` is 7, and null is nothing.
fn shown(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Null => String::new(),
        Json::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => float.to_string(),
            _ => number.to_string(),
        },
        value => value.to_string(),
    }
}

/// What in `text` looks as if it was to be replaced and will not be: `%node.widget%`, `%date%`. The words of
/// `later` are replaced when the file is saved.
pub(super) fn unknown<'t>(text: &'t str, later: &[&str]) -> Vec<&'t str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('%') {
        let Some((inside, behind)) = after.split_once('%') else { break };
        let is_name = inside.starts_with(|c: char| c.is_ascii_alphabetic());
        if is_name && !inside.contains(['/', '\\', ' ']) {
            found.extend((!later.contains(&inside)).then_some(inside));
            rest = behind;
        } else {
            // A sign of percent that stands for itself: the next may begin a name.
            rest = after;
        }
    }
    found
}

/// `text` without what a file name may not hold: it shall lead into no other folder.
fn harmless(text: &str) -> String {
    let odd = |c: char| c.is_control() || matches!(c, '/' | '?' | '<' | '>' | '\\' | ':' | '*' | '|' | '"');
    text.chars().map(|c| if odd(c) { '_' } else { c }).collect()
}

/// A prompt as the frontend sends it: without comments (`//` to the end of a line, `/* … */`), and one
/// of `{red|green|blue}` chosen. The choice is made by the text, so that a workflow always gives the
/// same picture, where the frontend rolls dice. `\{`, `\}` and `\|` are plain.
pub(super) fn dynamic(prompt: &str) -> String {
    let text = without_comments(prompt);
    // FNV-1a, moved on by a splitmix step for each choice.
    let mut dice =
        text.bytes().fold(0xCBF2_9CE4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3));
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::new();
    let mut at = 0;
    while at < chars.len() {
        match (chars[at], group(&chars, at)) {
            ('\\', _) if matches!(chars.get(at + 1), Some('{' | '}')) => {
                out.push(chars[at + 1]);
                at += 2;
            }
            ('{', Some((choices, end))) => {
                dice = dice.wrapping_add(0x9E37_79B9_7F4A_7C15);
                let mut z = dice;
                z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                z ^= z >> 31;
                let choice = &choices[(z % choices.len() as u64) as usize];
                out.push_str(choice);
                at = end;
            }
            (c, _) => {
                out.push(c);
                at += 1;
            }
        }
    }
    out
}

/// The choices in the braces at `at`, and where they end. Braces inside choices are not looked into:
/// they are taken as they stand, as far as the first `}`.
fn group(chars: &[char], at: usize) -> Option<(Vec<String>, usize)> {
    if chars.get(at) != Some(&'{') {
        return None;
    }
    let mut choices = vec![String::new()];
    let mut i = at + 1;
    while i < chars.len() {
        match chars[i] {
            '\\' if i + 1 < chars.len() => {
                choices.last_mut()?.push(chars[i + 1]);
                i += 1;
            }
            '}' => return Some((choices, i + 1)),
            '|' => choices.push(String::new()),
            c => choices.last_mut()?.push(c),
        }
        i += 1;
    }
    None
}

fn without_comments(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("//").into_iter().chain(rest.find("/*")).min() {
        out.push_str(&rest[..at]);
        let comment = &rest[at..];
        let end = match comment.starts_with("//") {
            true => comment.find('\n'),
            false => comment.find("*/").map(|end| end + 2),
        };
        match end {
            Some(end) => rest = &comment[end..],
            // A line comment may be the last line; an open one of the other kind is none.
            None if comment.starts_with("//") => return out,
            None => {
                out.push_str(&comment[..2]);
                rest = &comment[2..];
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::super::graph::Node;
    use super::*;

    #[test]
    fn prefixes() {
        let mut graph = Graph::default();
        let mut node = Node::new("3", "KSampler");
        node.title = Some("Second pass".into());
        node.alias = Some("KSampler".into());
        node.set("seed", Input::Value(42.into()));
        node.set("sampler_name", Input::Value("../a/b".into()));
        graph.add(node);
        let now = Moment { year: 2025, month: 3, day: 9, hour: 7, minute: 5, second: 1 };
        let cases = [
            ("%date:yyyy-MM-dd%/x", "2025-03-09/x"),
            ("%date:yy d M hh-mm-ss%", "25 9 3 07-05-01"),
            ("%KSampler.seed%_%Second pass.seed%", "42_42"),
            ("%KSampler.sampler_name%", ".._a_b"),
            ("%width%x%height%", "%width%x%height%"),
            ("100%", "100%"),
            ("%a.b%%KSampler.seed%", "%a.b%42"),
        ];
        for (prefix, want) in cases {
            assert_eq!(replaced(prefix, &graph, &now), want, "{prefix}");
        }
    }

    #[test]
    fn what_is_left_of_prefixes() {
        let cases: [(&str, &[&str]); 6] = [
            ("%date%/x", &["date"]),
            ("%a.b%_%width%", &["a.b"]),
            ("100% of %year%", &[]),
            ("100%_%batch_num%", &["batch_num"]),
            ("50%/60%", &[]),
            ("%Seed%x%seed%", &["Seed", "seed"]),
        ];
        for (text, left) in cases {
            assert_eq!(unknown(text, &["width", "year"]), left, "{text}");
        }
    }

    #[test]
    fn dynamic_prompts() {
        assert_eq!(dynamic("a fox // not a dog\nin snow /* deep */!"), "a fox \nin snow !");
        assert_eq!(dynamic("http:// is gone"), "http:");
        assert_eq!(dynamic(r"\{plain\} {one}"), "{plain} one");
        assert_eq!(dynamic("open { and /* open"), "open { and /* open");
        let fox = dynamic("a {red|green|blue} fox");
        assert!(["a red fox", "a green fox", "a blue fox"].contains(&fox.as_str()), "{fox}");
        assert_eq!(fox, dynamic("a {red|green|blue} fox"));
    }
}
