//! A node's inputs at work.

use std::sync::Arc;

use super::{ClipValue, GuiderValue, Images, Latents, ModelValue, NoiseValue, Prompt, Value};
use crate::image::Mask;
use crate::pipeline::{Autoencoder, Solver};
use crate::workflow::graph::Node;
use crate::workflow::spec::Class;
use crate::{Error, Result};

/// A node's inputs, all of them there and of the right types.
pub(crate) struct Arguments<'a> {
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

    /// A size as far as it is written in the workflow: 1 where it is not, the largest where it is too large.
    pub fn written_size(&self, input: &str) -> usize {
        self.int(input).map_or(1, |value| usize::try_from(value).unwrap_or(usize::MAX))
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
