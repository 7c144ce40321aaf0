//! The UNet. The original layout numbers all blocks of the way down in one row, and all of the way
//! up; diffusers numbers levels, and blocks within each.
#![warn(clippy::indexing_slicing, clippy::string_slice)]

use super::{Inside, KeyMap, SAME, count};

/// Inside a residual block.
const RESNET: Inside = &[
    ("in_layers.0", "norm1"),
    ("in_layers.2", "conv1"),
    ("emb_layers.1", "time_emb_proj"),
    ("out_layers.0", "norm2"),
    ("out_layers.3", "conv2"),
    ("skip_connection", "conv_shortcut"),
];

/// Outside the levels.
const ENDS: &[(&str, &str, Inside)] = &[
    ("time_embed.0", "time_embedding.linear_1", SAME),
    ("time_embed.2", "time_embedding.linear_2", SAME),
    ("label_emb.0.0", "add_embedding.linear_1", SAME),
    ("label_emb.0.2", "add_embedding.linear_2", SAME),
    ("input_blocks.0.0", "conv_in", SAME),
    ("middle_block.0", "mid_block.resnets.0", RESNET),
    ("middle_block.1", "mid_block.attentions.0", SAME),
    ("middle_block.2", "mid_block.resnets.1", RESNET),
    ("out.0", "conv_norm_out", SAME),
    ("out.2", "conv_out", SAME),
];

/// Block `n` of the way down is residual block `j` of level `i`.
const DOWN: &[(&str, &str, Inside)] = &[
    ("input_blocks.{n}.0", "down_blocks.{i}.resnets.{j}", RESNET),
    ("input_blocks.{n}.1", "down_blocks.{i}.attentions.{j}", SAME),
];

/// Block `n` of the way down ends level `i`.
const DOWNSAMPLER: &[(&str, &str, Inside)] =
    &[("input_blocks.{n}.0.op", "down_blocks.{i}.downsamplers.0.conv", SAME)];

/// Block `n` of the way up is residual block `j` of level `i`.
const UP: &[(&str, &str, Inside)] = &[("output_blocks.{n}.0", "up_blocks.{i}.resnets.{j}", RESNET)];

/// The same where it has a transformer.
const UP_ATTENTION: &[(&str, &str, Inside)] =
    &[("output_blocks.{n}.1", "up_blocks.{i}.attentions.{j}", SAME)];

/// Block `n` of the way up ends level `i`; `u` is 1, or 2 behind a transformer.
const UPSAMPLER: &[(&str, &str, Inside)] =
    &[("output_blocks.{n}.{u}.conv", "up_blocks.{i}.upsamplers.0.conv", SAME)];

/// A level, in the order in which it runs.
#[derive(Debug, Clone, Default)]
struct Level {
    /// Whether each residual block is followed by a transformer.
    attention: Vec<bool>,
    /// Whether it ends with a change of resolution.
    resamples: bool,
}

/// The map for a UNet whose tensors have diffusers' names.
pub fn from_diffusers(exists: impl Fn(&str) -> bool) -> KeyMap {
    let levels = |side: &str, resampler: &str| -> Vec<Level> {
        let resnet = |i: usize, j: usize| exists(&format!("{side}.{i}.resnets.{j}.conv1.weight"));
        let attends = |i: usize, j: usize| exists(&format!("{side}.{i}.attentions.{j}.norm.weight"));
        let level = |i: usize| Level {
            attention: (0..count(|j| resnet(i, j))).map(|j| attends(i, j)).collect(),
            resamples: exists(&format!("{side}.{i}.{resampler}.0.conv.weight")),
        };
        (0..count(|i| resnet(i, 0))).map(level).collect()
    };
    map(&levels("down_blocks", "downsamplers"), &levels("up_blocks", "upsamplers"))
}

/// The map for a UNet whose tensors have the original names, without `model.diffusion_model.`.
pub fn from_original(exists: impl Fn(&str) -> bool) -> KeyMap {
    let (mut down, mut up) = (vec![Level::default()], vec![Level::default()]);
    let block = |n: &usize| exists(&format!("input_blocks.{n}.0.in_layers.2.weight"));
    let halves = |n: &usize| exists(&format!("input_blocks.{n}.0.op.weight"));
    for n in (1..).take_while(|n| block(n) || halves(n)) {
        let Some(level) = down.last_mut() else { break };
        if halves(&n) {
            level.resamples = true;
            down.push(Level::default());
        } else {
            level.attention.push(exists(&format!("input_blocks.{n}.1.norm.weight")));
        }
    }
    for n in (0..).take_while(|n| exists(&format!("output_blocks.{n}.0.in_layers.2.weight"))) {
        let Some(level) = up.last_mut() else { break };
        let attends = exists(&format!("output_blocks.{n}.1.norm.weight"));
        level.attention.push(attends);
        if exists(&format!("output_blocks.{n}.{}.conv.weight", 1 + usize::from(attends))) {
            level.resamples = true;
            up.push(Level::default());
        }
    }
    map(&down, &up)
}

/// Numbers the blocks as the original layout does: input block 0 is the first convolution.
fn map(down: &[Level], up: &[Level]) -> KeyMap {
    let mut map = KeyMap::default();
    map.add(ENDS, &[]);
    let mut n = 1;
    for (i, level) in down.iter().enumerate() {
        for j in 0..level.attention.len() {
            map.add(DOWN, &[("{n}", n), ("{i}", i), ("{j}", j)]);
            n += 1;
        }
        if level.resamples {
            map.add(DOWNSAMPLER, &[("{n}", n), ("{i}", i)]);
            n += 1;
        }
    }
    let mut n = 0;
    for (i, level) in up.iter().enumerate() {
        for (j, &attends) in level.attention.iter().enumerate() {
            let numbers = [("{n}", n), ("{i}", i), ("{j}", j), ("{u}", 1 + usize::from(attends))];
            map.add(UP, &numbers);
            if attends {
                map.add(UP_ATTENTION, &numbers);
            }
            if level.resamples && j + 1 == level.attention.len() {
                map.add(UPSAMPLER, &numbers);
            }
            n += 1;
        }
    }
    map
}
