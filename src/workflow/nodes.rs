//! The nodes that run here: what each takes and gives, and the function that does it.
//!
//! A family of nodes is one file with one table. Inputs, defaults and ranges are ComfyUI's; their
//! order is that of the widgets in the UI format.

pub(super) mod conditioning;
pub(super) mod custom;
pub(super) mod guidance;
pub(super) mod images;
pub(super) mod latents;
pub(super) mod loaders;
pub(super) mod masks;
pub(super) mod primitives;
pub(super) mod sampling;
pub(super) mod save;

use std::fmt;

use serde_json::Value as Json;

use super::run::Work;
use super::value::{Arguments, Value};
use crate::Result;
use crate::sampler::{Sampler, Scheduler};

/// ComfyUI's largest side of a picture, pixels.
pub(super) const MOST_PIXELS: i128 = 16_384;

/// A kind of node.
pub struct Class {
    /// What workflows call it.
    pub name: &'static str,
    /// Inputs, those that are needed first.
    pub inputs: &'static [Slot],
    /// Types of the outputs, in order.
    pub outputs: &'static [Type],
    /// Whether it leaves something behind: such nodes are what a workflow is run for.
    pub is_output: bool,
    /// Does the node's work.
    pub(super) run: Function,
}

/// What does a node's work: its outputs from its inputs.
#[derive(Clone, Copy)]
pub(super) enum Function {
    /// From its inputs alone: where they are known by then, it is done while a workflow is looked at too.
    Plain(fn(&Arguments<'_>) -> Result<Vec<Value>>),
    /// With a device, files or the clock.
    Working(fn(&mut Work<'_>, &Arguments<'_>) -> Result<Vec<Value>>),
}

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

/// The words that an input takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Choices {
    /// These.
    Of(&'static [&'static str]),
    /// ComfyUI's names of samplers.
    Samplers,
    /// ComfyUI's names of schedulers.
    Schedulers,
}

/// Kinds of files that workflows name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// Whole models.
    Checkpoint,
    /// LoRAs.
    Lora,
    /// Autoencoders.
    Vae,
    /// Text encoders.
    TextEncoder,
    /// UNets.
    DiffusionModel,
    /// Pictures to load.
    Image,
    /// Latents to load.
    Latent,
}

/// What passes between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Type {
    /// A denoising network with what guides it.
    Model,
    /// Text encoders.
    Clip,
    /// An autoencoder.
    Vae,
    /// Prompts.
    Conditioning,
    /// Latents.
    Latent,
    /// Pictures.
    Image,
    /// Masks.
    Mask,
    /// A sampler.
    Sampler,
    /// Noise levels.
    Sigmas,
    /// A network with its prompts.
    Guider,
    /// A source of noise.
    Noise,
    /// A whole number.
    Int,
    /// A number.
    Float,
    /// A text.
    Text,
    /// True or false.
    Bool,
}

impl Type {
    /// ComfyUI's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Model => "MODEL",
            Self::Clip => "CLIP",
            Self::Vae => "VAE",
            Self::Conditioning => "CONDITIONING",
            Self::Latent => "LATENT",
            Self::Image => "IMAGE",
            Self::Mask => "MASK",
            Self::Sampler => "SAMPLER",
            Self::Sigmas => "SIGMAS",
            Self::Guider => "GUIDER",
            Self::Noise => "NOISE",
            Self::Int => "INT",
            Self::Float => "FLOAT",
            Self::Text => "STRING",
            Self::Bool => "BOOLEAN",
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// ComfyUI's names that only say where noise is drawn; here it is drawn as on the CPU.
const GPU_SAMPLERS: [&str; 4] =
    ["dpmpp_sde_gpu", "dpmpp_2m_sde_gpu", "dpmpp_2m_sde_heun_gpu", "dpmpp_3m_sde_gpu"];

impl Choices {
    /// The words.
    pub fn names(self) -> Vec<&'static str> {
        match self {
            Self::Of(names) => names.to_vec(),
            Self::Samplers => Sampler::ALL.iter().map(|s| s.name()).chain(GPU_SAMPLERS).collect(),
            Self::Schedulers => Scheduler::ALL.iter().map(|s| s.name()).collect(),
        }
    }
}

impl Class {
    /// The inputs that have a widget, in its order.
    pub fn widgets(&self) -> impl Iterator<Item = &'static Slot> {
        self.inputs.iter().filter(|i| !matches!(i.kind, Kind::Socket(_)))
    }

    /// The input called `name`.
    pub fn input(&self, name: &str) -> Option<&'static Slot> {
        self.inputs.iter().find(|i| i.name == name)
    }
}

impl Slot {
    /// Whether it is a seed, behind which the UI format has what happens to it after a run.
    pub(super) fn is_seed(&self) -> bool {
        matches!(self.kind, Kind::Int { max, .. } if max >= i128::from(i64::MAX))
    }

    /// Whether it is a prompt.
    pub(super) fn is_prompt(&self) -> bool {
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
}

/// An input from another node.
pub(super) const fn socket(name: &'static str, of: Type) -> Slot {
    Slot { name, kind: Kind::Socket(of), optional: false }
}

/// A whole number.
pub(super) const fn int(name: &'static str, default: i128, min: i128, max: i128) -> Slot {
    Slot { name, kind: Kind::Int { default, min, max }, optional: false }
}

/// A side of a picture, or a place in it.
pub(super) const fn pixels(name: &'static str, default: i128, min: i128) -> Slot {
    int(name, default, min, MOST_PIXELS)
}

/// A seed.
pub(super) const fn seed(name: &'static str) -> Slot {
    int(name, 0, 0, u64::MAX as i128)
}

/// A number.
pub(super) const fn float(name: &'static str, default: f64, min: f64, max: f64) -> Slot {
    Slot { name, kind: Kind::Float { default, min, max }, optional: false }
}

/// One of some words.
pub(super) const fn choice(name: &'static str, of: &'static [&'static str]) -> Slot {
    Slot { name, kind: Kind::Choice(Choices::Of(of)), optional: false }
}

/// A prompt.
pub(super) const fn prompt(name: &'static str) -> Slot {
    Slot { name, kind: Kind::Text { default: "", prompt: true }, optional: false }
}

/// A text.
pub(super) const fn words(name: &'static str, default: &'static str) -> Slot {
    Slot { name, kind: Kind::Text { default, prompt: false }, optional: false }
}

/// True or false.
pub(super) const fn switch(name: &'static str, default: bool) -> Slot {
    Slot { name, kind: Kind::Bool { default }, optional: false }
}

/// The name of a file.
pub(super) const fn file(name: &'static str, kind: FileKind) -> Slot {
    Slot { name, kind: Kind::File(kind), optional: false }
}

impl Slot {
    /// The same, but it may be left out: ComfyUI has it that way, or had it not in older versions.
    pub(super) const fn or_default(self) -> Self {
        Self { optional: true, ..self }
    }
}
