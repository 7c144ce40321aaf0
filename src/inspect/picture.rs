//! A PNG: its size, and what its text chunks tell of how it was made.

use std::io::Cursor;
use std::path::Path;

use crate::image::infotext::Infotext;
use crate::image::{parameters, read, texts};
use crate::workflow::{Input, Workflow};
use crate::{Error, ErrorKind, Result};

/// A PNG.
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
    /// A1111's settings.
    pub settings: Option<Infotext>,
    /// ComfyUI's workflow; an error in words if the chunk holds none that can be read.
    pub workflow: Option<Result<WorkflowFacts, String>>,
    /// Keywords of all text chunks and bytes of their texts.
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
    read::check_signature(path, &bytes)?;
    let damaged =
        |e: png::DecodingError| Error::new(ErrorKind::File, "the PNG is damaged").file(path).cause(e);
    let reader = png::Decoder::new(Cursor::new(&bytes)).read_info().map_err(damaged)?;
    let info = reader.info();
    let all = texts::texts(&bytes).map_err(|e| e.file(path))?;
    let find = |keyword: &str| all.iter().find(|(k, _)| k == keyword).map(|(_, text)| text);
    let (has_prompt, has_screen) = (find("prompt").is_some(), find("workflow").is_some());
    let nodes = (has_prompt || has_screen).then(|| Workflow::parse(path, &bytes));
    let workflow = nodes.map(|read| match read {
        Ok(workflow) => Ok(WorkflowFacts { has_prompt, has_screen, nodes: nodes_of(&workflow) }),
        Err(e) => Err(e.to_string()),
    });
    Ok(PictureFacts {
        width: info.width as usize,
        height: info.height as usize,
        bits: info.bit_depth as u8,
        samples: info.color_type.samples(),
        frames: info.animation_control.map_or(1, |a| a.num_frames),
        settings: find(parameters::KEYWORD).map(|text| Infotext::parse(text)),
        workflow,
        texts: all.iter().map(|(keyword, text)| (keyword.clone(), text.len())).collect(),
    })
}

fn nodes_of(workflow: &Workflow) -> Vec<NodeFacts> {
    let told = |(name, input): &(String, Input)| match input {
        Input::Value(serde_json::Value::String(text)) => Some((name.clone(), text.clone())),
        Input::Value(value) => Some((name.clone(), value.to_string())),
        Input::Link { .. } => None,
    };
    let node = |node: &crate::workflow::Node| NodeFacts {
        id: node.id.clone(),
        class: node.class.clone(),
        title: node.title.clone(),
        values: node.inputs.iter().filter_map(told).collect(),
    };
    workflow.graph().nodes().iter().map(node).collect()
}
