//! Reads the text that A1111's web UI leaves in pictures, by its rules: the prompt, a line that
//! begins with `Negative prompt:`, and a last line of `Name: value` pairs with commas between.
//!
//! Space around lines is lost on the way, for A1111 strips it. Where a text of ours would not come
//! back as it was, [`parameters`](super::parameters) adds the pairs [`RAW_PROMPT`] and
//! [`RAW_NEGATIVE`], which A1111 carries along and does not mind.
#![warn(clippy::indexing_slicing, clippy::string_slice)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::string_slice))]

use serde_json::Value;

use crate::sampler::{Sampler, Scheduler, names};

/// The keyword of a PNG's text chunk that holds such a text.
pub const KEYWORD: &str = "parameters";

/// The pair that holds the prompt as JSON, where the lines cannot.
pub const RAW_PROMPT: &str = "Raw prompt";
/// The same for the negative prompts: a JSON list of texts, in quotes.
pub const RAW_NEGATIVE: &str = "Raw negative prompts";

const NEGATIVE: &str = "Negative prompt:";
/// A last line with fewer pairs belongs to the prompt.
const FEWEST_PAIRS: usize = 3;

/// What the extension Dynamic Prompts writes behind the settings, a line each.
const BEHIND: [&str; 3] = ["Template:", "Negative Template:", "Wildcard prompt:"];

/// Takes such lines from the end of `lines`, as pairs, if settings are before them.
fn behind(lines: &mut Vec<&str>) -> Vec<(String, String)> {
    let at =
        lines.iter().rposition(|line| pairs(line).len() >= FEWEST_PAIRS).map_or(lines.len(), |at| at + 1);
    if !lines.get(at).is_some_and(|line| BEHIND.iter().any(|start| line.starts_with(start))) {
        return Vec::new();
    }
    let mut found: Vec<(String, String)> = Vec::new();
    for line in lines.drain(at..) {
        let start = BEHIND.iter().find_map(|start| Some((start, line.strip_prefix(start)?)));
        match (start, found.last_mut()) {
            (Some((start, rest)), _) => {
                found.push((start.trim_end_matches(':').to_owned(), strip(rest).to_owned()));
            }
            // A template may have lines of its own.
            (None, Some((_, value))) => {
                value.push('\n');
                value.push_str(line);
            }
            (None, None) => {}
        }
    }
    found
}

/// A picture's settings in A1111's words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Infotext {
    /// What the picture should show.
    pub prompt: String,
    /// What it should not show; several entries are separate.
    pub negative: Vec<String>,
    /// The pairs of the last line in their order, values without their quotes.
    pub settings: Vec<(String, String)>,
}

impl Infotext {
    /// Reads the text of the chunk `parameters`. Any text is one; one without pairs is all prompt.
    pub fn parse(text: &str) -> Self {
        let mut lines: Vec<&str> = strip(text).split('\n').collect();
        let behind = behind(&mut lines);
        let mut settings = lines.last().map(|last| pairs(last)).unwrap_or_default();
        match settings.len() < FEWEST_PAIRS {
            true => settings.clear(),
            false => drop(lines.pop()),
        }
        settings.extend(behind);
        let (mut prompt, mut negative) = (String::new(), None::<String>);
        for line in lines {
            let mut line = strip(line);
            if let Some(rest) = line.strip_prefix(NEGATIVE) {
                line = strip(rest);
                negative.get_or_insert_default();
            }
            let side = negative.as_mut().unwrap_or(&mut prompt);
            // An empty line at the beginning leaves no trace.
            if !side.is_empty() {
                side.push('\n');
            }
            side.push_str(line);
        }
        let mut read =
            Self { prompt, negative: negative.filter(|n| !n.is_empty()).into_iter().collect(), settings };
        read.take_raw();
        read
    }

    /// The first value of the pair `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.settings.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The sampler, if it is one that is known here.
    pub fn sampler(&self) -> Option<Sampler> {
        names::with_scheduler(self.get("Sampler")?).ok().map(|(sampler, _)| sampler)
    }

    /// The noise schedule, if it is one that is known here: a setting of its own, or behind the
    /// sampler as A1111 had it before version 1.9 and others have it still. `Automatic` is the schedule that A1111
    /// uses for that sampler; without any it is even in timesteps, as before there were schedules to choose.
    pub fn scheduler(&self) -> Option<Scheduler> {
        let named = || names::with_scheduler(self.get("Sampler")?).ok();
        let label = self.get("Schedule type").map(|label| (label, label.eq_ignore_ascii_case("automatic")));
        match (label, named().and_then(|(_, scheduler)| scheduler)) {
            (Some((_, true)) | None, Some(scheduler)) => Some(scheduler),
            (Some((_, true)), None) => {
                let sampler = self.get("Sampler")?;
                let usual = AUTOMATIC.iter().find(|(name, _)| *name == sampler).map(|(_, own)| *own);
                Some(usual.unwrap_or(Scheduler::Normal))
            }
            (None, None) => self.sampler().map(|_| Scheduler::Normal),
            (Some((label, false)), _) => label.parse().ok(),
        }
    }

    /// Puts the texts of the raw pairs in their places. A pair that is not sound JSON is one like others.
    fn take_raw(&mut self) {
        if let Some(prompt) = self.get(RAW_PROMPT).and_then(|text| serde_json::from_str(text).ok()) {
            self.prompt = prompt;
            self.settings.retain(|(name, _)| name != RAW_PROMPT);
        }
        if let Some(negative) = self.get(RAW_NEGATIVE).and_then(|text| serde_json::from_str(text).ok()) {
            self.negative = negative;
            self.settings.retain(|(name, _)| name != RAW_NEGATIVE);
        }
    }
}

/// What A1111 takes for `Automatic`, where it is not its usual schedule.
const AUTOMATIC: [(&str, Scheduler); 7] = [
    ("DPM++ 2M", Scheduler::Karras),
    ("DPM++ SDE", Scheduler::Karras),
    ("DPM++ 2S a", Scheduler::Karras),
    ("DPM2", Scheduler::Karras),
    ("DPM2 a", Scheduler::Karras),
    ("DPM++ 2M SDE", Scheduler::Exponential),
    ("DPM++ 3M SDE", Scheduler::Exponential),
];

/// Space as Python's `strip` has it: the four ASCII separators too.
fn strip(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}'))
}

/// The pairs of a line: a name of letters, digits, space, `-` and `/`, a colon, then a value in quotes
/// or up to the next comma. Anything else is skipped.
fn pairs(line: &str) -> Vec<(String, String)> {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let (mut found, mut rest) = (Vec::new(), line);
    while let Some((before, after)) = rest.split_once(':') {
        // As much before the colon as can be a name, from its first letter on.
        let start = before.rfind(|c: char| !word(c) && !" -/".contains(c));
        let name = start.and_then(|at| before.get(at..)).unwrap_or(before).trim_start_matches(|c| !word(c));
        rest = after;
        // A name has two letters at the least.
        if name.chars().nth(1).is_some() {
            let (value, after) = value(after.trim_start());
            found.push((name.to_owned(), unquoted(value)));
            rest = after;
        }
    }
    found
}

/// The value that `text` begins with, and what follows its comma.
fn value(text: &str) -> (&str, &str) {
    if let Some((value, after)) = quoted_length(text).map(|length| text.split_at(length)) {
        if after.is_empty() {
            return (value, after);
        }
        if let Some(after) = after.strip_prefix(',') {
            return (value, after);
        }
    }
    // Lists of resources are JSON, whose own commas and colons part nothing.
    if let Some((value, after)) = json_length(text).map(|length| text.split_at(length)) {
        if let Some(after) = after.trim_start().strip_prefix(',') {
            return (value, after);
        }
        if after.trim().is_empty() {
            return (value, "");
        }
    }
    text.split_once(',').unwrap_or((text, ""))
}

/// Bytes of the JSON object or list that `text` begins with.
fn json_length(text: &str) -> Option<usize> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    text.starts_with(['{', '[']).then_some(())?;
    values.next()?.ok()?;
    Some(values.byte_offset())
}

/// Bytes of the text in quotes that `text` begins with, the quotes included.
fn quoted_length(text: &str) -> Option<usize> {
    let inside = text.strip_prefix('"')?;
    let mut escaped = false;
    for (at, c) in inside.char_indices() {
        match c {
            '"' if !escaped => return (at > 0).then_some(at + 2),
            _ => escaped = c == '\\' && !escaped,
        }
    }
    None
}

/// A value without its quotes. What is not valid JSON stays as it is.
fn unquoted(value: &str) -> String {
    match serde_json::from_str(value) {
        Ok(Value::String(text)) => text,
        _ => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    #[test]
    fn a_picture_of_a1111() {
        let text = "girl with a hat, (detailed:1.2)\nsecond line\nNegative prompt: blurry, bad\n  hands \n\
                    Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 965400086, Size: 512x768, \
                    Model hash: 45dee52b, Model: v1-5, Lora hashes: \"ink: 1a, oil: 2b\", Version: v1.6.0";
        let read = Infotext::parse(text);
        assert_eq!(read.prompt, "girl with a hat, (detailed:1.2)\nsecond line");
        assert_eq!(read.negative, ["blurry, bad\nhands"]);
        assert_eq!((read.get("Size"), read.get("Lora hashes")), (Some("512x768"), Some("ink: 1a, oil: 2b")));
        assert_eq!(read.sampler(), "dpmpp_2m".parse().ok());
        assert_eq!(read.scheduler(), Some(Scheduler::Karras));
        let automatic = |sampler: &str| {
            Infotext::parse(&format!("Steps: 1, Sampler: {sampler}, Schedule type: Automatic, Seed: 1"))
                .scheduler()
        };
        assert_eq!(automatic("DPM++ 3M SDE"), Some(Scheduler::Exponential));
        assert_eq!(automatic("Euler a"), Some(Scheduler::Normal));
        assert_eq!(automatic("DPM++ 2M"), Some(Scheduler::Karras));
        // Before there were schedules to choose, the name said all.
        let bare = |sampler: &str| Infotext::parse(&format!("Steps: 1, Sampler: {sampler}, Seed: 1"));
        assert_eq!(bare("DPM++ 2M").scheduler(), Some(Scheduler::Normal));
        assert_eq!(bare("dpm++2m karras").scheduler(), Some(Scheduler::Karras));
        assert_eq!((bare("Restart").sampler(), bare("Restart").scheduler()), (None, None));
    }

    #[test]
    fn pairs_by_the_grammar() {
        for (line, expected) in [
            ("Steps: 1, Seed: 2", &[("Steps", "1"), ("Seed", "2")][..]),
            (
                "A: 1, Ab:2,Cd: \"x, \\\"y\\\": z\", E f/g-h:  , I: ",
                &[("Ab", "2"), ("Cd", "x, \"y\": z"), ("E f/g-h", "")],
            ),
            ("Ab: \"open, Cd: 2", &[("Ab", "\"open"), ("Cd", "2")]),
            ("Ab: \"x\" y, Cd: \"\"", &[("Ab", "\"x\" y"), ("Cd", "")]),
            (
                "Hashes: {\"model\": \"1, Cd: 2\"}, List: [{\"a\":1},\"b, c: d\"] , Ab: [7, 8, ], Last: {\"x\": 1}",
                &[
                    ("Hashes", "{\"model\": \"1, Cd: 2\"}"),
                    ("List", "[{\"a\":1},\"b, c: d\"]"),
                    ("Ab", "[7"),
                    ("Last", "{\"x\": 1}"),
                ],
            ),
            ("no pairs here", &[]),
            ("größe: é", &[("größe", "é")]),
        ] {
            assert_eq!(pairs(line), owned(expected), "{line}");
        }
    }

    #[test]
    fn a_last_line_of_few_pairs_belongs_to_the_prompt() {
        let read = Infotext::parse("a fox\nratio: 3, mood: blue");
        assert_eq!((read.prompt.as_str(), read.settings.len()), ("a fox\nratio: 3, mood: blue", 0));
        assert_eq!(Infotext::parse(""), Infotext::default());
    }
}
