//! What diffusers and transformers call the modules of the original single-file layout.
//!
//! Tables of pairs, the original name first. Block numbers are not a table: they follow from the
//! number of residual blocks of each level.

/// Pairs of the original name and diffusers' name of the same thing.
pub type Pairs = &'static [(&'static str, &'static str)];

/// UNet modules outside the blocks.
pub const UNET_ENDS: Pairs = &[
    ("time_embed.0", "time_embedding.linear_1"),
    ("time_embed.2", "time_embedding.linear_2"),
    ("label_emb.0.0", "add_embedding.linear_1"),
    ("label_emb.0.2", "add_embedding.linear_2"),
    ("input_blocks.0.0", "conv_in"),
    ("out.0", "conv_norm_out"),
    ("out.2", "conv_out"),
];

/// Parts of a residual block.
const RESNET: Pairs = &[
    ("in_layers.0", "norm1"),
    ("in_layers.2", "conv1"),
    ("emb_layers.1", "time_emb_proj"),
    ("out_layers.0", "norm2"),
    ("out_layers.3", "conv2"),
    ("skip_connection", "conv_shortcut"),
];

/// The one part of a downsampling.
const DOWN: Pairs = &[("op", "conv")];

/// Parts of an OpenCLIP layer and their names in transformers. Queries, keys and values are one
/// matrix (`attn.in_proj_weight`) here and three there, see [`QKV`].
pub const CLIP_LAYER: Pairs = &[
    ("ln_1", "layer_norm1"),
    ("ln_2", "layer_norm2"),
    ("attn.out_proj", "self_attn.out_proj"),
    ("mlp.c_fc", "mlp.fc1"),
    ("mlp.c_proj", "mlp.fc2"),
];

/// transformers' names of the thirds of OpenCLIP's `attn.in_proj`, in the order of their rows.
pub const QKV: [&str; 3] = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];

/// A level of the UNet: a resolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// Residual blocks on the way down; the way up has one more.
    pub res_blocks: usize,
    /// Whether the last block of the way up has a transformer, which moves the upsampling from
    /// place 1 to place 2.
    pub up_attention: bool,
}

/// A part of a UNet block, such as `input_blocks.4.1` and `down_blocks.1.attentions.0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The original name, of three components (`middle_block.1`: two).
    pub original: String,
    /// diffusers' name.
    pub diffusers: String,
    /// What is below it; empty if the names below are the same.
    parts: Pairs,
}

impl Block {
    fn new(original: String, diffusers: String, parts: Pairs) -> Self {
        Self { original, diffusers, parts }
    }

    /// diffusers' name of the module `original`, if it is below this block.
    pub fn diffusers_name(&self, original: &str) -> Option<String> {
        let below = original.strip_prefix(&self.original)?.strip_prefix('.')?;
        let below = match self.parts {
            [] => below,
            parts => parts.iter().find(|(name, _)| *name == below)?.1,
        };
        Some(format!("{}.{below}", self.diffusers))
    }
}

/// All blocks of a UNet with these levels, from full resolution down. Transformers are listed
/// behind every residual block, whether or not the network has them.
pub fn unet_blocks(levels: &[Level]) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut res = |original: String, diffusers: String, i: usize| {
        let (res, attention) = (format!("{diffusers}.resnets.{i}"), format!("{diffusers}.attentions.{i}"));
        blocks.push(Block::new(format!("{original}.0"), res, RESNET));
        blocks.push(Block::new(format!("{original}.1"), attention, &[]));
    };
    // Block 0 is the first convolution; every level but the last ends with a block that halves.
    let mut n = 1;
    let mut downs = Vec::new();
    for (level, l) in levels.iter().enumerate() {
        for i in 0..l.res_blocks {
            res(format!("input_blocks.{n}"), format!("down_blocks.{level}"), i);
            n += 1;
        }
        downs.push((format!("input_blocks.{n}.0"), format!("down_blocks.{level}.downsamplers.0")));
        n += 1;
    }
    // The way up counts its levels from the lowest resolution; doubling is part of the last block.
    let mut n = 0;
    let mut ups = Vec::new();
    for (level, l) in levels.iter().rev().enumerate() {
        for i in 0..=l.res_blocks {
            res(format!("output_blocks.{n}"), format!("up_blocks.{level}"), i);
            n += 1;
        }
        let place = if l.up_attention { 2 } else { 1 };
        ups.push((format!("output_blocks.{}.{place}", n - 1), format!("up_blocks.{level}.upsamplers.0")));
    }
    downs.pop();
    ups.pop();
    blocks.extend(downs.into_iter().map(|(o, d)| Block::new(o, d, DOWN)));
    blocks.extend(ups.into_iter().map(|(o, d)| Block::new(o, d, &[])));
    for (original, diffusers, parts) in
        [("0", "resnets.0", RESNET), ("1", "attentions.0", &[]), ("2", "resnets.1", RESNET)]
    {
        blocks.push(Block::new(format!("middle_block.{original}"), format!("mid_block.{diffusers}"), parts));
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SD 1: four levels of two blocks, attention everywhere but at the lowest resolution.
    #[test]
    fn sd1_names() {
        let level = |up_attention| Level { res_blocks: 2, up_attention };
        let blocks = unet_blocks(&[level(true), level(true), level(true), level(false)]);
        let name = |original: &str| blocks.iter().find_map(|b| b.diffusers_name(original));
        let cases = [
            ("input_blocks.1.0.in_layers.2", "down_blocks.0.resnets.0.conv1"),
            ("input_blocks.3.0.op", "down_blocks.0.downsamplers.0.conv"),
            ("input_blocks.4.0.skip_connection", "down_blocks.1.resnets.0.conv_shortcut"),
            ("input_blocks.8.1.proj_in", "down_blocks.2.attentions.1.proj_in"),
            ("input_blocks.11.0.emb_layers.1", "down_blocks.3.resnets.1.time_emb_proj"),
            ("middle_block.1.norm", "mid_block.attentions.0.norm"),
            ("middle_block.2.out_layers.3", "mid_block.resnets.1.conv2"),
            ("output_blocks.2.1.conv", "up_blocks.0.upsamplers.0.conv"),
            ("output_blocks.5.2.conv", "up_blocks.1.upsamplers.0.conv"),
            ("output_blocks.11.1.proj_out", "up_blocks.3.attentions.2.proj_out"),
        ];
        for (original, diffusers) in cases {
            assert_eq!(name(original).as_deref(), Some(diffusers), "{original}");
        }
        for original in ["input_blocks.12.0.op", "output_blocks.1", "input_blocks.1.0.conv1", "out.2"] {
            assert_eq!(name(original), None, "{original}");
        }
    }
}
