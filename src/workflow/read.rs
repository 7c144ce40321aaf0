//! From a file to a graph: which format it is, and ComfyUI's API format.
//!
//! ```text
//! {"3": {"class_type": "KSampler", "inputs": {…}}}    API format, what ComfyUI's server runs
//! {"nodes": […], "links": […]}                        UI format, what its menu saves
//! PNG with a chunk `prompt` or `workflow`             a picture that ComfyUI or sagittal made
//! ```

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value as Json;

use super::graph::{Graph, Input, Node};
use super::json::{id, too_many};
use super::{nodes, older_versions, ui_format};
use crate::image::Format;
use crate::image::texts::texts;
use crate::{Error, ErrorKind, Remedy, Resource, Result};

/// Larger files are no workflows: a thousand nodes take less than a megabyte. Pictures may be large.
const MOST_BYTES: u64 = 256 << 20;

/// A workflow in memory.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ParsedWorkflow {
    pub graph: Graph,
    /// The UI format that it was read from.
    pub ui: Option<Json>,
}

/// The bytes of a workflow's file.
///
/// # Errors
/// [`ErrorKind::File`] if it cannot be read, or is far too large.
pub(super) fn bytes(path: &Path) -> Result<Vec<u8>> {
    let cannot = |e| Error::io(path, "the workflow cannot be read", e);
    let meta = std::fs::metadata(path).map_err(cannot)?;
    // Opening a pipe would wait for a writer for ever.
    if !meta.is_file() {
        return Err(no_workflow("not a regular file").file(path));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(cannot)?;
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > MOST_BYTES {
        let most = format!("a file of at most {} MiB", MOST_BYTES >> 20);
        return Err(no_workflow("more").expected(most).file(path));
    }
    Ok(bytes)
}

/// Reads a workflow in whatever format it is.
///
/// # Errors
/// [`ErrorKind::File`] if it is none, saying what it looks like.
pub(super) fn parse(bytes: &[u8]) -> Result<ParsedWorkflow> {
    if Format::of(bytes).is_some() {
        return from_picture(bytes);
    }
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    from_json(text)
}

fn from_json(text: &[u8]) -> Result<ParsedWorkflow> {
    let sound = serde_json::from_slice(text);
    let json: Json = sound.or_else(|e| without_nan(text).ok_or(e)).map_err(|e| {
        match text.iter().find(|b| !b.is_ascii_whitespace()) {
            None => no_workflow("an empty file"),
            Some(b'{' | b'[') => Error::new(ErrorKind::File, "the workflow is not sound JSON")
                .cause(e)
                .hint("export it from ComfyUI's menu again"),
            Some(_) => no_workflow("neither JSON nor a picture"),
        }
    })?;
    from_value(json)
}

/// Python writes NaN and Infinity into JSON, of all places into what old pictures list of changed
/// inputs: `"is_changed": [NaN]`. None if the text is not sound without them either.
fn without_nan(text: &[u8]) -> Option<Json> {
    let text = std::str::from_utf8(text).ok()?;
    let mut out = String::with_capacity(text.len());
    let (mut inside, mut escaped) = (false, false);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let word =
            ["-Infinity", "Infinity", "NaN"].into_iter().find(|word| !inside && rest.starts_with(word));
        if let Some(word) = word {
            out.push_str("null");
            rest = &rest[word.len()..];
            continue;
        }
        inside ^= c == '"' && !escaped;
        escaped = inside && c == '\\' && !escaped;
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    serde_json::from_str(&out).ok()
}

fn from_value(json: Json) -> Result<ParsedWorkflow> {
    let mut source = unchanged(json)?;
    older_versions::update(&mut source.graph);
    Ok(source)
}

fn unchanged(json: Json) -> Result<ParsedWorkflow> {
    let Json::Object(object) = &json else { return Err(no_workflow("JSON of something else")) };
    if object.get("nodes").is_some_and(Json::is_array) {
        return Ok(ParsedWorkflow { graph: ui_format::graph(&json)?, ui: Some(json) });
    }
    // What is posted to ComfyUI's server has the workflow inside.
    let inner = object.get("prompt").filter(|p| p.is_object() && p.get("class_type").is_none());
    if let Some(prompt) = inner {
        let ui = json.pointer("/extra_data/extra_pnginfo/workflow").cloned();
        return Ok(ParsedWorkflow { graph: api(prompt)?, ui: ui.filter(Json::is_object) });
    }
    Ok(ParsedWorkflow { graph: api(&json)?, ui: None })
}

/// The API format: an object of nodes by id.
fn api(json: &Json) -> Result<Graph> {
    let object = json.as_object().ok_or_else(|| no_workflow("JSON of something else"))?;
    if !object.values().any(|node| node.get("class_type").is_some()) {
        let keys: Vec<&str> = object.keys().take(3).map(String::as_str).collect();
        return Err(match keys.is_empty() {
            true => no_workflow("an empty object"),
            false => no_workflow(&format!("an object with {}", keys.join(", "))),
        });
    }
    too_many(object.len())?;
    let mut graph = Graph::default();
    for (id, node) in object {
        let wrong = |what: &str| Error::new(ErrorKind::File, what).at(format!("node {id}"));
        let class = node.get("class_type").and_then(Json::as_str);
        let class = class.ok_or_else(|| {
            wrong("a node does not say what it does").expected("class_type, such as KSampler")
        })?;
        let mut read = Node::new(id, nodes::class_today(class));
        read.title = node.pointer("/_meta/title").and_then(Json::as_str).map(str::to_owned);
        let inputs = match node.get("inputs") {
            None => None,
            Some(Json::Object(inputs)) => Some(inputs),
            Some(_) => return Err(wrong("the inputs of a node are no object")),
        };
        read.inputs =
            inputs.into_iter().flatten().map(|(name, value)| (name.clone(), input(value))).collect();
        graph.add(read);
    }
    Ok(graph)
}

/// A link is a list of a node and an output. Lists that are values are wrapped in an object since 2025;
/// what else there is may be for an input that nobody reads, and is reported where it is read.
fn input(value: &Json) -> Input {
    let link = |link: &[Json]| match link {
        [node, output] => Some((id(node)?, usize::try_from(output.as_u64()?).ok()?)),
        _ => None,
    };
    if let Some((node, output)) = value.as_array().and_then(|list| link(list)) {
        return Input::Link { node, output };
    }
    Input::Value(value.get("__value__").unwrap_or(value).clone())
}

/// A picture with a workflow in it. `prompt` is what was run, `workflow` what was on the screen.
fn from_picture(bytes: &[u8]) -> Result<ParsedWorkflow> {
    let texts = texts(bytes)?;
    let find = |keyword: &str| texts.iter().find(|(k, _)| k == keyword).map(|(_, text)| text.as_bytes());
    let inside = |keyword: &str, e: Error| e.at(format!("the picture's text `{keyword}`"));
    let ui = find("workflow").map(serde_json::from_slice::<Json>).and_then(Result::ok);
    if let Some(prompt) = find("prompt") {
        let source = from_json(prompt).map_err(|e| inside("prompt", e))?;
        return Ok(ParsedWorkflow { ui: source.ui.or(ui.filter(Json::is_object)), ..source });
    }
    if let Some(workflow) = find("workflow") {
        return from_json(workflow).map_err(|e| inside("workflow", e));
    }
    let error = no_workflow("a picture without one");
    Err(match find("parameters") {
        Some(_) => error
            .expected("a workflow, not A1111's settings")
            .remedy(Remedy::UseAs(Resource::PictureSettings)),
        None => error.hint("pass the file as ComfyUI saved it: other programs leave its texts out"),
    })
}

/// The error for a file that is no workflow.
fn no_workflow(found: &str) -> Error {
    Error::new(ErrorKind::File, "not a workflow")
        .expected("ComfyUI's workflow as JSON (API or UI format), or a picture that carries one")
        .found(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The workflow in a picture is the workflow, to the last digit: fuzzing found numbers that
    /// came back as their neighbours.
    #[test]
    fn numbers_come_back_as_they_were() {
        let numbers = ["133333333333333333333333333333333333333333333360", "0.1", "7.038531e-26", "1e300"];
        let scales = (1..200).map(|i| format!("{}", f64::from(i) * 0.37 / 7.0));
        for number in numbers.map(str::to_owned).into_iter().chain(scales) {
            let text = format!(r#"{{"3": {{"class_type": "KSampler", "inputs": {{"cfg": {number}}}}}}}"#);
            let graph = parse(text.as_bytes()).unwrap().graph;
            let Some(Input::Value(value)) = graph.nodes()[0].input("cfg") else { panic!("a value") };
            assert_eq!(value.as_f64(), number.parse().ok(), "{number}");
            let again = parse(graph.to_api().to_string().as_bytes()).unwrap().graph;
            assert_eq!(again, graph, "{number}");
        }
    }
}
