//! `--x NAME=VALUES`: an option of `generate` and its values along a side of a grid. Names are looked up among the
//! options themselves, so that a new option is an axis too.

use std::ffi::OsString;

use clap::ArgAction;
use sagittal::internals::sampler::names::{self, nearest_to};
use sagittal::{Error, Result};

use crate::support::args::Args;
use crate::support::flags;
use crate::support::loras;

/// Most values of an axis.
const MOST: usize = 1000;
/// Axes that are not options: replaced words of the prompts, and the weight of a LoRA.
const PROMPT: &str = "prompt";
const NEGATIVE: &str = "negative-prompt";
const LORA_WEIGHT: &str = "lora-weight";
/// Headings of options that do not change what is drawn.
const OTHER_HEADINGS: [&str; 3] = ["Model", "Device", "Output"];
/// Further options that are the same for all cells.
const OTHERS: [&str; 4] = ["from", "batch-size", "batch-count", "grid"];

/// What an axis changes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Change {
    /// An option with a value, by its long name.
    Value(String),
    /// An option without a value.
    Switch(String),
    /// The first value is replaced in the prompts.
    Prompt,
    /// All negative prompts.
    Negative,
    /// The weight of the LoRA of this name, or of all.
    Lora(Option<String>),
}

/// A side of a grid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Axis {
    change: Change,
    /// The name as it was typed.
    pub name: String,
    /// The values.
    pub values: Vec<String>,
}

impl std::str::FromStr for Axis {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, values) = text.split_once('=').ok_or_else(|| {
            Error::usage("the axis has no values")
                .expected("NAME=VALUES, such as steps=10,20 or cfg-scale=1:9[5]")
        })?;
        let name = name.trim().trim_start_matches('-');
        let change = change(name)?;
        let values = values_of(values, matches!(change, Change::Value(_) | Change::Lora(_)))
            .map_err(|e| e.at(name.to_owned()))?;
        Ok(Self { change, name: name.to_owned(), values })
    }
}

impl Axis {
    /// The flag that sets value number `at`, where there is one.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](sagittal::ErrorKind::Usage) for a switch whose value is neither true nor false.
    pub fn flag(&self, at: usize) -> Result<Option<OsString>> {
        let value = &self.values[at];
        Ok(match &self.change {
            Change::Value(name) => Some(format!("--{name}={value}").into()),
            Change::Switch(name) => match value.as_str() {
                "true" | "on" => Some(format!("--{name}").into()),
                "false" | "off" => None,
                _ => return Err(self.wrong(at, Error::usage("not a switch").expected("true or false"))),
            },
            _ => None,
        })
    }

    /// Applies a change that is not a flag: prompts and weights.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](sagittal::ErrorKind::Usage) if there is nothing to change.
    pub fn apply(&self, at: usize, args: &mut Args) -> Result<()> {
        let value = &self.values[at];
        match &self.change {
            Change::Prompt => {
                let first = &self.values[0];
                let texts = || args.prompt.iter().chain(&args.negative);
                if first.is_empty() || !texts().any(|text| text.contains(first.as_str())) {
                    return Err(self.wrong(
                        0,
                        Error::usage("the prompt does not contain the first value")
                            .expected("text from the prompt, then its replacements")
                            .hint("as in -p \"a fox\" --x prompt=fox,owl"),
                    ));
                }
                for text in args.prompt.iter_mut().chain(&mut args.negative) {
                    *text = text.replace(first.as_str(), value);
                }
            }
            Change::Negative => args.negative = vec![value.clone()],
            Change::Lora(name) => {
                let weight = value.parse::<f32>().ok().filter(|w| w.is_finite());
                let weight = weight
                    .ok_or_else(|| self.wrong(at, Error::usage("the weight of a LoRA is not a number")))?;
                if !loras::weigh(args, name.as_deref(), weight) {
                    let which = name.as_deref().unwrap_or("any");
                    return Err(self.wrong(
                        at,
                        Error::usage("there is no such LoRA to weigh")
                            .expected(format!("{which} among --lora FILE or <lora:NAME:1> in the prompt")),
                    ));
                }
            }
            Change::Value(_) | Change::Switch(_) => {}
        }
        Ok(())
    }

    /// Whether `other` changes the same.
    pub fn is_like(&self, other: &Self) -> bool {
        self.change == other.change
    }

    /// Whether its values replace the option's, rather than change it.
    pub fn replaces(&self) -> bool {
        matches!(self.change, Change::Value(_) | Change::Switch(_) | Change::Negative)
    }

    /// The option's long name, or the axis' own name.
    pub fn option(&self) -> &str {
        match &self.change {
            Change::Value(name) | Change::Switch(name) => name,
            Change::Prompt => PROMPT,
            Change::Negative => NEGATIVE,
            Change::Lora(_) => LORA_WEIGHT,
        }
    }

    /// Whether a value is a sampler's name with a scheduler behind it.
    pub fn names_schedulers(&self) -> bool {
        self.values
            .iter()
            .any(|value| names::with_scheduler(value).is_ok_and(|(_, scheduler)| scheduler.is_some()))
    }

    /// `error` as one about a value of this axis.
    pub fn wrong(&self, at: usize, error: Error) -> Error {
        Error::usage(format!("the axis {} has a wrong value, {:?}", self.name, self.values[at])).cause(error)
    }
}

/// What the name of an axis means.
fn change(name: &str) -> Result<Change> {
    let plain = name.replace('_', "-");
    match plain.split_once('.').map_or((plain.as_str(), None), |(kind, of)| (kind, Some(of))) {
        (PROMPT, None) => return Ok(Change::Prompt),
        (NEGATIVE, None) => return Ok(Change::Negative),
        // The LoRA's name may contain underscores.
        (LORA_WEIGHT, of) => {
            return Ok(Change::Lora(of.and(name.split_once('.')).map(|(_, of)| of.to_owned())));
        }
        _ => {}
    }
    let command = flags::command::<Args>();
    let varies = |arg: &&clap::Arg| {
        let long = arg.get_long().unwrap_or_default();
        let other = arg.get_help_heading().is_some_and(|heading| OTHER_HEADINGS.contains(&heading));
        !other && !OTHERS.contains(&long) && long != "verbose" && !long.is_empty()
    };
    let called = |arg: &clap::Arg| {
        let aliases = arg.get_all_aliases().unwrap_or_default();
        let short = arg.get_short().map(String::from);
        arg.get_long() == Some(&plain)
            || aliases.contains(&plain.as_str())
            || short.as_deref() == Some(&plain)
    };
    let Some(arg) = command.get_arguments().find(|arg| called(arg)) else {
        let mut names: Vec<&str> =
            command.get_arguments().filter(varies).filter_map(clap::Arg::get_long).collect();
        names.extend([LORA_WEIGHT, "sampler"]);
        let near = near(&plain, &names);
        let error = Error::usage("no option of generate that changes a picture has this name").found(name);
        return Err(match near {
            Some(near) => error.hint(format!("did you mean {near}?")),
            None => error.expected(format!("one of {}", names.join(", "))),
        });
    };
    if !varies(&arg) {
        return Err(Error::usage("this option is the same for all cells")
            .found(name)
            .hint("pass it beside the axes"));
    }
    let long = arg.get_long().unwrap_or_default().to_owned();
    Ok(match arg.get_action() {
        ArgAction::SetTrue => Change::Switch(long),
        _ => Change::Value(long),
    })
}

/// The name that is most like `name`.
fn near<'n>(name: &str, names: &[&'n str]) -> Option<&'n str> {
    nearest_to(name, names.iter().copied()).first().copied()
}

/// The values of a list: texts between commas, `"…"` where a text has one itself, and, of numbers,
/// `from:to[count]`.
fn values_of(text: &str, numbers: bool) -> Result<Vec<String>> {
    let mut values = Vec::new();
    for entry in entries(text)? {
        let ends = |(from, to): (&str, &str)| [from, to].iter().all(|end| end.trim().parse::<f64>().is_ok());
        if numbers && entry.split_once(':').is_some_and(ends) {
            return Err(Error::usage("a range without the number of its values")
                .found(&entry)
                .hint(format!("write {entry}[4] for four")));
        }
        match range(&entry).filter(|_| numbers) {
            Some(range) => values.extend(range?),
            None => values.push(entry),
        }
    }
    match values.len() {
        0 => Err(Error::usage("the axis has no values")),
        1..=MOST => Ok(values),
        n => Err(Error::usage("the axis has too many values")
            .expected(format!("at most {MOST}"))
            .found(n.to_string())),
    }
}

/// The entries of a list, in the manner of CSV: `""` inside of quotes is one.
fn entries(text: &str) -> Result<Vec<String>> {
    let (mut entries, mut entry) = (Vec::new(), String::new());
    let mut letters = text.chars().peekable();
    let (mut quoted, mut inside) = (false, false);
    while let Some(c) = letters.next() {
        match c {
            '"' if inside && letters.next_if_eq(&'"').is_some() => entry.push('"'),
            '"' if inside => inside = false,
            '"' if entry.trim().is_empty() && !quoted => {
                entry.clear();
                (quoted, inside) = (true, true);
            }
            ',' if !inside => {
                entries.push(if quoted { entry.clone() } else { entry.trim().to_owned() });
                entry.clear();
                quoted = false;
            }
            // Space behind the quotes is none of the text.
            c if quoted && !inside && c.is_whitespace() => {}
            c => entry.push(c),
        }
    }
    if inside {
        return Err(Error::usage("quotes in an axis are not closed").found(text));
    }
    entries.push(if quoted { entry } else { entry.trim().to_owned() });
    Ok(entries)
}

/// `from:to[count]` as that many numbers, both ends among them.
fn range(entry: &str) -> Option<Result<Vec<String>>> {
    let (ends, count) = entry.strip_suffix(']')?.split_once('[')?;
    let (from, to) = ends.split_once(':')?;
    let wrong = || Error::usage("not a range").expected("FROM:TO[COUNT], such as 0:1.5[4]").found(entry);
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|n| n.is_finite());
    let (Some(from), Some(to)) = (number(from), number(to)) else { return Some(Err(wrong())) };
    let count = count.trim().parse::<usize>().ok().filter(|count| (1..=MOST).contains(count));
    let Some(count) = count else { return Some(Err(wrong())) };
    let steps = (count.max(2) - 1) as f64;
    let at = |i: usize| {
        let value = from + (to - from) * i as f64 / steps;
        // What decimal fractions leave over in binary would stand in every label.
        let rounded = format!("{value:.6}");
        let plain = if rounded.contains('.') {
            rounded.trim_end_matches('0').trim_end_matches('.')
        } else {
            &rounded
        };
        if plain == "-0" { "0".to_owned() } else { plain.to_owned() }
    };
    Some(Ok((0..count).map(at).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<String> {
        text.parse::<Axis>().unwrap().values
    }

    #[test]
    fn lists_and_ranges() {
        assert_eq!(values("sag-scale=0:1.5[4]"), ["0", "0.5", "1", "1.5"]);
        assert_eq!(values("steps=10:30[3], 50"), ["10", "20", "30", "50"]);
        assert_eq!(values("cfg-scale=1:0[3],-0.1"), ["1", "0.5", "0", "-0.1"]);
        assert_eq!(values("sampler=euler,dpmpp_2m"), ["euler", "dpmpp_2m"]);
        assert_eq!(
            values("prompt=fox, \"red, \"\"big\"\" owl\" ,1:2[3],"),
            ["fox", "red, \"big\" owl", "1:2[3]", ""]
        );
        assert_eq!(values("W=64,128"), values("width=64,128"));
    }

    #[test]
    fn every_option_that_changes_a_picture_is_an_axis() {
        for name in [
            "steps",
            "cfg-scale",
            "cfg_scale",
            "seed",
            "s",
            "sag-scale",
            "sag-blur",
            "sag-threshold",
            "sag-start",
            "sag-cond",
            "pag-start",
            "seg-end",
            "sampler",
            "sampling-method",
            "scheduler",
            "strength",
            "clip-skip",
            "eta",
            "width",
            "prompt",
            "negative-prompt",
            "lora-weight",
            "lora-weight.my_ink",
            "init-img",
            "target-size",
        ] {
            assert!(format!("{name}=1").parse::<Axis>().is_ok(), "{name}");
        }
        for (axis, word) in [
            ("steps", "NAME=VALUES"),
            ("sag-scal=1", "did you mean sag-scale"),
            ("qwertyuiop=1", "one of "),
            ("model=a", "same for all cells"),
            ("device=a", "same for all cells"),
            ("batch-size=2", "same for all cells"),
            ("output=a", "same for all cells"),
            ("steps=1:2", "write 1:2[4]"),
            ("steps=1:2[0]", "FROM:TO[COUNT]"),
            ("steps=1:x[2]", "FROM:TO[COUNT]"),
            ("steps=1:2[9999]", "FROM:TO[COUNT]"),
            ("prompt=\"a", "not closed"),
        ] {
            let error = axis.parse::<Axis>().unwrap_err().to_string();
            assert!(error.contains(word), "{axis}: {error}");
        }
    }
}
