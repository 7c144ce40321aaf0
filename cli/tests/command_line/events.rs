//! `--json`: every command says what docs/JSON.md and docs/events.schema.json say. All other tests that read events
//! check them against the schema too.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::common::{Failures, gpu};
use crate::program::program;
use crate::schema::{SCHEMA, event, events};

const DOCS: &str = include_str!("../../../docs/JSON.md");

/// Name and description of each event of the schema, and its members with whether they are always there.
fn schema() -> Vec<(String, BTreeSet<(String, bool)>)> {
    let schema: Value = serde_json::from_str(SCHEMA).expect("JSON");
    let kinds = schema["oneOf"].as_array().expect("a list");
    let of = |kind: &Value| {
        let members = kind["properties"].as_object().expect("members");
        let required = kind["required"].as_array().expect("a list");
        let name = members["event"]["const"].as_str().expect("a name");
        let text = kind["description"].as_str().expect("a description");
        let others = members.keys().filter(|member| *member != "event");
        let member = |member: &String| (member.clone(), required.iter().any(|r| r == member.as_str()));
        (format!("`{name}`: {text}"), others.map(member).collect())
    };
    kinds.iter().map(of).collect()
}

#[test]
fn the_page_says_what_the_schema_says() {
    let mut failures = Failures::default();
    let sections: Vec<&str> = DOCS.split("\n### ").skip(1).collect();
    let schema = schema();
    failures.check(sections.len() == schema.len(), || format!("{} of {}", sections.len(), schema.len()));
    for (section, (head, members)) in sections.iter().zip(&schema) {
        let heading = section.lines().next().unwrap_or_default();
        failures.check(heading == head, || format!("{heading:?} is {head:?} in the schema"));
        let lines = section.lines().filter_map(|line| line.strip_prefix("* `"));
        let found: BTreeSet<(String, bool)> = lines
            .filter_map(|line| line.split_once('`'))
            .map(|(member, rest)| (member.to_owned(), !rest.contains("not always there")))
            .collect();
        failures.check(found == *members, || format!("{head}: {found:?} is {members:?} in the schema"));
    }
    failures.finish();
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
    let start = ["-i", &picture, "-o", "b.png"];
    has(names(&[&["generate"], &small[..], &start].concat()), &["encoding_picture", "decoding", "step"]);
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
    has(names(&["run", "--nodes", "--json"]), &["class"]);
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
        assert!(warned["message"].as_str().is_some_and(|m| m.contains("no embedding \"none\"")), "{warned}");
    }
}
