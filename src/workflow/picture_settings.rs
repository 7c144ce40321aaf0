//! A saved picture's settings as A1111 writes them, and what a class of nodes contributes to them.

pub(super) mod derive;

use super::graph::{Graph, Input, Node};
use super::spec::Class;
use super::value::Value;
use crate::Size;
use crate::image::parameters::{self, Origin};
use crate::pipeline::Request;

/// The settings of the pictures that a node saves, before their size is known.
pub(super) struct PictureSettings {
    pub request: Request,
    /// The model's name.
    pub model: String,
}

impl PictureSettings {
    /// The text for picture `number` of a batch of this size, width and height.
    pub fn text(&self, (width, height): (usize, usize), number: usize) -> String {
        let request = Request { size: Size::new(width, height), ..self.request.clone() };
        parameters::parameters(&request, &Origin { model: &self.model, ..Origin::default() }, number)
    }
}

/// What the nodes of a class contribute to a picture's settings. Fields name inputs.
#[derive(Clone, Copy)]
pub(super) enum Contribution {
    /// Nothing: the picture is that of this input.
    PictureOf(&'static str),
    /// What a sampler was set to.
    Sampler(fn(&WrittenNode<'_>, &mut Request) -> Option<()>),
    /// A latent that a picture is made of from noise alone.
    EmptyLatent(fn(&WrittenNode<'_>, &mut Request) -> Option<()>),
    /// A prompt's text.
    Prompt { text: &'static str },
    /// Two prompts on one side.
    Prompts([&'static str; 2]),
    /// How many layers of the text encoders count.
    ClipSkip(fn(&WrittenNode<'_>) -> Option<usize>),
    /// The name of the model's file.
    ModelFile { name: &'static str },
    /// Something on top of the model at the input `model`.
    OnModel(fn(&WrittenNode<'_>, &mut Request) -> Option<()>),
}

/// A node with the values of its widgets, as far as they are written in the workflow.
pub(super) struct WrittenNode<'a> {
    pub graph: &'a Graph,
    pub node: &'a Node,
    pub class: &'static Class,
}

impl WrittenNode<'_> {
    /// The value of a widget, or of the primitive node that is linked to it.
    pub fn value(&self, input: &str) -> Option<Value> {
        let slot = self.class.input(input)?;
        let json = match self.node.input(input) {
            Some(Input::Value(json)) => json.clone(),
            Some(Input::Link { node, .. }) => match self.graph.find(node)?.input("value")? {
                Input::Value(json) => json.clone(),
                Input::Link { .. } => return None,
            },
            None => slot.default()?,
        };
        Value::written(slot, &json).ok()
    }

    /// A whole number.
    pub fn int(&self, input: &str) -> Option<i128> {
        match self.value(input)? {
            Value::Int(value) => Some(value),
            _ => None,
        }
    }

    /// A whole number that is not negative.
    pub fn size(&self, input: &str) -> Option<u64> {
        self.int(input)?.try_into().ok()
    }

    /// A number.
    pub fn float(&self, input: &str) -> Option<f64> {
        match self.value(input)? {
            Value::Float(value) => Some(value),
            _ => None,
        }
    }

    /// A text, a choice or a file's name.
    pub fn text(&self, input: &str) -> Option<String> {
        match self.value(input)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// A file's name without its folders and extension.
pub(super) fn stem(name: &str) -> &str {
    let file = name.rsplit(['/', '\\']).next().unwrap_or(name);
    file.rsplit_once('.').map_or(file, |(stem, _)| stem)
}
