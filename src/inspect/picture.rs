//! A picture: its size, and what its texts say of how it was made.

use std::path::Path;

use crate::Result;
use crate::image::infotext::Infotext;
use crate::image::settings::{Made, made};
use crate::image::{read, texts};
use crate::workflow::{Input, Workflow};

/// A PNG, JPEG or WebP.
#[derive(Debug, Clone, PartialEq)]
pub struct PictureFacts {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Bits of a sample.
    pub bits: u8,
    /// Samples of a pixel: 1 grey or an index, 2 with alpha, 3 RGB, 4 RGBA.
    pub samples: usize,
    /// Pictures of an animation; 1 without one.
    pub frames: u32,
    /// Why its pixels cannot be read, if the file is damaged.
    pub damage: Option<String>,
    /// The program whose settings it holds, ComfyUI left out: its workflows are in [`workflow`](Self::workflow).
    pub program: Option<&'static str>,
    /// Its settings in A1111's words; None of a program whose settings are not read.
    pub settings: Option<Infotext>,
    /// How that program's prompts differ from A1111's, where this one does.
    pub syntax: Option<&'static str>,
    /// ComfyUI's workflow; an error in words if the chunk holds none that can be read.
    pub workflow: Option<Result<WorkflowFacts, String>>,
    /// Keywords of all texts and their bytes.
    pub texts: Vec<(String, usize)>,
}

/// A workflow in a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkflowFacts {
    /// Whether there is the form that ComfyUI runs (chunk `prompt`).
    pub has_prompt: bool,
    /// Whether there is the form that it shows (chunk `workflow`).
    pub has_screen: bool,
    /// Its nodes.
    pub nodes: Vec<NodeFacts>,
}

/// A node of a workflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its number or name.
    pub id: String,
    /// What it does.
    pub class: String,
    /// What its author calls it.
    pub title: Option<String>,
    /// The inputs that are values, links left out.
    pub values: Vec<(String, String)>,
}

pub(super) fn inspect(path: &Path) -> Result<PictureFacts> {
    let bytes = read::bytes(path)?;
    let head = read::head(path, &bytes)?;
    let all = texts::texts(&bytes).map_err(|e| e.file(path))?;
    let made = made(&all);
    // A program that stores its settings under ComfyUI's keywords.
    let flat = made.as_ref().is_some_and(|made| made.program == "Easy Diffusion");
    let find = |keyword: &str| all.iter().find(|(k, _)| k == keyword).map(|(_, text)| text);
    let (has_prompt, has_screen) = (find("prompt").is_some(), find("workflow").is_some());
    let nodes = ((has_prompt && !flat) || has_screen).then(|| Workflow::parse(path, &bytes));
    let workflow = nodes.map(|read| match read {
        Ok(workflow) => Ok(WorkflowFacts { has_prompt, has_screen, nodes: nodes_of(&workflow) }),
        Err(e) => Err(e.to_string()),
    });
    Ok(PictureFacts {
        width: head.width,
        height: head.height,
        bits: head.bits,
        samples: head.samples,
        frames: head.frames,
        damage: read::rgba_of(path, bytes).err().map(|e| e.what().to_owned()),
        program: made.as_ref().map(|made| made.program),
        syntax: made.as_ref().and_then(|made| made.syntax),
        settings: made.and_then(|Made { settings, .. }| settings),
        workflow,
        texts: all.iter().map(|(keyword, text)| (keyword.clone(), text.len())).collect(),
    })
}

fn nodes_of(workflow: &Workflow) -> Vec<NodeFacts> {
    let value = |(name, input): &(String, Input)| match input {
        Input::Value(serde_json::Value::String(text)) => Some((name.clone(), text.clone())),
        Input::Value(value) => Some((name.clone(), value.to_string())),
        Input::Link { .. } => None,
    };
    let node = |node: &crate::workflow::Node| NodeFacts {
        id: node.id.clone(),
        class: node.class.clone(),
        title: node.title.clone(),
        values: node.inputs.iter().filter_map(value).collect(),
    };
    workflow.graph().nodes().iter().map(node).collect()
}
