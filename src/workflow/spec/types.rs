//! What passes between nodes, and the kinds of files that they name.

use std::fmt;

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

impl FileKind {
    /// In words.
    pub fn what(self) -> &'static str {
        match self {
            Self::Checkpoint => "checkpoint",
            Self::Lora => "LoRA",
            Self::Vae => "VAE",
            Self::TextEncoder => "text encoder",
            Self::DiffusionModel => "diffusion model",
            Self::Image => "picture",
            Self::Latent => "latent",
        }
    }
}
