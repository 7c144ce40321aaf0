//! Brings the tensors of one network, in whatever layout, under their original names.
#![warn(clippy::indexing_slicing, clippy::string_slice)]

use super::key_maps::{KeyMap, UNET, VAE, unet, vae};
use super::named_tensors::Checkpoint;
use super::other_models;
use super::tensor::Tensor;
use crate::Result;

/// A layout of a network.
struct Layout {
    /// Names that show it, all of them together.
    signs: &'static [&'static str],
    /// The network's modules where it is alone in a file; what lies in none of them belongs to
    /// something else.
    modules: &'static [&'static str],
    /// How the names translate; None if they are the original ones already.
    map: Option<MapOf>,
}

/// The key map of a network; it is asked which names exist.
type MapOf = fn(&dyn Fn(&str) -> bool) -> KeyMap;

/// A network: what the original layout puts before its names, what others do, and the layouts.
struct Network {
    prefix: &'static str,
    /// Nothing, in a file of its own; the most particular first.
    others: &'static [&'static str],
    layouts: [Layout; 2],
}

const NETWORKS: [Network; 2] = [
    Network {
        prefix: UNET,
        others: &[UNET, "diffusion_model.", "unet.", "model.", "module.", ""],
        layouts: [
            Layout {
                signs: &["input_blocks.0.0.weight", "out.2.weight"],
                modules: &[
                    "time_embed.",
                    "label_emb.",
                    "input_blocks.",
                    "middle_block.",
                    "output_blocks.",
                    "out.",
                    "position_net.",
                ],
                map: None,
            },
            Layout {
                signs: &["conv_in.weight", "conv_out.weight", "down_blocks.0.resnets.0.conv1.weight"],
                modules: &[""],
                map: Some(|exists| unet::from_diffusers(exists)),
            },
        ],
    },
    Network {
        prefix: VAE,
        others: &[VAE, "vae.", "model.", "module.", ""],
        layouts: [
            Layout {
                signs: &["decoder.conv_in.weight", "decoder.up.0.block.0.conv1.weight"],
                modules: &["encoder.", "decoder.", "quant_conv.", "post_quant_conv.", "loss."],
                map: None,
            },
            Layout {
                signs: &["decoder.conv_in.weight", "decoder.up_blocks.0.resnets.0.conv1.weight"],
                modules: &[""],
                map: Some(|exists| vae::from_diffusers(exists)),
            },
        ],
    },
];

/// Beginnings of names that belong to no network in a file of its own.
const ELSEWHERE: [&str; 7] =
    [UNET, VAE, "vae.", "cond_stage_model.", "conditioner.", "text_encoder", "text_model."];

impl Checkpoint {
    /// The networks of a file under the original names, in whatever layout they are; what is no part
    /// of one stays as it is. Text encoders are brought to their places beside a UNet; without one
    /// they wait for [`with_text_encoder`](Self::with_text_encoder): what they are called depends on
    /// the network they serve.
    pub(super) fn in_original_layout(mut self) -> Result<Self> {
        for network in &NETWORKS {
            self = self.renamed(network)?;
        }
        self.settled()
    }

    /// The tensors of `network` under the original names. Those that are not known get the network's
    /// prefix alone, and are reported when it is inferred.
    fn renamed(mut self, network: &Network) -> Result<Self> {
        let shows = |prefix: &str, layout: &Layout| {
            layout.signs.iter().all(|sign| self.has(&format!("{prefix}{sign}")))
        };
        let found = network.others.iter().find_map(|prefix| {
            let layout = network.layouts.iter().find(|layout| shows(prefix, layout))?;
            Some((*prefix, layout))
        });
        let Some((prefix, layout)) = found else { return Ok(self) };
        if prefix == network.prefix && layout.map.is_none() {
            self.tensors = self.tensors.into_iter().map(as_convolution).collect();
            return Ok(self);
        }
        // Scales beside the weights would be reported as unknown parts.
        other_models::refuse_quantised(&self)?;
        let map = layout.map.map(|map| map(&|name| self.has(&format!("{prefix}{name}"))));
        let tensors = std::mem::take(&mut self.tensors);
        let original = |tensor: Tensor| {
            let Some(name) = tensor.name.strip_prefix(prefix) else { return tensor };
            let alone = prefix.is_empty();
            // Marks such as `v_pred` have no dot.
            let of_network = name.contains('.')
                && (!alone || layout.modules.iter().any(|module| name.starts_with(module)))
                && !(alone && ELSEWHERE.iter().any(|start| name.starts_with(start)));
            if !of_network {
                return tensor;
            }
            let translated = map.as_ref().and_then(|map| map.original(name));
            let name = format!("{}{}", network.prefix, translated.as_deref().unwrap_or(name));
            as_convolution(tensor.renamed(name))
        };
        self.tensors = tensors.into_iter().map(original).collect();
        self.indexed()
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
