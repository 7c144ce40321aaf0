//! The autoencoder. The original layout numbers the decoder's levels from full resolution down, in
//! both halves; diffusers numbers them in the order in which they run.
#![warn(clippy::indexing_slicing, clippy::string_slice)]

use super::{Inside, KeyMap, SAME, count};

/// Inside a residual block.
const RESNET: Inside = &[
    ("norm1", "norm1"),
    ("conv1", "conv1"),
    ("norm2", "norm2"),
    ("conv2", "conv2"),
    ("nin_shortcut", "conv_shortcut"),
];

/// Inside the attention. Its weights are 1×1 convolutions `[c, c, 1, 1]` in the original layout and
/// matrices `[c, c]` in diffusers'.
const ATTENTION: Inside = &[
    ("norm", "group_norm"),
    ("q", "to_q"),
    ("k", "to_k"),
    ("v", "to_v"),
    ("proj_out", "to_out.0"),
    // Until diffusers 0.17.
    ("q", "query"),
    ("k", "key"),
    ("v", "value"),
    ("proj_out", "proj_attn"),
];

/// Outside the levels.
const ENDS: &[(&str, &str, Inside)] = &[
    ("encoder.conv_in", "encoder.conv_in", SAME),
    ("encoder.mid.block_1", "encoder.mid_block.resnets.0", RESNET),
    ("encoder.mid.attn_1", "encoder.mid_block.attentions.0", ATTENTION),
    ("encoder.mid.block_2", "encoder.mid_block.resnets.1", RESNET),
    ("encoder.norm_out", "encoder.conv_norm_out", SAME),
    ("encoder.conv_out", "encoder.conv_out", SAME),
    ("quant_conv", "quant_conv", SAME),
    ("post_quant_conv", "post_quant_conv", SAME),
    ("decoder.conv_in", "decoder.conv_in", SAME),
    ("decoder.mid.block_1", "decoder.mid_block.resnets.0", RESNET),
    ("decoder.mid.attn_1", "decoder.mid_block.attentions.0", ATTENTION),
    ("decoder.mid.block_2", "decoder.mid_block.resnets.1", RESNET),
    ("decoder.norm_out", "decoder.conv_norm_out", SAME),
    ("decoder.conv_out", "decoder.conv_out", SAME),
];

/// Level `i` as both count it in the encoder; the decoder's level `i` runs as number `r`.
const LEVEL: &[(&str, &str, Inside)] = &[
    ("encoder.down.{i}.downsample.conv", "encoder.down_blocks.{i}.downsamplers.0.conv", SAME),
    ("decoder.up.{i}.upsample.conv", "decoder.up_blocks.{r}.upsamplers.0.conv", SAME),
];

/// Residual block `j` of a level.
const BLOCK: &[(&str, &str, Inside)] = &[
    ("encoder.down.{i}.block.{j}", "encoder.down_blocks.{i}.resnets.{j}", RESNET),
    ("decoder.up.{i}.block.{j}", "decoder.up_blocks.{r}.resnets.{j}", RESNET),
];

/// The map for an autoencoder whose tensors have diffusers' names.
pub fn from_diffusers(exists: impl Fn(&str) -> bool) -> KeyMap {
    let block = |i: usize, j: usize| exists(&format!("decoder.up_blocks.{i}.resnets.{j}.conv1.weight"));
    map(count(|i| block(i, 0)), count(|j| block(0, j)))
}

/// The map for an autoencoder whose tensors have the original names, without `first_stage_model.`.
pub fn from_original(exists: impl Fn(&str) -> bool) -> KeyMap {
    let block = |i: usize, j: usize| exists(&format!("decoder.up.{i}.block.{j}.conv1.weight"));
    map(count(|i| block(i, 0)), count(|j| block(0, j)))
}

fn map(levels: usize, blocks: usize) -> KeyMap {
    let mut map = KeyMap::default();
    map.add(ENDS, &[]);
    for i in 0..levels {
        let level = [("{i}", i), ("{r}", levels - 1 - i)];
        map.add(LEVEL, &level);
        for j in 0..blocks {
            map.add(BLOCK, &[level[0], level[1], ("{j}", j)]);
        }
    }
    map
}
