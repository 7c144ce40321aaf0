//! Circles of imports: files that need each other can only be understood together.

use std::collections::{BTreeMap, BTreeSet};

use super::common::Failures;
use super::words::code;
use super::{read, with_extension};

/// Files of the largest circle that is allowed.
const MOST: usize = 3;

/// A module, by its names from the crate's root.
type Module = Vec<String>;

/// A crate's modules that are files, with what each names of others.
struct Sources {
    files: BTreeMap<Module, String>,
    imports: BTreeMap<Module, Vec<Import>>,
    /// Text without comments, strings, tests and `use` lines.
    bodies: BTreeMap<Module, String>,
}

struct Import {
    is_public: bool,
    /// As it is written.
    path: Vec<String>,
    name: String,
}

impl Sources {
    fn of(folder: &str) -> Self {
        let mut sources = Self { files: BTreeMap::new(), imports: BTreeMap::new(), bodies: BTreeMap::new() };
        for file in with_extension(folder, "rs") {
            let mut module: Module =
                file[folder.len() + 1..].trim_end_matches(".rs").split('/').map(str::to_owned).collect();
            if module.last().is_some_and(|name| ["lib", "main"].contains(&name.as_str())) {
                module.pop();
            }
            let (imports, body) = split_imports(&without_comments_and_tests(&read(&file)));
            sources.imports.insert(module.clone(), imports);
            sources.bodies.insert(module.clone(), body);
            sources.files.insert(module, file);
        }
        sources
    }

    /// A path that `module` names, from the crate's root; None for other crates.
    fn absolute(&self, module: &[String], path: &[String]) -> Option<Vec<String>> {
        let supers = path.iter().take_while(|part| *part == "super").count();
        let (start, rest) = match path.first()?.as_str() {
            "crate" => (Vec::new(), &path[1..]),
            "self" => (module.to_vec(), &path[1..]),
            "super" => (module[..module.len().checked_sub(supers)?].to_vec(), &path[supers..]),
            name => {
                let child: Module = module.iter().cloned().chain([name.to_owned()]).collect();
                self.files.contains_key(&child).then_some(())?;
                (module.to_vec(), path)
            }
        };
        Some(start.into_iter().chain(rest.iter().cloned()).collect())
    }

    /// The file that defines what `path` names, through `pub use`.
    fn defining(&self, path: &[String], depth: usize) -> Option<Module> {
        let length = (0..=path.len()).rev().find(|n| self.files.contains_key(&path[..*n]))?;
        let (module, rest) = path.split_at(length);
        let further = rest.first().filter(|_| depth < 8).and_then(|name| {
            let import = self.imports[module].iter().find(|i| i.is_public && i.name == *name)?;
            let target = self.absolute(module, &import.path)?;
            let path: Vec<String> = target.into_iter().chain(rest[1..].iter().cloned()).collect();
            self.defining(&path, depth + 1)
        });
        further.or_else(|| Some(module.to_vec()))
    }

    /// The files that each file needs.
    fn needs(&self) -> BTreeMap<&Module, BTreeSet<Module>> {
        let of = |module: &Module| {
            let body = &self.bodies[module];
            // What is passed on alone is not needed here.
            let used = |import: &&Import| !import.is_public || words(body).any(|word| word == import.name);
            let named = self.imports[module].iter().filter(used).map(|import| import.path.clone());
            let targets = named.chain(paths(body)).filter_map(|path| self.absolute(module, &path));
            let files = targets.filter_map(|path| self.defining(&path, 0));
            files.filter(|file| file != module).collect::<BTreeSet<Module>>()
        };
        self.files.keys().map(|module| (module, of(module))).collect()
    }

    /// Circles of more than one file: sets in which each file needs each other one.
    fn circles(&self) -> Vec<Vec<&str>> {
        let needs = self.needs();
        let reach = |from: &Module| {
            let (mut seen, mut next) = (BTreeSet::new(), vec![from.clone()]);
            while let Some(module) = next.pop() {
                let found = needs.get(&module).into_iter().flatten();
                next.extend(found.filter(|module| seen.insert((*module).clone())).cloned());
            }
            seen
        };
        let reached: BTreeMap<&Module, BTreeSet<Module>> =
            needs.keys().map(|module| (*module, reach(module))).collect();
        let mut circles = BTreeSet::new();
        for (module, there) in &reached {
            let circle: Vec<&str> = there
                .iter()
                .filter(|other| reached[*other].contains(*module))
                .map(|m| self.files[m].as_str())
                .collect();
            if circle.len() > 1 {
                circles.insert(circle);
            }
        }
        circles.into_iter().collect()
    }
}

/// Rust without comments, the insides of strings, and tests at its end.
fn without_comments_and_tests(text: &str) -> String {
    code(text.split("#[cfg(test)]\nmod ").next().unwrap_or_default())
}

/// What `use` lines name, and the text without them.
fn split_imports(text: &str) -> (Vec<Import>, String) {
    let (mut imports, mut body) = (Vec::new(), String::new());
    let mut rest = text;
    while let Some((before, item, behind)) = next_import(rest) {
        body.push_str(before);
        let is_public = before.trim_end().ends_with("pub") || before.trim_end().ends_with(')');
        for (path, name) in expanded(item) {
            imports.push(Import { is_public, path, name });
        }
        rest = behind;
    }
    body.push_str(rest);
    (imports, body)
}

/// Text before `use`, what it names, and text behind.
fn next_import(text: &str) -> Option<(&str, &str, &str)> {
    let is_start = |at: &usize| {
        let line = text[..*at].rsplit('\n').next().unwrap_or_default().trim_start();
        line.is_empty() || line == "pub " || (line.starts_with("pub(") && line.ends_with(") "))
    };
    let at = text.match_indices("use ").map(|(at, _)| at).find(is_start)?;
    let (item, behind) = text[at + 4..].split_once(';')?;
    Some((&text[..at], item, behind))
}

/// Each path of a `use`, with the name that it has then.
fn expanded(item: &str) -> Vec<(Vec<String>, String)> {
    let item = item.trim();
    let Some((before, inside)) = item.split_once('{') else {
        let (path, name) = item.split_once(" as ").map_or((item, None), |(path, name)| (path, Some(name)));
        let mut path: Vec<String> = path.split("::").map(|part| part.trim().to_owned()).collect();
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let last = path.last().cloned().unwrap_or_default();
        return vec![(path, name.map_or(last, |name| name.trim().to_owned()))];
    };
    let inside = inside.rsplit_once('}').map_or(inside, |(inside, _)| inside);
    let mut depth = 0;
    let parts = inside.split(|letter| {
        depth += i32::from(letter == '{') - i32::from(letter == '}');
        letter == ',' && depth == 0
    });
    let parts = parts.filter(|part| !part.trim().is_empty());
    parts.flat_map(|part| expanded(&format!("{before}{}", part.trim()))).collect()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_alphanumeric() && letter != '_').filter(|word| !word.is_empty())
}

/// Paths of several names in a text.
fn paths(text: &str) -> impl Iterator<Item = Vec<String>> + '_ {
    let named = text.split(|letter: char| !letter.is_alphanumeric() && letter != '_' && letter != ':');
    named.filter(|path| path.contains("::")).map(|path| {
        path.split("::").map(str::to_owned).take_while(|part| !part.is_empty()).collect::<Vec<_>>()
    })
}

#[test]
fn imports_go_one_way() {
    let mut failures = Failures::default();
    for folder in ["src", "cli/src", "capi/src", "examples/embed_window/src"] {
        for circle in Sources::of(folder).circles() {
            failures.check(circle.len() <= MOST, || {
                format!("{} files need each other, at most {MOST}: {}", circle.len(), circle.join(", "))
            });
        }
    }
    failures.finish();
}

/// Folders whose files know nothing of some others.
#[test]
fn lower_rooms_know_nothing_of_upper_ones() {
    let lower = ["image", "kernels", "gpu", "latent", "shader", "error", "size", "graph"];
    let upper = ["pipeline", "guidance", "plan", "workflow", "network", "model", "engine", "checkpoint"];
    let sources = Sources::of("src");
    let mut failures = Failures::default();
    for (module, needs) in sources.needs() {
        let Some(room) = module.first().filter(|room| lower.contains(&room.as_str())) else { continue };
        for need in needs.iter().filter(|need| need.first().is_some_and(|to| upper.contains(&to.as_str()))) {
            failures
                .check(false, || format!("{room}: {} needs {}", sources.files[module], sources.files[need]));
        }
    }
    failures.finish();
}

/// The test itself sees circles, imports through other files, and what is passed on alone.
#[test]
fn paths_are_read_as_rust_reads_them() {
    let text = "use crate::a::{self, b::{C, D as E}};\npub(crate) use super::f;\n// use crate::g;\nfn h() { \
                crate::i::j(\"use crate::k;\"); }\n";
    let (imports, body) = split_imports(&without_comments_and_tests(text));
    let found: Vec<(String, &str, bool)> =
        imports.iter().map(|i| (i.path.join("::"), i.name.as_str(), i.is_public)).collect();
    let named = |path: &str, name, is_public| (path.to_owned(), name, is_public);
    assert_eq!(
        found,
        [
            named("crate::a", "a", false),
            named("crate::a::b::C", "C", false),
            named("crate::a::b::D", "E", false),
            named("super::f", "f", true)
        ]
    );
    assert_eq!(paths(&body).collect::<Vec<_>>(), [["crate", "i", "j"]]);
}
