//! What ComfyUI's frontend replaces in file-name prefixes before a workflow is run.

use serde_json::Value as Json;

use super::graph::{Graph, Input, Node};
use super::local_time::LocalTime;
use super::nodes;

/// A file-name prefix with `%date:…%` and `%node.widget%` replaced; a node is called by its alias, its
/// title or its class. What is unknown stays as it is.
pub(super) fn replaced(prefix: &str, graph: &Graph, now: &LocalTime) -> String {
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

fn replacement(inside: &str, graph: &Graph, now: &LocalTime) -> Option<String> {
    if let Some(pattern) = inside.strip_prefix("date:") {
        return Some(now.format(pattern));
    }
    let (name, widget) = inside.split_once('.')?;
    // Every node has its class for an alias until it is given another, and so with titles.
    let alias = |n: &&Node| n.alias.as_deref().unwrap_or(&n.class) == name;
    let title = |n: &&Node| n.title.as_deref().unwrap_or(nodes::title(&n.class)) == name;
    let node = graph.named().find(alias).or_else(|| graph.named().find(title))?;
    let default = || nodes::class(&node.class)?.input(widget)?.default();
    let value = match node.input(widget) {
        Some(Input::Value(value)) => value.clone(),
        Some(Input::Link { node, .. }) => {
            let constant = graph.find(node).filter(|node| nodes::is_constant(&node.class))?;
            constant.written("value")?.clone()
        }
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
            // A literal percent sign: the next may begin a name.
            rest = after;
        }
    }
    found
}

/// `text` without what a file name may not hold: it must not lead into another folder.
fn harmless(text: &str) -> String {
    let odd = |c: char| c.is_control() || matches!(c, '/' | '?' | '<' | '>' | '\\' | ':' | '*' | '|' | '"');
    text.chars().map(|c| if odd(c) { '_' } else { c }).collect()
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
        let now = LocalTime { year: 2025, month: 3, day: 9, hour: 7, minute: 5, second: 1 };
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
}
