//! All kinds of nodes that run here, by name.

use super::nodes::{
    Class, conditioning, custom, guidance, images, latents, loaders, masks, primitives, sampling, save,
};
use crate::sampler::names::{edit_distance, nearest_to};

/// The families' tables.
const FAMILIES: [&[Class]; 10] = [
    loaders::CLASSES,
    conditioning::CLASSES,
    latents::CLASSES,
    images::CLASSES,
    masks::CLASSES,
    sampling::CLASSES,
    custom::CLASSES,
    guidance::CLASSES,
    primitives::CLASSES,
    save::CLASSES,
];

/// Every kind of node.
pub fn all() -> impl Iterator<Item = &'static Class> {
    FAMILIES.into_iter().flatten()
}

/// The kind that workflows call `name`.
pub fn find(name: &str) -> Option<&'static Class> {
    all().find(|class| class.name == name)
}

/// Every kind of ComfyUI's own, those that it has no longer included, as of November 2026.
const COMFYUIS: &str = include_str!("comfyui_kinds.txt");

/// Whether a kind is ComfyUI's own, be it known here or not.
pub fn is_comfyuis(name: &str) -> bool {
    COMFYUIS.lines().flat_map(|line| line.split(", ")).any(|kind| kind == name)
}

/// What nodes are called on the screen where no person called them otherwise, if not by their kind.
const TITLES: [(&str, &str); 54] = [
    ("CheckpointLoaderSimple", "Load Checkpoint"),
    ("UNETLoader", "Load Diffusion Model"),
    ("VAELoader", "Load VAE"),
    ("CLIPLoader", "Load CLIP"),
    ("DualCLIPLoader", "Load CLIP (Dual)"),
    ("LoraLoader", "Load LoRA (Model and CLIP)"),
    ("LoraLoaderModelOnly", "Load LoRA"),
    ("CLIPSetLastLayer", "CLIP Set Last Layer"),
    ("CLIPTextEncode", "CLIP Text Encode (Prompt)"),
    ("CLIPTextEncodeSDXL", "CLIP Text Encode (SDXL)"),
    ("ConditioningCombine", "Conditioning (Combine)"),
    ("ConditioningConcat", "Conditioning (Concat)"),
    ("ConditioningAverage", "Conditioning (Average)"),
    ("ConditioningSetArea", "Conditioning (Set Area)"),
    ("ConditioningSetAreaPercentage", "Conditioning (Set Area with Percentage)"),
    ("ConditioningSetAreaStrength", "Conditioning (Set Area Strength)"),
    ("ConditioningSetMask", "Conditioning (Set Mask)"),
    ("ConditioningZeroOut", "Conditioning Zero Out"),
    ("EmptyLatentImage", "Empty Latent Image"),
    ("LatentUpscale", "Upscale Latent"),
    ("LatentUpscaleBy", "Upscale Latent By"),
    ("RepeatLatentBatch", "Repeat Latent Batch"),
    ("LatentFromBatch", "Get Latent From Batch"),
    ("LatentBatch", "Batch Latents"),
    ("SetLatentNoiseMask", "Set Latent Noise Mask"),
    ("LoadLatent", "Load Latent"),
    ("LoadImage", "Load Image"),
    ("VAEDecode", "VAE Decode"),
    ("VAEDecodeTiled", "VAE Decode (Tiled)"),
    ("VAEEncode", "VAE Encode"),
    ("VAEEncodeTiled", "VAE Encode (Tiled)"),
    ("VAEEncodeForInpaint", "VAE Encode (for Inpainting)"),
    ("ImageScale", "Upscale Image"),
    ("ImageScaleBy", "Upscale Image By"),
    ("ImageInvert", "Invert Image Colors"),
    ("ImageBatch", "Batch Images"),
    ("EmptyImage", "Empty Image"),
    ("LoadImageMask", "Load Image (as Mask)"),
    ("SolidMask", "Create Solid Mask"),
    ("InvertMask", "Invert Mask"),
    ("ImageToMask", "Convert Image to Mask"),
    ("MaskToImage", "Convert Mask to Image"),
    ("KSamplerAdvanced", "KSampler (Advanced)"),
    ("CFGGuider", "CFG Guider"),
    ("BasicGuider", "Basic Guider"),
    ("SelfAttentionGuidance", "Self-Attention Guidance"),
    ("PrimitiveInt", "Int"),
    ("PrimitiveFloat", "Float"),
    ("PrimitiveString", "Text"),
    ("PrimitiveStringMultiline", "Text (Multiline)"),
    ("PrimitiveBoolean", "Boolean"),
    ("SaveImage", "Save Image"),
    ("PreviewImage", "Preview Image"),
    ("SaveLatent", "Save Latent"),
];

/// What a node of a kind is called on the screen as long as nobody calls it otherwise.
pub fn title(name: &str) -> &str {
    TITLES.iter().find(|(kind, _)| *kind == name).map_or(name, |(_, title)| title)
}

/// The kind that `name` is a slip of the pen for. Half of all names are near another: only very few
/// letters may differ.
pub fn slip(name: &str) -> Option<&'static str> {
    let plain = name.trim();
    let most = (plain.chars().count() / 8).max(1);
    let near = nearest_to(plain, all().map(|class| class.name)).first().copied()?;
    let is_slip = near.eq_ignore_ascii_case(plain) || edit_distance(plain, near) <= most;
    is_slip.then_some(near)
}
