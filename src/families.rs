//! The table of families: what is known of each generation of Stable Diffusion and cannot be read off a
//! checkpoint. Sizes of networks are read off their weights: see [`ModelConfig`](crate::model::ModelConfig).

use std::fmt;

use crate::kernels::Precision;
use crate::text::tokenizer;

/// The generation of Stable Diffusion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Family {
    /// 1.x: CLIP ViT-L text encoder, 8 attention heads everywhere.
    Sd1,
    /// 2.x: OpenCLIP ViT-H text encoder, heads of 64 channels.
    Sd2,
    /// XL: CLIP ViT-L and OpenCLIP ViT-bigG, size and pooled-text conditioning.
    Sdxl,
}

/// What the UNet takes besides a noisy latent and a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Variant {
    /// Nothing: text to image.
    Base,
    /// 9 input channels: latent, mask, masked image.
    Inpainting,
    /// 8 input channels: latent, image to be edited (InstructPix2Pix).
    Edit,
    /// 5 input channels: latent, depth map.
    Depth,
    /// 7 input channels: latent, small image.
    Upscaler,
    /// SDXL's second stage: OpenCLIP ViT-bigG alone, with an aesthetic score.
    Refiner,
    /// SD2 with an image embedding beside the prompt.
    Unclip,
}

/// What the UNet's output means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Prediction {
    /// The noise, ε.
    Eps,
    /// The velocity, v = α ε − σ x₀ (Salimans and Ho, 2022).
    V,
    /// The velocity, by a network whose last step is pure noise: a signal-to-noise ratio of zero.
    ZeroSnrV,
    /// The picture itself, x₀.
    Picture,
    /// The noise, by a network trained to be consistent along its way (LCM; Luo et al. 2023, arXiv
    /// 2310.04378): its prediction leans on the input where there is little noise.
    Consistency,
}

/// One of the three CLIP text encoders that Stable Diffusion uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tower {
    /// OpenAI's CLIP ViT-L/14, in the layout of `transformers`: separate q, k and v.
    L,
    /// OpenCLIP ViT-H/14, in OpenCLIP's layout: q, k and v in one `in_proj_weight`.
    H,
    /// OpenCLIP ViT-bigG/14, in OpenCLIP's layout.
    G,
}

/// Pixels of a latent cell, in each direction, in all families: for what is asked before a model is known.
pub const LATENT_CELL: usize = 8;

/// Channels of a latent in all families, likewise.
pub const LATENT_CHANNELS: usize = 4;

/// The numbers of SDXL's vector that are no pooled text: six sizes of 256 each.
pub(crate) const SDXL_SIZES: usize = 6 * 256;

/// The same of its refiner, which has an aesthetic score in place of two sizes.
pub(crate) const REFINER_SIZES: usize = 5 * 256;

/// Width of a token of OpenCLIP-H, which no UNet of SDXL reads.
const OPEN_CLIP_H: usize = 1024;

/// The family of a UNet by its shapes alone, whatever is beside it, and its variant as far as they show it:
/// whether the projections around its transformers are matrices, the width of the tokens that it reads, the
/// length of its vector.
pub(crate) fn of_unet(linear: bool, context: usize, vector: Option<usize>) -> (Family, Variant) {
    match (linear, vector) {
        (false, _) => (Family::Sd1, Variant::Base),
        (true, None) => (Family::Sd2, Variant::Base),
        // One encoder, whose pooled vector is as wide as its tokens.
        (true, Some(vector)) if vector == context + REFINER_SIZES => (Family::Sdxl, Variant::Refiner),
        // The vector is an image's.
        (true, Some(vector)) if context == OPEN_CLIP_H || vector <= SDXL_SIZES => {
            (Family::Sd2, Variant::Unclip)
        }
        (true, Some(_)) => (Family::Sdxl, Variant::Base),
    }
}

/// Whether a family multiplies its latents by `scale`.
pub(crate) fn is_latent_scale(scale: f32) -> bool {
    FAMILIES.iter().any(|facts| (facts.latent_scale - scale).abs() < 1e-4)
}

/// Approximate RGB of each latent channel, then the offset.
pub type PreviewFactors = [[f32; 3]; 5];

/// What is known of a family.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Facts {
    /// Which.
    pub family: Family,
    /// Its name, for people.
    pub name: &'static str,
    /// Channels of a latent.
    pub latent_channels: usize,
    /// Pixels of a latent cell, in each direction.
    pub latent_cell: usize,
    /// What a VAE latent is multiplied by to have a variance near 1 for the UNet, where the file does not say.
    pub latent_scale: f32,
    /// The colours of a latent's channels, for previews.
    pub preview: PreviewFactors,
    /// How prompts are read.
    pub text: TextRules,
    /// Storage of the autoencoder, where it is not that of the rest.
    pub vae_precision: Option<Precision>,
    /// Width and height in pixels that it was trained at.
    pub native_side: usize,
    /// The same of its networks that predict v.
    pub native_side_v: usize,
}

/// How a family reads prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextRules {
    /// The layer that is read, counted from the end: 1 is the last.
    pub layer: usize,
    /// Whether the final normalisation comes after it.
    pub final_norm: bool,
    /// The encoders, in the order in which their outputs are concatenated, each with the token that short
    /// prompts are filled up with: OpenAI's was trained on end tokens, OpenCLIP's on zeros.
    pub encoders: &'static [(Tower, u32)],
}

const L: (Tower, u32) = (Tower::L, tokenizer::END);
const H: (Tower, u32) = (Tower::H, 0);
const G: (Tower, u32) = (Tower::G, 0);

/// Of the VAE of SD 1.x and 2.x, as ComfyUI publishes them.
const SD_PREVIEW: PreviewFactors = [
    [0.3512, 0.2297, 0.3227],
    [0.3250, 0.4974, 0.2350],
    [-0.2829, 0.1762, 0.2721],
    [-0.2120, -0.2616, -0.7177],
    [0.0; 3],
];

const SD1: Facts = Facts {
    family: Family::Sd1,
    name: "SD 1",
    latent_channels: LATENT_CHANNELS,
    latent_cell: LATENT_CELL,
    latent_scale: 0.18215,
    preview: SD_PREVIEW,
    text: TextRules { layer: 1, final_norm: true, encoders: &[L] },
    vae_precision: None,
    native_side: 512,
    native_side_v: 512,
};

const SD2: Facts = Facts {
    family: Family::Sd2,
    name: "SD 2",
    text: TextRules { layer: 2, final_norm: true, encoders: &[H] },
    native_side_v: 768,
    ..SD1
};

const SDXL: Facts = Facts {
    family: Family::Sdxl,
    name: "SDXL",
    latent_scale: 0.13025,
    // As ComfyUI publishes them.
    preview: [
        [0.3651, 0.4232, 0.4341],
        [-0.2533, -0.0042, 0.1068],
        [0.1076, 0.1111, -0.0362],
        [-0.3165, -0.2492, -0.2188],
        [0.1084, -0.0175, -0.0011],
    ],
    text: TextRules { layer: 2, final_norm: false, encoders: &[L, G] },
    // The original autoencoder overflows f16.
    vae_precision: Some(Precision::F32),
    native_side: 1024,
    native_side_v: 1024,
    ..SD1
};

/// All families.
pub const FAMILIES: [Facts; 3] = [SD1, SD2, SDXL];

impl Family {
    /// What is known of it.
    pub fn facts(self) -> &'static Facts {
        match self {
            Self::Sd1 => &SD1,
            Self::Sd2 => &SD2,
            Self::Sdxl => &SDXL,
        }
    }
}

impl Facts {
    /// Storage of the autoencoder beside networks in `rest`.
    pub fn vae_precision(&self, rest: Precision) -> Precision {
        self.vae_precision.unwrap_or(rest)
    }

    /// Width and height in pixels that networks with such an output were trained at.
    pub fn native_side(&self, prediction: Prediction) -> usize {
        match prediction {
            Prediction::V | Prediction::ZeroSnrV => self.native_side_v,
            _ => self.native_side,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.facts().name)
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Variant::Base => "text to image",
            Variant::Inpainting => "inpainting",
            Variant::Edit => "image editing",
            Variant::Depth => "depth to image",
            Variant::Upscaler => "upscaler",
            Variant::Refiner => "refiner",
            Variant::Unclip => "unCLIP",
        })
    }
}

impl fmt::Display for Prediction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Prediction::Eps => "eps",
            Prediction::V => "v",
            Prediction::ZeroSnrV => "v, zero terminal SNR",
            Prediction::Picture => "x0",
            Prediction::Consistency => "eps, consistency",
        })
    }
}

/// The token that short prompts are filled up with for `tower`, in whatever family.
pub(crate) fn padding(tower: Tower) -> u32 {
    let encoders = FAMILIES.iter().flat_map(|facts| facts.text.encoders);
    encoders.into_iter().find(|(of, _)| *of == tower).map_or(tokenizer::END, |(_, token)| *token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_has_its_line() {
        for facts in FAMILIES {
            assert_eq!(facts.family.facts(), &facts);
            assert_eq!((facts.latent_channels, facts.latent_cell), (LATENT_CHANNELS, LATENT_CELL));
            // A tower is padded alike in every family.
            assert!(facts.text.encoders.iter().all(|(tower, token)| padding(*tower) == *token));
        }
    }
}
