//! Output: messages to stderr, results and JSON events to stdout. A closed pipe (`| head`) is not an error; any
//! other failure to write a result is one, and is kept for the exit code.

use std::io::{ErrorKind as Io, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use clap::error::{ContextKind, ContextValue};
use sagittal::{Error, ErrorKind, Remedy};
use serde_json::{Value, json};

use crate::support::remedy;

/// Prints a message on stderr.
pub fn say(line: impl AsRef<str>) {
    let _ = writeln!(std::io::stderr().lock(), "{}", line.as_ref());
}

/// A line of the command's result.
pub fn result(line: impl AsRef<str>) {
    note(writeln!(std::io::stdout().lock(), "{}", line.as_ref()));
}

/// A line of the command's result, flushed at once: the next one may take minutes.
pub fn result_now(line: impl AsRef<str>) {
    let mut out = std::io::stdout().lock();
    note(writeln!(out, "{}", line.as_ref()).and_then(|()| out.flush()));
}

static LOST: AtomicBool = AtomicBool::new(false);
static VERBOSE: AtomicBool = AtomicBool::new(false);

/// Prints long lists too from now on.
pub fn set_verbose() {
    VERBOSE.store(true, Ordering::Relaxed);
}

/// Whether long lists are printed too, instead of only totals and failures.
pub fn verbose() -> bool {
    VERBOSE.load(Ordering::Relaxed)
}

/// Whether a part of the result could not be written.
pub fn lost() -> bool {
    LOST.load(Ordering::Relaxed)
}

fn note(written: std::io::Result<()>) {
    if written.is_err_and(|e| e.kind() != Io::BrokenPipe) {
        LOST.store(true, Ordering::Relaxed);
    }
}

/// Prints a JSON object on one line, flushed at once; its first member `event` is its name.
pub fn event(name: &str, rest: Value) {
    let mut object = serde_json::Map::from_iter([("event".to_owned(), json!(name))]);
    if let Value::Object(rest) = rest {
        object.extend(rest);
    }
    let mut out = std::io::stdout().lock();
    note(writeln!(out, "{}", Value::Object(object)).and_then(|()| out.flush()));
}

/// `done`; if `json` is set, its error is also printed as an event.
pub fn with_error_event<T>(json: bool, done: sagittal::Result<T>) -> sagittal::Result<T> {
    if let (Err(e), true) = (&done, json) {
        event("error", as_json(e));
    }
    done
}

/// An error as data: the whole text, and its parts.
pub fn as_json(error: &Error) -> Value {
    json!({
        "kind": error.kind().to_string(), "message": remedy::text(error), "what": error.what(),
        "file": error.path().map(|path| path.display().to_string()), "at": error.place(),
        "expected": error.wanted(), "found": error.got(),
        "remedies": error.remedies().iter().map(remedy::words).collect::<Vec<_>>(),
    })
}

/// Prints a warning, on stderr and, if `json` is set, as an event.
pub fn warning(json: bool, text: &str) {
    say(format!("warning: {text}"));
    if json {
        warning_event(text);
    }
}

/// The warning as an event alone.
pub fn warning_event(text: &str) {
    event("warning", json!({ "message": text }));
}

/// A clap error as an `error` event.
pub fn usage_event(parsed: &clap::Error) {
    let message = parsed.render().to_string();
    let message = message.trim_end();
    let first = message.lines().take_while(|line| !line.trim().is_empty()).map(str::trim);
    let what = first.collect::<Vec<_>>().join(" ");
    let said = |kinds: &[ContextKind]| -> Vec<String> {
        let values = kinds.iter().filter_map(|kind| parsed.get(*kind)).flat_map(|value| match value {
            ContextValue::String(text) => vec![text.clone()],
            ContextValue::Strings(texts) => texts.clone(),
            _ => Vec::new(),
        });
        values.collect()
    };
    let joined = |kinds: &[ContextKind]| Some(said(kinds).join(", ")).filter(|text| !text.is_empty());
    let mut error = Error::usage(what.trim_start_matches("error: "));
    if let Some(flag) = joined(&[ContextKind::InvalidArg, ContextKind::InvalidSubcommand]) {
        error = error.at(flag);
    }
    if let Some(valid) = joined(&[ContextKind::ValidValue, ContextKind::ValidSubcommand]) {
        error = error.expected(valid);
    }
    if let Some(found) = joined(&[ContextKind::InvalidValue]) {
        error = error.found(found);
    }
    let near =
        said(&[ContextKind::SuggestedArg, ContextKind::SuggestedValue, ContextKind::SuggestedSubcommand]);
    if !near.is_empty() {
        error = error.remedy(Remedy::DidYouMean(near));
    }
    let mut error = as_json(&error);
    error["message"] = json!(message);
    event("error", error);
}

/// Prints the error of a run that failed.
pub fn error(error: &Error) {
    match error.kind() {
        ErrorKind::Cancelled => say("cancelled"),
        _ => say(format!("error: {}", remedy::text(error))),
    }
}

/// Bytes as text, in MiB or GiB.
pub fn size(bytes: u64) -> String {
    match to_mib(bytes) {
        mib if mib < 10_000.0 => format!("{mib:.1} MiB"),
        mib => format!("{:.1} GiB", mib / 1024.0),
    }
}

/// `1 step`, `2 steps`.
pub fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// Bytes in MiB.
pub fn to_mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// `value` for JSON: the shortest decimal number that is this f32, not the digits of its f64.
pub fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}
