//! Inputs of nodes: what each takes, its default and its range.

use serde_json::Value as Json;

use super::choices::Choices;
use super::types::{FileKind, Type};
use crate::families::LATENT_CELL;

/// ComfyUI's largest side of a picture, pixels.
const MOST_PIXELS: i128 = 16_384;

/// An input of a class.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slot {
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Whether a workflow may leave it out.
    pub optional: bool,
}

/// What an input takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Another node's output.
    Socket(Type),
    /// A whole number.
    Int {
        /// What a new node has.
        default: i128,
        /// Least.
        min: i128,
        /// Most.
        max: i128,
        /// ComfyUI's page offers multiples of it; a workflow may have others.
        step: i128,
    },
    /// A number.
    Float {
        /// What a new node has.
        default: f64,
        /// Least.
        min: f64,
        /// Most.
        max: f64,
    },
    /// True or false.
    Bool {
        /// What a new node has.
        default: bool,
    },
    /// Any text.
    Text {
        /// What a new node has.
        default: &'static str,
        /// Whether it is a prompt, in which the frontend replaces `{a|b}`.
        prompt: bool,
    },
    /// One of some words; the first is the default.
    Choice(Choices),
    /// The name of a file of a kind.
    File(FileKind),
}

impl Slot {
    /// Whether it is a seed, behind which the UI format has what happens to it after a run.
    pub(crate) fn is_seed(&self) -> bool {
        matches!(self.kind, Kind::Int { max, .. } if max >= i128::from(i64::MAX))
    }

    /// Whether it is a prompt.
    pub(crate) fn is_prompt(&self) -> bool {
        matches!(self.kind, Kind::Text { prompt: true, .. })
    }

    /// What a new node has; None for sockets and files.
    pub fn default(&self) -> Option<Json> {
        Some(match self.kind {
            Kind::Socket(_) | Kind::File(_) => return None,
            Kind::Int { default, .. } => Json::from(i64::try_from(default).unwrap_or(0)),
            Kind::Float { default, .. } => Json::from(default),
            Kind::Bool { default } => Json::from(default),
            Kind::Text { default, .. } => Json::from(default),
            Kind::Choice(choices) => Json::from(*choices.names().first()?),
        })
    }

    /// The type of output that may be connected to it.
    pub fn accepts(&self, given: Type) -> bool {
        match self.kind {
            Kind::Socket(wanted) => given == wanted,
            // ComfyUI turns the one into the other.
            Kind::Int { .. } | Kind::Float { .. } => matches!(given, Type::Int | Type::Float),
            Kind::Bool { .. } => given == Type::Bool,
            Kind::Text { .. } | Kind::Choice(_) | Kind::File(_) => given == Type::Text,
        }
    }

    /// The same, but it may be left out: ComfyUI has it that way, or had it not in older versions.
    pub(crate) const fn or_default(self) -> Self {
        Self { optional: true, ..self }
    }
}

/// An input from another node.
pub(crate) const fn socket(name: &'static str, of: Type) -> Slot {
    Slot { name, kind: Kind::Socket(of), optional: false }
}

/// A whole number.
pub(crate) const fn int(name: &'static str, default: i128, min: i128, max: i128) -> Slot {
    Slot { name, kind: Kind::Int { default, min, max, step: 1 }, optional: false }
}

/// A side of a picture, or a place in it.
pub(crate) const fn pixels(name: &'static str, default: i128, min: i128) -> Slot {
    int(name, default, min, MOST_PIXELS)
}

/// A side of a latent, or a place in it, in pixels: what is less than a cell is dropped.
pub(crate) const fn cells(name: &'static str, default: i128, min: i128) -> Slot {
    let kind = Kind::Int { default, min, max: MOST_PIXELS, step: LATENT_CELL as i128 };
    Slot { name, kind, optional: false }
}

/// A seed.
pub(crate) const fn seed(name: &'static str) -> Slot {
    int(name, 0, 0, u64::MAX as i128)
}

/// A number.
pub(crate) const fn float(name: &'static str, default: f64, min: f64, max: f64) -> Slot {
    Slot { name, kind: Kind::Float { default, min, max }, optional: false }
}

/// One of some words.
pub(crate) const fn choice(name: &'static str, of: &'static [&'static str]) -> Slot {
    Slot { name, kind: Kind::Choice(Choices::Of(of)), optional: false }
}

/// A prompt.
pub(crate) const fn prompt(name: &'static str) -> Slot {
    Slot { name, kind: Kind::Text { default: "", prompt: true }, optional: false }
}

/// A text.
pub(crate) const fn words(name: &'static str, default: &'static str) -> Slot {
    Slot { name, kind: Kind::Text { default, prompt: false }, optional: false }
}

/// True or false.
pub(crate) const fn switch(name: &'static str, default: bool) -> Slot {
    Slot { name, kind: Kind::Bool { default }, optional: false }
}

/// The name of a file.
pub(crate) const fn file(name: &'static str, kind: FileKind) -> Slot {
    Slot { name, kind: Kind::File(kind), optional: false }
}
