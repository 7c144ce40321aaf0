//! What passes between nodes, and a node's inputs at work.

use std::sync::Arc;

use serde_json::Value as Json;

use super::graph::Node;
use super::nodes::{Class, Kind, Slot, Type};
use super::repair;
use crate::guidance::{Area, Entry, Guidance};
use crate::image::Mask;
use crate::latent::Latent;
use crate::lora::LoraUse;
use crate::pipeline::{Autoencoder, DiffusionModel, Sizes, Solver, TextEncoders};
use crate::{Error, Remedy, Result};

/// The output of a node. Copies share what is large.
#[derive(Clone)]
pub(super) enum Value {
    Model(ModelValue),
    Clip(ClipValue),
    Vae(Autoencoder),
    Conditioning(Arc<Vec<Prompt>>),
    Latent(Arc<Latents>),
    Image(Arc<Images>),
    Mask(Arc<Vec<Mask>>),
    Sampler(Solver),
    Sigmas(Arc<Vec<f32>>),
    Guider(Arc<GuiderValue>),
    Noise(NoiseValue),
    Int(i128),
    Float(f64),
    Text(String),
    Bool(bool),
}

/// A denoising network with what was put on it.
#[derive(Clone)]
pub(super) struct ModelValue {
    pub diffusion: DiffusionModel,
    pub loras: Vec<LoraUse>,
    /// What nodes have put on it; the CFG scale is a sampler's.
    pub guidance: Guidance,
}

/// Text encoders with what was put on them.
#[derive(Clone)]
pub(super) struct ClipValue {
    pub text: TextEncoders,
    pub loras: Vec<LoraUse>,
    /// Layers counted from the end.
    pub skip: Option<usize>,
}

/// A text with where and when it counts, before the size of the latent is known.
#[derive(Debug, Clone)]
pub(super) struct Prompt {
    /// Text, time and nothing else. SDXL's sizes are zeros.
    pub entry: Entry,
    /// What SDXL is told of sizes; None is the latent's own.
    pub sizes: Option<Sizes>,
    pub area: Option<Place>,
    pub strength: f32,
    pub mask: Option<MaskedPart>,
}

/// Where a text counts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    /// In latent cells.
    Cells(Area),
    /// In parts of the whole: left, top, width, height.
    Parts([f64; 4]),
}

/// A mask over a text.
#[derive(Debug, Clone)]
pub(super) struct MaskedPart {
    pub mask: Arc<Vec<Mask>>,
    pub strength: f32,
    /// Whether only the rectangle around the mask is predicted.
    pub bounds: bool,
}

/// A batch of latents as nodes pass them on.
#[derive(Debug, Clone)]
pub(super) struct Latents {
    /// In the VAE's scale.
    pub samples: Latent,
    /// Where it is drawn over (1) or kept (0), in pixels: one for all, or one for each.
    pub noise_mask: Option<Arc<Vec<Mask>>>,
    /// Which pictures of the seed's stream these are; None is from the first on.
    pub batch_index: Option<Vec<usize>>,
}

/// A batch of pictures of one size, RGB in 0..1.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Images {
    pub width: usize,
    pub height: usize,
    /// `[height, width, 3]` each.
    pub frames: Vec<Vec<f32>>,
}

/// A network with both sides of its guidance.
#[derive(Clone)]
pub(super) struct GuiderValue {
    pub model: ModelValue,
    pub positive: Arc<Vec<Prompt>>,
    /// None at a guider that has none.
    pub negative: Option<Arc<Vec<Prompt>>>,
    pub cfg: f32,
}

/// Where noise comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum NoiseValue {
    /// A seed's stream.
    Seed(u64),
    /// None.
    Off,
}

impl Latents {
    /// Latents without mask.
    pub fn new(samples: Latent) -> Self {
        Self { samples, noise_mask: None, batch_index: None }
    }
}

impl Value {
    /// Its type.
    pub fn type_of(&self) -> Type {
        match self {
            Self::Model(_) => Type::Model,
            Self::Clip(_) => Type::Clip,
            Self::Vae(_) => Type::Vae,
            Self::Conditioning(_) => Type::Conditioning,
            Self::Latent(_) => Type::Latent,
            Self::Image(_) => Type::Image,
            Self::Mask(_) => Type::Mask,
            Self::Sampler(_) => Type::Sampler,
            Self::Sigmas(_) => Type::Sigmas,
            Self::Guider(_) => Type::Guider,
            Self::Noise(_) => Type::Noise,
            Self::Int(_) => Type::Int,
            Self::Float(_) => Type::Float,
            Self::Text(_) => Type::Text,
            Self::Bool(_) => Type::Bool,
        }
    }

    /// The value that is written in a workflow for `slot`, as ComfyUI understands it: numbers may be
    /// texts, whole numbers may have a fraction, which goes.
    ///
    /// # Errors
    /// [`ErrorKind::File`](crate::ErrorKind::File) for another type or a value outside the range.
    pub fn written(slot: &Slot, json: &Json) -> Result<Self> {
        let number = || match json {
            Json::Number(n) => n.as_f64(),
            Json::String(s) => s.trim().parse().ok(),
            _ => None,
        };
        let whole = || match json {
            Json::Number(n) if n.is_u64() => n.as_u64().map(i128::from),
            Json::Number(n) if n.is_i64() => n.as_i64().map(i128::from),
            Json::String(s) => s.trim().parse().ok().or_else(|| number().map(|n| n.trunc() as i128)),
            _ => number().map(|n| n.trunc() as i128),
        };
        let value = match slot.kind {
            Kind::Int { .. } => whole().map(Value::Int),
            Kind::Float { .. } => number().map(Value::Float),
            Kind::Bool { .. } => match json {
                Json::Bool(b) => Some(Value::Bool(*b)),
                Json::Number(n) => n.as_f64().map(|n| Value::Bool(n != 0.0)),
                Json::String(s) => s.trim().to_ascii_lowercase().parse().ok().map(Value::Bool),
                _ => None,
            },
            Kind::Text { .. } | Kind::Choice(_) | Kind::File(_) => match json {
                Json::String(s) => Some(Value::Text(s.clone())),
                Json::Number(n) => Some(Value::Text(n.to_string())),
                _ => None,
            },
            Kind::Socket(_) => None,
        };
        let value = value.ok_or_else(|| {
            wrong(slot, "a value of the wrong type").expected(range(slot)).found(super::read::short(json))
        })?;
        value.fits(slot)
    }

    /// The value, if `slot` takes it; whole numbers and numbers become each other.
    ///
    /// # Errors
    /// As [`written`](Self::written).
    pub fn fits(self, slot: &Slot) -> Result<Self> {
        let value = match (slot.kind, self) {
            (Kind::Int { .. }, Value::Float(v)) => Value::Int(v.trunc() as i128),
            (Kind::Float { .. }, Value::Int(v)) => Value::Float(v as f64),
            (Kind::Choice(choices), Value::Text(word)) if !choices.names().contains(&word.as_str()) => {
                Value::Text(repair::choice(choices, &word).map_or(word, str::to_owned))
            }
            (_, value) => value,
        };
        let found = match (&value, slot.kind) {
            (Value::Int(v), Kind::Int { min, max, .. }) => (!(min..=max).contains(v)).then(|| v.to_string()),
            (Value::Float(v), Kind::Float { min, max, .. }) => {
                (!(min..=max).contains(v)).then(|| v.to_string())
            }
            (Value::Text(v), Kind::Choice(choices)) => {
                let names = choices.names();
                if !names.contains(&v.as_str()) {
                    let near = crate::sampler::names::nearest_to(v, names.iter().copied());
                    let error =
                        wrong(slot, "an unknown choice").expected(range(slot)).found(format!("{v:?}"));
                    return Err(match near.is_empty() {
                        true => error,
                        false => {
                            error.remedy(Remedy::DidYouMean(near.into_iter().map(str::to_owned).collect()))
                        }
                    });
                }
                None
            }
            _ => None,
        };
        match found {
            None => Ok(value),
            Some(found) => Err(wrong(slot, "a value outside its range").expected(range(slot)).found(found)),
        }
    }
}

fn wrong(slot: &Slot, what: &str) -> Error {
    Error::new(crate::ErrorKind::File, format!("input {}: {what}", slot.name))
}

/// What a slot takes, in words.
pub(super) fn range(slot: &Slot) -> String {
    match slot.kind {
        Kind::Socket(of) => format!("another node's {of}"),
        Kind::Int { min, max, .. } => format!("a whole number from {min} to {max}"),
        Kind::Float { min, max, .. } => format!("a number from {min} to {max}"),
        Kind::Bool { .. } => "true or false".into(),
        Kind::Text { .. } => "a text".into(),
        Kind::Choice(choices) => format!("one of {}", choices.names().join(", ")),
        Kind::File(_) => "a file's name".into(),
    }
}

/// A node's inputs, all of them there and of the right types.
pub(super) struct Arguments<'a> {
    pub node: &'a Node,
    pub class: &'static Class,
    pub values: Vec<(&'static str, Value)>,
}

macro_rules! accessors {
    ($($(#[$doc:meta])* $name:ident: $variant:ident => $type:ty;)*) => {
        impl Arguments<'_> {
            $($(#[$doc])* pub fn $name(&self, input: &str) -> Result<&$type> {
                match self.get(input)? {
                    Value::$variant(value) => Ok(value),
                    other => Err(self.odd(input, other)),
                }
            })*
        }
    };
}

accessors! {
    /// A model.
    model: Model => ModelValue;
    /// Text encoders.
    clip: Clip => ClipValue;
    /// An autoencoder.
    vae: Vae => Autoencoder;
    /// Prompts.
    conditioning: Conditioning => Arc<Vec<Prompt>>;
    /// Latents.
    latent: Latent => Arc<Latents>;
    /// Pictures.
    image: Image => Arc<Images>;
    /// Masks.
    mask: Mask => Arc<Vec<Mask>>;
    /// A sampler.
    sampler: Sampler => Solver;
    /// Noise levels.
    sigmas: Sigmas => Arc<Vec<f32>>;
    /// A guider.
    guider: Guider => Arc<GuiderValue>;
    /// A source of noise.
    noise: Noise => NoiseValue;
}

impl Arguments<'_> {
    fn get(&self, input: &str) -> Result<&Value> {
        let value = self.values.iter().find(|(name, _)| *name == input).map(|(_, value)| value);
        value.ok_or_else(|| Error::internal(format!("{} has no input {input}", self.class.name)))
    }

    fn odd(&self, input: &str, found: &Value) -> Error {
        Error::internal(format!("{}.{input} is a {}", self.class.name, found.type_of()))
    }

    /// A whole number.
    pub fn int(&self, input: &str) -> Result<i128> {
        match self.get(input)? {
            Value::Int(value) => Ok(*value),
            other => Err(self.odd(input, other)),
        }
    }

    /// A whole number that is not negative.
    pub fn size(&self, input: &str) -> Result<usize> {
        let value = self.int(input)?;
        usize::try_from(value).map_err(|_| Error::internal(format!("{}.{input} is {value}", self.class.name)))
    }

    /// A seed.
    pub fn seed(&self, input: &str) -> Result<u64> {
        let value = self.int(input)?;
        u64::try_from(value).map_err(|_| Error::internal(format!("{}.{input} is {value}", self.class.name)))
    }

    /// A number.
    pub fn float(&self, input: &str) -> Result<f64> {
        match self.get(input)? {
            Value::Float(value) => Ok(*value),
            other => Err(self.odd(input, other)),
        }
    }

    /// A text, a choice or a file's name.
    pub fn text(&self, input: &str) -> Result<&str> {
        match self.get(input)? {
            Value::Text(value) => Ok(value),
            other => Err(self.odd(input, other)),
        }
    }

    /// True or false.
    pub fn switch(&self, input: &str) -> Result<bool> {
        match self.get(input)? {
            Value::Bool(value) => Ok(*value),
            other => Err(self.odd(input, other)),
        }
    }
}
