//! Classes of nodes as data.

use super::slot::{Kind, Slot};
use super::types::Type;

/// A class of nodes.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Class {
    /// What workflows call it.
    pub name: &'static str,
    /// What ComfyUI shows as its title.
    pub title: &'static str,
    /// Where ComfyUI's menu lists it, a path with slashes.
    pub category: &'static str,
    /// Inputs, those that are needed first.
    pub inputs: &'static [Slot],
    /// Types of the outputs, in order.
    pub outputs: &'static [Type],
    /// Names of the outputs; empty where they are those of their types.
    pub output_names: &'static [&'static str],
    /// Whether it leaves something behind: such nodes are what a workflow is run for.
    pub is_output: bool,
}

impl Class {
    /// A class to begin a declaration with.
    pub(crate) const BLANK: Self = Self {
        name: "",
        title: "",
        category: "",
        inputs: &[],
        outputs: &[],
        output_names: &[],
        is_output: false,
    };

    /// The inputs that have a widget, in its order.
    pub fn widgets(&self) -> impl Iterator<Item = &'static Slot> {
        self.inputs.iter().filter(|i| !matches!(i.kind, Kind::Socket(_)))
    }

    /// The input called `name`.
    pub fn input(&self, name: &str) -> Option<&'static Slot> {
        self.inputs.iter().find(|i| i.name == name)
    }
}
