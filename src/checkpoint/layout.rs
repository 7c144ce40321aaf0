//! Brings the tensors of one network, in whatever layout, under their original names.

use super::names::{KeyMap, unet, vae};
use super::tensor::Tensor;
use super::{Checkpoint, family};
use crate::{Error, Result};

/// Prefix of the UNet in the original layout.
pub(super) const UNET: &str = "model.diffusion_model.";
/// Prefix of the VAE in the original layout.
pub(super) const VAE: &str = "first_stage_model.";

/// A layout of a network in a file of its own.
struct Layout {
    /// Names that show it, all of them together.
    signs: &'static [&'static str],
    /// The network's modules; what lies in none of them belongs to something else.
    modules: &'static [&'static str],
    /// What the original layout puts before the names.
    prefix: &'static str,
    /// How the names translate; None if they are the original ones already.
    map: Option<fn(&Checkpoint) -> KeyMap>,
}

const LAYOUTS: &[Layout] = &[
    Layout {
        signs: &["input_blocks.0.0.weight", "out.2.weight"],
        modules: &["time_embed.", "label_emb.", "input_blocks.", "middle_block.", "output_blocks.", "out."],
        prefix: UNET,
        map: None,
    },
    Layout {
        signs: &["conv_in.weight", "conv_out.weight", "down_blocks.0.resnets.0.conv1.weight"],
        modules: &[""],
        prefix: UNET,
        map: Some(|file| unet::from_diffusers(|name| file.has(name))),
    },
    Layout {
        signs: &["decoder.conv_in.weight", "decoder.up.0.block.0.conv1.weight"],
        modules: &["encoder.", "decoder.", "quant_conv.", "post_quant_conv."],
        prefix: VAE,
        map: None,
    },
    Layout {
        signs: &["decoder.conv_in.weight", "decoder.up_blocks.0.resnets.0.conv1.weight"],
        modules: &[""],
        prefix: VAE,
        map: Some(|file| vae::from_diffusers(|name| file.has(name))),
    },
];

impl Checkpoint {
    /// A file of one network in a layout that is known, under the original names; any other file
    /// as it is. Text encoders wait for [`with_text_encoder`](Self::with_text_encoder): what they are
    /// called depends on the network they serve.
    pub(super) fn in_original_layout(mut self) -> Result<Self> {
        let Some(layout) = LAYOUTS.iter().find(|l| l.signs.iter().all(|sign| self.has(sign))) else {
            return Ok(self);
        };
        // Scales beside the weights would be told as parts that are not known.
        family::refuse_quantised(&self)?;
        let map = layout.map.map(|map| map(&self));
        let tensors = std::mem::take(&mut self.tensors);
        let original = |tensor: Tensor| {
            // Marks such as `v_pred` have no dot.
            let of_network = tensor.name.contains('.')
                && layout.modules.iter().any(|module| tensor.name.starts_with(module));
            match (&map, of_network) {
                (_, false) => Ok(tensor),
                (None, true) => {
                    let name = format!("{}{}", layout.prefix, tensor.name);
                    Ok(tensor.renamed(name))
                }
                (Some(map), true) => match map.original(&tensor.name) {
                    Some(name) => Ok(as_convolution(tensor.renamed(format!("{}{name}", layout.prefix)))),
                    None => Err(self.unknown(&tensor)),
                },
            }
        };
        let tensors = tensors.into_iter().map(original).collect::<Result<_>>()?;
        Self { tensors, ..self }.indexed()
    }

    /// Leaving a part out would give other pictures than the author's.
    fn unknown(&self, tensor: &Tensor) -> Error {
        self.fault("the network has a part that is not known")
            .at(&tensor.name)
            .hint("only plain networks of Stable Diffusion 1, 2 and XL in the diffusers layout are known")
    }
}

/// The VAE's attention has matrices in diffusers and 1×1 convolutions in the original layout.
fn as_convolution(tensor: Tensor) -> Tensor {
    let attention = tensor.name.starts_with(VAE) && tensor.name.contains(".attn_1.");
    match *tensor.info.shape.as_slice() {
        [out, inputs] if attention => tensor.reshaped(vec![out, inputs, 1, 1]),
        _ => tensor,
    }
}
