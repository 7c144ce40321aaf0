//! `--json`: every command says what docs/JSON.md and docs/events.schema.json say. All other tests that read events
//! check them against the schema too.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::common::gpu;
use crate::program::program;
use crate::schema::{SCHEMA, event, events};

const PAGE: &str = "docs/JSON.md";

const HEAD: &str = "\
# Events of `--json`

Every command with `--json` writes one JSON object per line to standard output, flushed at once, and nothing else;
messages go to standard error. `event` says what a line is; its other members depend on the command. Members that are
not listed may be added in later versions; those that are listed stay. [`events.schema.json`](events.schema.json) is
the same as a JSON Schema, and tests validate every command against it.

A run that fails ends with `error`. One that succeeds ends with `done` (`generate`, `grid`, `run`), `plan` (with
`--dry-run`), `facts` (`inspect`) or `verified` (`verify`); the lists of `devices`, `run --nodes` and `bench` just end.
Warnings are printed when they occur, also before `start`. The exit code says how it ended:

| exit code | `kind` of the error |
|---|---|
| 0 | none |
| 2 | `usage`: a flag or its value is wrong |
| 3 | `file`, `model`: an input file is missing or bad |
| 4 | `device`, `memory`, `non_finite`, `internal`: the device failed, memory ran out, a result is not finite, or a bug |
| 130 | `cancelled` |

Sizes are in pixels, times in seconds unless the name says otherwise (`ms`, `us`), memory in MiB (`_mib`) or bytes.
`batch`, `row`, `column`, `panel`, `number` and `step` count from 1; `index` from 0.
";

/// A type in words: `text or null`, `list of {name, values}`.
fn type_in_words(schema: &Value) -> String {
    let all =
        |list: &[Value], words: fn(&Value) -> String| list.iter().map(words).collect::<Vec<_>>().join(" or ");
    fn quoted(value: &Value) -> String {
        format!("`{}`", value.as_str().expect("a text"))
    }
    if let Some(one) = schema.get("const") {
        return quoted(one);
    }
    if let Some(Value::Array(values)) = schema.get("enum") {
        return all(values, quoted);
    }
    if let Some(Value::Array(kinds)) = schema.get("anyOf") {
        return all(kinds, type_in_words);
    }
    let named = |name: &str| match name {
        "string" => "text".to_owned(),
        "integer" => "whole number".to_owned(),
        "boolean" => "true or false".to_owned(),
        "array" => format!("list of {}", type_in_words(&schema["items"])),
        "object" => match schema.get("properties").and_then(Value::as_object) {
            Some(members) => format!("{{{}}}", members.keys().cloned().collect::<Vec<_>>().join(", ")),
            None => "object".to_owned(),
        },
        other => other.to_owned(),
    };
    match &schema["type"] {
        Value::String(name) => named(name),
        Value::Array(names) => {
            names.iter().map(|name| named(name.as_str().expect("a name"))).collect::<Vec<_>>().join(" or ")
        }
        _ => "any value".to_owned(),
    }
}

/// The page that the schema describes.
fn page() -> String {
    let schema: Value = serde_json::from_str(SCHEMA).expect("JSON");
    let mut page = HEAD.to_owned();
    let mut commands = String::new();
    for event in schema["oneOf"].as_array().expect("a list") {
        let members = event["properties"].as_object().expect("members");
        let required = event["required"].as_array().expect("a list");
        let name = members["event"]["const"].as_str().expect("a name");
        let text = event["description"].as_str().expect("a description");
        let (of, text) = text.split_once(": ").expect("a command and what happens");
        let own = of.split(" --").next().expect("a command");
        if own != commands {
            own.clone_into(&mut commands);
            let title = if own == "every command" {
                own.to_owned()
            } else {
                format!("`{}`", own.replace(", ", "`, `"))
            };
            page += &format!("\n## {title}\n");
        }
        let heading = if of == own { format!("`{name}`") } else { format!("`{name}` of `{of}`") };
        let first = text.chars().next().expect("a text").to_uppercase();
        page += &format!("\n### {heading}\n\n{first}{}\n\n| member | type | |\n|---|---|---|\n", &text[1..]);
        for (member, kind) in members.iter().filter(|(member, _)| *member != "event") {
            let always = required.iter().any(|r| r == member.as_str());
            let note = kind["description"].as_str().unwrap_or_else(|| panic!("{name}: what is {member}?"));
            let missing = if always { "" } else { "; not always there" };
            page += &format!("| `{member}` | {} | {note}{missing} |\n", type_in_words(kind));
        }
    }
    page
}

/// With SAGITTAL_WRITE_JSON_PAGE the page is written instead.
#[test]
fn the_page_says_what_the_schema_says() {
    let path = crate::common::root().join(PAGE);
    let page = page();
    if std::env::var_os("SAGITTAL_WRITE_JSON_PAGE").is_some() {
        fs::write(&path, page).expect("the page is written");
        return;
    }
    let found = fs::read_to_string(&path).expect("the page");
    let differs = found.lines().zip(page.lines()).find(|(found, wanted)| found != wanted);
    assert!(
        found == page,
        "{PAGE} differs from the schema: {differs:?}; SAGITTAL_WRITE_JSON_PAGE=1 writes it"
    );
}

fn run(folder: &Path, words: &[&str]) -> Output {
    program(folder, words).output().expect("the program starts")
}

/// Each command in turn; `events` validates their output.
#[test]
fn every_command_prints_events_of_the_schema() {
    if gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let small = ["-p", "fox, 3d style", "-W", "64", "-H", "64", "--steps", "1", "-s", "5", "--json"];
    let names = |words: &[&str]| -> BTreeSet<String> {
        let output = run(folder, words);
        assert_eq!(output.status.code(), Some(0), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        let events = events(&output.stdout);
        events.iter().map(|event| event["event"].as_str().expect("a name").to_owned()).collect()
    };
    let generate = [&["generate", "--batch-size", "2", "--save-latent", "a.latent"], &small[..]].concat();
    let output = run(folder, &generate);
    let saved: Vec<Value> = events(&output.stdout).into_iter().filter(|e| e["event"] == "saved").collect();
    let found: Vec<(&Value, &Value, &Value)> =
        saved.iter().map(|e| (&e["kind"], &e["seed"], &e["index"])).collect();
    let (seed, none) = (Value::from(5), Value::Null);
    let kinds = [Value::from("picture"), Value::from("latent")];
    let index = [Value::from(0), Value::from(1)];
    assert_eq!(
        found,
        [(&kinds[0], &seed, &index[0]), (&kinds[0], &seed, &index[1]), (&kinds[1], &seed, &none)]
    );
    let picture = saved[0]["path"].as_str().expect("a path").to_owned();

    let has = |found: BTreeSet<String>, wanted: &[&str]| {
        for name in wanted {
            assert!(found.contains(*name), "no {name} in {found:?}");
        }
    };
    has(names(&[&["generate", "--dry-run"], &small[..]].concat()), &["plan"]);
    let start = ["-i", &picture, "-o", "b.png", "--compare", "c.png"];
    has(
        names(&[&["generate"], &small[..], &start].concat()),
        &["encoding_picture", "decoding", "step", "saved"],
    );
    let grid = ["--x", "cfg-scale=1,2", "-o", "grid.png"];
    has(names(&[&["grid", "--dry-run"], &small[..], &grid].concat()), &["plan"]);
    has(names(&[&["grid"], &small[..], &grid].concat()), &["start", "saved", "done"]);
    has(names(&["inspect", "--json"]), &["facts"]);
    for file in [&picture, "a.latent"] {
        has(names(&["inspect", file, "--json"]), &["facts"]);
    }
    let model_files = crate::common::root().join("tests/model_files");
    for file in
        ["lora/cases/a11_bundle_honest", "lora/cases/m_lonealpha", "embeddings/xl", "embeddings/plain"]
    {
        let file = model_files.join(format!("{file}.safetensors")).display().to_string();
        has(names(&["inspect", &file, "--json"]), &["facts"]);
    }
    has(names(&["devices", "--json"]), &["device"]);
    let set = crate::common::root().join("tests/golden/schedules.json").display().to_string();
    has(names(&["verify", "--set", &set, "--json"]), &["set", "finding", "verified"]);
    has(names(&["verify", "--all-paths", "--set", &set, "--json"]), &["path", "set", "finding", "verified"]);
    has(names(&["run", "--nodes", "--json"]), &["class"]);
    has(
        names(&["bench", "--tune", "--tiny", "--table", "costs.json", "--json"]),
        &["device", "tuned", "table"],
    );
}

/// An error is an event as well, with its parts; a wrong flag too.
#[test]
fn errors_and_warnings_are_events() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    fs::write(folder.join("no.safetensors"), "not a model").expect("a file");
    let error = |words: &[&str], code: i32| {
        let output = run(folder, words);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{words:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        event(&output.stdout, "error")
    };
    for words in [
        &["generate", "--steps", "many", "--json"][..],
        &["generate", "--no-such-flag", "--json"],
        &["grid", "--json", "--x", "nothing=1", "-p", "fox"],
        &["run", "--json"],
        &["inspect", "--size", "big", "--json"],
        &["bench", "--runs", "x", "--json"],
        &["verify", "--precision", "f64", "--json"],
        &["devices", "--all", "--json"],
        &["generate", "-p", "fox", "-s", "-2", "--json"],
    ] {
        assert_eq!(error(words, 2)["kind"], "usage", "{words:?}");
    }
    let e = error(&["generate", "--stepz", "3", "--json"], 2);
    assert_eq!((&e["at"], &e["remedies"][0]), (&"--stepz".into(), &"did you mean --steps?".into()), "{e:#}");
    let e = error(&["generate", "--precision", "f64", "--json"], 2);
    assert!(e["found"] == "f64" && e["expected"].as_str().is_some_and(|all| all.contains("f16")), "{e:#}");
    for words in [
        &["inspect", "no.safetensors", "--json"][..],
        &["generate", "-m", "no.safetensors", "-p", "fox", "--json"],
        &["verify", "--set", "none.json", "--json"],
        &["run", "none.json", "--json"],
    ] {
        let e = error(words, 3);
        assert!(e["kind"] == "file" && e["file"].is_string() && e["what"].is_string(), "{e:#}");
    }
    let e = error(&["inspect", "no.safetensors", "--json"], 3);
    assert!(e["remedies"].as_array().is_some_and(|r| !r.is_empty()), "{e:#}");
    if gpu().is_some() {
        let lora = crate::common::root().join("tests/model_files/lora/cases/a14_lin.safetensors");
        let words = ["generate", "-p", "fox", "-W", "64", "-H", "64", "--steps", "1", "--json", "--lora"];
        let e = error(&[&words[..], &[&lora.display().to_string()]].concat(), 3);
        assert_eq!((&e["kind"], &e["what"]), (&"model".into(), &"the LoRA does not fit this model".into()));
        let words =
            ["generate", "-p", "an embedding:none fox", "-W", "64", "-H", "64", "--steps", "1", "--json"];
        let output = run(folder, &words);
        let warned = event(&output.stdout, "warning");
        assert!(
            warned["message"].as_str().is_some_and(|m| m.contains("the embedding \"none\" is left out")),
            "{warned}"
        );
    }
}
