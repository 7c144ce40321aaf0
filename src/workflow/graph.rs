//! A workflow as one graph, whatever format it was read from.

use std::collections::HashMap;
use std::fmt;

use serde_json::{Map, Value as Json, json};

use crate::{Error, ErrorKind};

/// Nodes and what their inputs are connected to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Graph {
    nodes: Vec<Node>,
    index: HashMap<String, usize>,
    /// Nodes that are only on the screen, muted or bypassed: nothing runs them, but names of files may
    /// call them for their values.
    not_run: Vec<Node>,
}

/// A node: a step of the work.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its name in the file, a number as a rule; `12:3` is node 3 in the subgraph of node 12.
    pub id: String,
    /// What a person called it.
    pub title: Option<String>,
    /// Another name that file-name prefixes may call it by (`Node name for S&R`).
    pub alias: Option<String>,
    /// What it does: `KSampler`.
    pub class: String,
    /// The package that the file names as the maker of this class; `comfy-core` is ComfyUI itself.
    pub package: Option<String>,
    /// Inputs by name, in the file's order.
    pub inputs: Vec<(String, Input)>,
    /// Inputs that lead to nothing.
    pub loose: Vec<Loose>,
}

/// An input whose link leads to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loose {
    /// Its name.
    pub input: String,
    /// Why, for messages.
    pub why: String,
    /// Whether it is so on purpose: what it leads to is muted.
    pub is_muted: bool,
}

/// Where a node's input comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// Written in the workflow.
    Value(Json),
    /// Another node's output.
    Link {
        /// The other node's id.
        node: String,
        /// Number of the output, from 0.
        output: usize,
    },
}

impl Node {
    /// A node without inputs.
    pub fn new(id: impl Into<String>, class: impl Into<String>) -> Self {
        let (id, class) = (id.into(), class.into());
        Self { id, title: None, alias: None, class, package: None, inputs: Vec::new(), loose: Vec::new() }
    }

    /// The input called `name`.
    pub fn input(&self, name: &str) -> Option<&Input> {
        self.inputs.iter().find(|(n, _)| n == name).map(|(_, input)| input)
    }

    /// The value of an input, as far as it is written in the workflow.
    pub(super) fn written(&self, input: &str) -> Option<&Json> {
        match self.input(input)? {
            Input::Value(json) => Some(json),
            Input::Link { .. } => None,
        }
    }

    /// `error` with this node as the one in which it came about.
    pub(super) fn wrap(&self, error: Error) -> Error {
        if error.kind() == ErrorKind::Cancelled {
            return error;
        }
        Error::new(error.kind(), self.to_string()).cause(error)
    }

    /// Puts `input` in the place of the one called `name`, or adds it.
    pub fn set(&mut self, name: &str, input: Input) {
        match self.inputs.iter_mut().find(|(n, _)| n == name) {
            Some((_, old)) => *old = input,
            None => self.inputs.push((name.to_owned(), input)),
        }
    }
}

impl fmt::Display for Node {
    /// `node 3 (KSampler, "second pass")`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short =
            |s: &str| s.chars().take(60).map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
        write!(f, "node {} ({}", short(&self.id), short(&self.class))?;
        match &self.title {
            Some(title) if *title != self.class => write!(f, ", \"{}\")", short(title)),
            _ => f.write_str(")"),
        }
    }
}

impl Graph {
    /// Adds a node; false if there is one of its id already.
    pub fn add(&mut self, node: Node) -> bool {
        let free = !self.index.contains_key(&node.id);
        if free {
            self.index.insert(node.id.clone(), self.nodes.len());
            self.nodes.push(node);
        }
        free
    }

    /// Adds a node that does not run.
    pub(super) fn add_not_run(&mut self, node: Node) {
        self.not_run.push(node);
    }

    /// All nodes with a widget that a file's name may call, those that run first.
    pub(super) fn named(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().chain(&self.not_run)
    }

    /// All nodes, to be changed where they are.
    pub(super) fn nodes_mut(&mut self) -> &mut [Node] {
        &mut self.nodes
    }

    /// All nodes, in the file's order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The index of the node called `id` in [`nodes`](Self::nodes).
    pub fn position(&self, id: &str) -> Option<usize> {
        self.index.get(id).copied()
    }

    /// The node called `id`.
    pub fn find(&self, id: &str) -> Option<&Node> {
        self.position(id).and_then(|at| self.nodes.get(at))
    }

    /// ComfyUI's API format.
    pub fn to_api(&self) -> Json {
        let input = |input: &Input| match input {
            Input::Value(value) => value.clone(),
            Input::Link { node, output } => json!([node, output]),
        };
        let node = |node: &Node| {
            let inputs: Map<String, Json> =
                node.inputs.iter().map(|(name, i)| (name.clone(), input(i))).collect();
            let mut api = json!({ "inputs": inputs, "class_type": node.class });
            if let Some(title) = &node.title {
                api["_meta"] = json!({ "title": title });
            }
            (node.id.clone(), api)
        };
        Json::Object(self.nodes.iter().map(node).collect())
    }
}
