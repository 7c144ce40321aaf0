//! Which family a LoRA was made for.
#![warn(clippy::indexing_slicing, clippy::string_slice)]

use super::weight_change::{Change, ChangeKind, shape_of};
use crate::checkpoint::Checkpoint;

/// What training programs write into a file: `modelspec.architecture` and `ss_base_model_version`.
const VERSIONS: [(&str, &str); 8] = [
    ("stable-diffusion-xl", "SDXL"),
    ("sdxl", "SDXL"),
    ("stable-diffusion-v1", "SD 1"),
    ("sd_v1", "SD 1"),
    ("stable-diffusion-v2", "SD 2"),
    ("sd_v2", "SD 2"),
    ("flux", "Flux"),
    ("sd3", "SD 3"),
];

/// Parts of module names that only one family has.
const MODULES: [(&str, &str); 5] = [
    ("double_blocks", "a diffusion transformer (such as Flux or SD 3)"),
    ("joint_blocks", "a diffusion transformer (such as Flux or SD 3)"),
    ("transformer_blocks_0_attn_", "a diffusion transformer (such as Flux or SD 3)"),
    ("lora_te2_", "SDXL"),
    ("text_encoder_2", "SDXL"),
];

/// The family that a LoRA seems to be made for: as the file says, or by what it changes.
pub(super) fn made_for(tensors: &Checkpoint, changes: &[Change]) -> Option<&'static str> {
    let metadata = tensors.metadata();
    let said = ["modelspec.architecture", "ss_base_model_version"].iter().find_map(|key| {
        let value = metadata.get(*key)?.to_lowercase();
        VERSIONS.iter().find(|(start, _)| value.starts_with(start)).map(|(_, family)| *family)
    });
    let has = |part: &str| changes.iter().any(|c| c.module.replace('.', "_").contains(part));
    let named = || MODULES.iter().find(|(part, _)| has(part)).map(|(_, family)| *family);
    said.or_else(named).or_else(|| by_width(tensors, changes))
}

/// Cross-attention reads tokens of the text encoder's width, which differs in each family.
fn by_width(tensors: &Checkpoint, changes: &[Change]) -> Option<&'static str> {
    let reads_text = |module: &str| ["attn2.to_k", "attn2_to_k"].iter().any(|end| module.ends_with(end));
    let of_pair = |change: &Change| match &change.kind {
        ChangeKind::Pair { down, .. } if reads_text(&change.module) => {
            shape_of(tensors, down).get(1).copied()
        }
        _ => None,
    };
    match changes.iter().find_map(of_pair)? {
        768 => Some("SD 1"),
        1024 => Some("SD 2"),
        2048 => Some("SDXL"),
        _ => None,
    }
}
