//! The parts of a UNet that occur many times, by their paths and in the order of their use.

use crate::model::config::{InputBlock, MiddleBlock, UnetConfig};

/// A residual block and the transformer behind it.
struct Stage {
    path: String,
    channels: usize,
    depth: usize,
}

fn stages(c: &UnetConfig) -> Vec<Stage> {
    let stage = |path: String, channels, depth| Stage { path, channels, depth };
    let inputs = c.input_blocks.iter().enumerate().filter_map(|(i, block)| match *block {
        InputBlock::Res { out_channels, transformer_depth, .. } => {
            Some(stage(format!("input_blocks.{i}"), out_channels, transformer_depth))
        }
        _ => None,
    });
    let middle = match c.middle {
        MiddleBlock::Absent => None,
        _ => Some(stage("middle_block".into(), c.middle_channels(), c.middle.transformer_depth())),
    };
    let outputs = c.output_blocks.iter().enumerate();
    let outputs = outputs
        .map(|(i, block)| stage(format!("output_blocks.{i}"), block.out_channels, block.transformer_depth));
    inputs.chain(middle).chain(outputs).collect()
}

/// Residual blocks and their channels.
pub fn residual(c: &UnetConfig) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for stage in stages(c) {
        found.push((format!("{}.0", stage.path), stage.channels));
        if stage.path == "middle_block" && stage.depth > 0 {
            found.push((format!("{}.2", stage.path), stage.channels));
        }
    }
    found
}

/// Cross-attentions and their channels.
pub fn cross_attention(c: &UnetConfig) -> Vec<(String, usize)> {
    let of_stage = |s: Stage| {
        (0..s.depth).map(move |i| (format!("{}.1.transformer_blocks.{i}.attn2", s.path), s.channels))
    };
    stages(c).into_iter().flat_map(of_stage).collect()
}

/// `blocks` in groups of at most `most` channels together, or of one block that has more.
pub fn groups(blocks: &[(String, usize)], most: usize) -> Vec<&[(String, usize)]> {
    let mut groups = Vec::new();
    let (mut from, mut sum) = (0, 0);
    for (at, (_, channels)) in blocks.iter().enumerate() {
        if at > from && sum + channels > most {
            groups.push(&blocks[from..at]);
            (from, sum) = (at, 0);
        }
        sum += channels;
    }
    groups.push(&blocks[from..]);
    groups.retain(|g| !g.is_empty());
    groups
}
