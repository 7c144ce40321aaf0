//! What the repository promises of its own files: sizes, packages, targets, the README's commands.

// Tests panic where something is not as they expect.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable)]

#[path = "../common/mod.rs"]
mod common;
mod imports;
mod words;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::Failures;
use serde_json::Value as Json;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Most lines of a Rust file, and of a shader.
const LONGEST: [(&str, usize); 2] = [("rs", 600), ("wgsl", 300)];

const MIB: u64 = 1 << 20;

fn path(relative: &str) -> PathBuf {
    Path::new(ROOT).join(relative)
}

/// Files below `folder`, relative to the root, without build outputs and version control.
fn files(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(path(folder)) else { return found };
    for entry in entries.map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        let relative = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        match entry.file_type().unwrap() {
            kind if kind.is_dir() && !["target", ".git", ".device"].contains(&name.as_str()) => {
                found.extend(files(&relative));
            }
            kind if kind.is_file() => found.push(relative),
            _ => {}
        }
    }
    found.sort();
    found
}

fn with_extension(folder: &str, extension: &str) -> Vec<String> {
    let mut found = files(folder);
    found.retain(|f| Path::new(f).extension().is_some_and(|e| e == extension));
    found
}

fn read(relative: &str) -> String {
    fs::read_to_string(path(relative)).unwrap_or_else(|e| panic!("{relative}: {e}"))
}

#[test]
fn no_file_is_too_long() {
    let mut failures = Failures::default();
    for (extension, most) in LONGEST {
        for file in with_extension("", extension) {
            let lines = read(&file).lines().count();
            failures.check(lines <= most, || format!("{file}: {lines} lines, at most {most}"));
        }
    }
    failures.finish();
}

/// Remedies are data in the library: apps have no flags. See `sagittal::Remedy`.
#[test]
fn the_library_names_no_flags() {
    let mut failures = Failures::default();
    for file in with_extension("src", "rs") {
        for (number, line) in read(&file).lines().enumerate() {
            let flag = line.match_indices("--").any(|(at, _)| {
                let after = line[at + 2..].starts_with(|c: char| c.is_ascii_lowercase());
                after && line[..at].ends_with(['"', ' ', '(', ','])
            });
            let short = line.contains(" with -m") || line.contains("pass -m");
            let comment = line.trim_start().starts_with("//");
            failures.check(comment || !(flag || short), || format!("{file}:{}: {line}", number + 1));
        }
    }
    failures.finish();
}

/// Tests of one subject are one program, since each program links the whole library; a file that its
/// program does not name would never run.
#[test]
fn no_file_of_tests_is_left_out() {
    let mut failures = Failures::default();
    let all = ["tests", "cli/tests", "capi/tests", "examples/embed_window/tests"];
    let mains = all.into_iter().flat_map(|folder| with_extension(folder, "rs"));
    for main in mains.filter(|file| file.ends_with("/main.rs")) {
        let (folder, text) = (main.trim_end_matches("/main.rs"), read(&main));
        for file in with_extension(folder, "rs") {
            let module = file[folder.len() + 1..].trim_end_matches(".rs").to_owned();
            let below = module.contains('/') || module == "main";
            failures.check(below || text.contains(&format!("\nmod {module};")), || {
                format!("{file}: not in {main}")
            });
        }
    }
    failures.finish();
}

/// The plain commands at the root are about every crate, and `cargo run` has one program to run.
#[test]
fn no_crate_is_left_out_of_the_plain_commands() {
    let arguments = ["metadata", "--no-deps", "--offline", "--format-version", "1"];
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(ROOT).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let all: Json = serde_json::from_slice(&output.stdout).unwrap();
    let ids = |key: &str| -> BTreeSet<String> {
        all[key].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids("workspace_members"), ids("workspace_default_members"), "Cargo.toml: default-members");
    let targets =
        || all["packages"].as_array().unwrap().iter().flat_map(|p| p["targets"].as_array().unwrap());
    let of_kind = |kind: &str| -> Vec<&str> {
        let is_it = |target: &&Json| target["kind"].as_array().unwrap().iter().any(|k| k == kind);
        targets().filter(is_it).map(|target| target["name"].as_str().unwrap()).collect()
    };
    assert_eq!(of_kind("bin"), ["sagittal"]);
    let untested: Vec<&Json> = targets().filter(|t| t["test"] == false && t["kind"][0] == "test").collect();
    assert!(untested.is_empty(), "{untested:?}");
    // Every file of tests is a target, or a part of one.
    for folder in ["", "cli/", "capi/", "examples/embed_window/"] {
        for file in with_extension(&format!("{folder}tests"), "rs") {
            let name = file[folder.len() + "tests/".len()..].trim_end_matches(".rs");
            let is_alone = !name.contains('/') && !["program", "schema"].contains(&name);
            let name = name.strip_suffix("/main").or(is_alone.then_some(name));
            let named = name.is_none_or(|name| of_kind("test").contains(&name));
            assert!(named, "{file} is no target of tests");
        }
    }
}

/// A clone must be quick, and hosts refuse large repositories.
#[test]
fn the_repository_is_small() {
    let git =
        Command::new("git").args(["-c", "safe.directory=*", "ls-files", "-z"]).current_dir(ROOT).output();
    let listed = match git {
        Ok(output) if path(".git").exists() && output.status.success() => output.stdout,
        _ => return println!("not a checkout: nothing to measure"),
    };
    let names = String::from_utf8(listed).unwrap();
    let size = |name: &str| fs::metadata(path(name)).map_or(0, |m| m.len());
    let total: u64 = names.split_terminator('\0').map(size).sum();
    println!("{:.1} MiB", total as f64 / MIB as f64);
    assert!(total < 54 * MIB, "{total} bytes in the repository");
}

/// crates.io takes 10 MiB; the files' plain sum is more than the package.
#[test]
fn the_package_is_small() {
    let arguments = ["package", "--list", "--allow-dirty", "--offline", "--package", "sagittal"];
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(ROOT).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).unwrap();
    // Cargo adds a few small files of its own to the list.
    let size = |name: &str| fs::metadata(path(name)).map_or(0, |m| m.len());
    let total: u64 = names.lines().map(size).sum();
    println!("{:.1} MiB in {} files", total as f64 / MIB as f64, names.lines().count());
    assert!(total < 10 * MIB, "{total} bytes in the package");
    assert!(
        names.contains("shaders/kernels/matmul.wgsl") && names.contains("LICENSE-MIT"),
        "parts are missing:\n{names}"
    );
}

/// Nothing refers to places that a clone does not have.
#[test]
fn no_file_names_places_outside() {
    let places = [["..", "shared"].join("/"), ["", "work", ""].join("/"), ["", "tmp", ""].join("/")];
    let mut failures = Failures::default();
    for file in files("") {
        // What is not text names nothing.
        let Ok(text) = fs::read_to_string(path(&file)) else { continue };
        for (i, line) in text.lines().enumerate() {
            let place = places.iter().find(|p| line.contains(p.as_str()));
            failures.check(place.is_none(), || format!("{file}:{}: {}", i + 1, place.unwrap()));
        }
    }
    failures.finish();
}

/// Words of an earlier private vocabulary, which readers stumbled over.
const UNUSUAL: [&str; 8] =
    ["stands", "told", "shall", "is no fault", "lanes", "surrounds", "take turns", "takes turns"];

/// Whether the text of `file` may contain the word: a subgroup has lanes.
fn is_term(word: &str, file: &str) -> bool {
    let of_kernels = ["src/kernels", "src/shader", "src/engine", "src/gpu"];
    word == "lanes" && of_kernels.iter().any(|place| file.starts_with(place))
}

#[test]
fn user_facing_words_are_the_fields() {
    let mut failures = Failures::default();
    let pages = ["README.md".to_owned(), "include/sagittal.h".to_owned()].into_iter();
    let pages = pages.chain(with_extension("docs", "md")).map(|file| {
        let all = words::words(1, &read(&file));
        (file, all)
    });
    let folders = ["src", "cli/src", "capi/src", "examples"];
    let sources = folders.iter().flat_map(|folder| with_extension(folder, "rs")).map(|file| {
        let texts = words::readable(&read(&file));
        let all = texts.iter().flat_map(|(line, text)| words::words(*line, text)).collect();
        (file, all)
    });
    for (file, all) in pages.chain(sources) {
        for unusual in UNUSUAL.iter().filter(|unusual| !is_term(unusual, &file)) {
            let wanted: Vec<&str> = unusual.split(' ').collect();
            for found in all.windows(wanted.len()) {
                let is_it = found.iter().map(|(_, word)| word.as_str()).eq(wanted.iter().copied());
                failures.check(!is_it, || format!("{file}:{}: {unusual}", found[0].0));
            }
        }
    }
    failures.finish();
}

/// The commands of a Markdown text's first `sh` block, a line each, `\` at an end joining two.
fn first_commands(markdown: &str) -> Vec<String> {
    let block =
        markdown.lines().skip_while(|l| l.trim() != "```sh").skip(1).take_while(|l| l.trim() != "```");
    let text = block.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    text.lines()
        .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|l| !l.is_empty())
        .collect()
}

/// A stranger types the README's first two lines, and CI what the README says.
#[test]
fn readme_starts_with_a_picture_and_the_tests() {
    assert!(path("README.md").is_file(), "there is no README.md: write one");
    let commands = first_commands(&read("README.md"));
    let [first, second, ..] = commands.as_slice() else {
        panic!("README.md: two commands in the first ```sh block, found {commands:?}")
    };
    let makes_picture = first.starts_with("./with-vulkan cargo run --release -- generate ");
    assert!(
        makes_picture && first.ends_with(".png"),
        "README.md: the first command makes a PNG, found {first}"
    );
    assert_eq!(
        second, "./with-vulkan cargo test --release",
        "README.md: the second command passes the tests"
    );
    let ci = read(".ci/run");
    assert!(ci.lines().any(|line| line == second), ".ci/run: it calls the README's second command as it is");
}

/// The scripts that the README's commands start with.
#[cfg(unix)]
#[test]
fn scripts_can_be_executed() {
    use std::os::unix::fs::PermissionsExt;
    for script in
        ["with-vulkan", ".ci/run", ".ci/full", ".ci/packages", ".ci/surface", "fuzz/run", "fuzz/instrument"]
    {
        let mode =
            fs::metadata(path(script)).unwrap_or_else(|e| panic!("{script}: {e}")).permissions().mode();
        assert!(mode & 0o111 == 0o111, "{script} is not executable");
    }
}
