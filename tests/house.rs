//! What the house promises of its own files: sizes, comments, packages, the README's commands.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::Failures;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Most lines of a Rust file, and of a shader.
const LONGEST: [(&str, usize); 2] = [("rs", 600), ("wgsl", 300)];

/// Share of comment lines, doc comments counted, in the non-blank lines outside tests, percent.
const COMMENTS: std::ops::RangeInclusive<f64> = 12.0..=25.0;

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
    let of_program = |file: &str| file.starts_with("src/cli/") || file == "src/main.rs";
    for file in with_extension("src", "rs").into_iter().filter(|file| !of_program(file)) {
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

/// Comment lines and non-blank lines of `text` without its test modules.
fn comments(text: &str) -> (usize, usize) {
    let (mut comments, mut all) = (0, 0);
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line == "#[cfg(test)]" && lines.next().is_some_and(|item| item.ends_with('{')) {
            // rustfmt puts the end of the module, and nothing in it, at the start of a line.
            lines.by_ref().find(|l| *l == "}");
        } else if !line.trim().is_empty() {
            comments += usize::from(line.trim().starts_with("//"));
            all += 1;
        }
    }
    (comments, all)
}

#[test]
fn comments_are_neither_few_nor_many() {
    let percent = |(comments, all): (usize, usize)| 100.0 * comments as f64 / all.max(1) as f64;
    let (mut total, mut outliers) = ((0, 0), Vec::new());
    for file in with_extension("src", "rs").into_iter().chain(with_extension("shaders", "wgsl")) {
        let count = comments(&read(&file));
        total = (total.0 + count.0, total.1 + count.1);
        if !COMMENTS.contains(&percent(count)) {
            outliers.push(format!("{:5.1} % of {:3} lines  {file}", percent(count), count.1));
        }
    }
    println!("outliers, which are fine as long as the whole is not one:\n{}", outliers.join("\n"));
    println!("{:.1} % of {} lines are comments", percent(total), total.1);
    assert!(COMMENTS.contains(&percent(total)), "{:.1} % comments, not in {COMMENTS:?}", percent(total));
}

/// Tests of one subject are one program, since each program links the whole library; a file that its
/// program does not name would never run.
#[test]
fn no_file_of_tests_is_left_out() {
    let mut failures = Failures::default();
    for main in with_extension("tests", "rs").iter().filter(|f| f.ends_with("/main.rs")) {
        let (folder, text) = (main.trim_end_matches("/main.rs"), read(main));
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
        names.contains("shaders/matmul.wgsl") && names.contains("LICENSE-MIT"),
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

#[test]
fn the_catalogue_lists_every_shader() {
    let stem = |f: String| f.trim_start_matches("shaders/").trim_end_matches(".wgsl").to_owned();
    let on_disk: BTreeSet<String> = with_extension("shaders", "wgsl").into_iter().map(stem).collect();
    let listed: BTreeSet<String> = sagittal::shader::files().map(|file| file.name.to_owned()).collect();
    assert_eq!(on_disk, listed, "left: files in shaders, right: sagittal::shader::files()");
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
    for script in ["with-vulkan", ".ci/run", "fuzz/run", "fuzz/instrument"] {
        let mode =
            fs::metadata(path(script)).unwrap_or_else(|e| panic!("{script}: {e}")).permissions().mode();
        assert!(mode & 0o111 == 0o111, "{script} is not executable");
    }
}
