//! The configuration of a UNet, block by block.

/// The denoising network, block by block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnetConfig {
    /// Channels of the input: the latent's, and those of the variant.
    pub in_channels: usize,
    /// Channels of the prediction.
    pub out_channels: usize,
    /// Channels at full latent resolution; also the width of the sinusoidal time embedding.
    pub model_channels: usize,
    /// Width of the time embedding after its MLP.
    pub time_channels: usize,
    /// Width of a token in cross-attention.
    pub context_dim: usize,
    /// How attention divides channels into heads.
    pub heads: Heads,
    /// Whether `proj_in` and `proj_out` of the transformers are matrices `[C, C]` (SD2, SDXL)
    /// rather than 1×1 convolutions `[C, C, 1, 1]` (SD1).
    pub use_linear_in_transformer: bool,
    /// Length of the vector for `label_emb`, if the network has one.
    pub adm_in_channels: Option<usize>,
    /// `input_blocks.0`, `.1`, …: each leaves its output on the stack of skips.
    pub input_blocks: Vec<InputBlock>,
    /// `middle_block`, at the channels of the last input block.
    pub middle: MiddleBlock,
    /// `output_blocks.0`, `.1`, …: each takes one skip from the stack.
    pub output_blocks: Vec<OutputBlock>,
}

/// How attention divides channels into heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heads {
    /// A fixed number of heads (SD1: 8).
    Count(usize),
    /// Heads of a fixed width (SD2, SDXL: 64).
    Width(usize),
}

/// One of `input_blocks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputBlock {
    /// 3×3 convolution (`.0`).
    Conv {
        /// Channels in.
        in_channels: usize,
        /// Channels out.
        out_channels: usize,
    },
    /// Residual block (`.0`), then a transformer (`.1`) if its depth is not 0.
    Res {
        /// Channels in.
        in_channels: usize,
        /// Channels out.
        out_channels: usize,
        /// Number of transformer blocks; 0 for no attention.
        transformer_depth: usize,
    },
    /// 3×3 convolution of stride 2 (`.0.op`): each side is halved, rounding up.
    Down {
        /// Channels in and out.
        channels: usize,
    },
}

/// `middle_block`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MiddleBlock {
    /// There is none: the input blocks' result goes straight to the output blocks (KOALA-700M).
    Absent,
    /// One residual block (`.0`) and no attention (SSD-1B, Segmind Vega).
    Res,
    /// Residual block (`.0`), transformer (`.1`), residual block (`.2`).
    Attention {
        /// Number of transformer blocks, at least 1.
        transformer_depth: usize,
    },
}

/// One of `output_blocks`: residual block (`.0`) on the channels so far and the skip's,
/// concatenated in that order; then a transformer (`.1`) if its depth is not 0; then, with `up`,
/// nearest-neighbour doubling and a 3×3 convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputBlock {
    /// Channels in, the skip's included.
    pub in_channels: usize,
    /// Of which the skip's.
    pub skip_channels: usize,
    /// Channels out.
    pub out_channels: usize,
    /// Number of transformer blocks; 0 for no attention.
    pub transformer_depth: usize,
    /// Whether the block ends with an upsampling, to the size of the next skip.
    pub up: bool,
}

impl Heads {
    /// Number of heads for `channels`; 0 for heads of no width.
    pub fn count(self, channels: usize) -> usize {
        match self {
            Heads::Count(n) => n,
            Heads::Width(width) => channels.checked_div(width).unwrap_or(0),
        }
    }
}

impl InputBlock {
    /// Channels out, which are also those of the skip.
    pub fn out_channels(&self) -> usize {
        match *self {
            InputBlock::Conv { out_channels, .. } | InputBlock::Res { out_channels, .. } => out_channels,
            InputBlock::Down { channels } => channels,
        }
    }

    /// Number of modules that the checkpoint has for this block.
    pub(in crate::model) fn modules(&self) -> usize {
        match *self {
            InputBlock::Res { transformer_depth, .. } if transformer_depth > 0 => 2,
            _ => 1,
        }
    }
}

impl MiddleBlock {
    /// Number of transformer blocks; 0 for no attention.
    pub fn transformer_depth(&self) -> usize {
        match *self {
            MiddleBlock::Attention { transformer_depth } => transformer_depth,
            MiddleBlock::Absent | MiddleBlock::Res => 0,
        }
    }
}

impl OutputBlock {
    /// The number that follows the block's in the names of its upsampling: `.1` or `.2`.
    pub fn up_index(&self) -> usize {
        if self.transformer_depth > 0 { 2 } else { 1 }
    }
}

impl UnetConfig {
    /// Channels of the middle block.
    pub fn middle_channels(&self) -> usize {
        self.input_blocks.last().map_or(self.model_channels, InputBlock::out_channels)
    }

    /// Channels of each level, from full resolution down.
    pub fn level_channels(&self) -> Vec<usize> {
        self.levels().map(|level| level.last().map_or(0, InputBlock::out_channels)).collect()
    }

    /// `level_channels` as multiples of `model_channels`, rounded down.
    pub fn channel_mult(&self) -> Vec<usize> {
        self.level_channels().iter().map(|c| c.checked_div(self.model_channels).unwrap_or(0)).collect()
    }

    /// Number of residual blocks of each level's input side.
    pub fn num_res_blocks(&self) -> Vec<usize> {
        let is_res = |block: &&InputBlock| matches!(block, InputBlock::Res { .. });
        self.levels().map(|level| level.iter().filter(is_res).count()).collect()
    }

    /// Transformer depth behind each residual block of the input side, in order.
    pub fn transformer_depth(&self) -> Vec<usize> {
        let depth = |block: &InputBlock| match *block {
            InputBlock::Res { transformer_depth, .. } => Some(transformer_depth),
            _ => None,
        };
        self.input_blocks.iter().filter_map(depth).collect()
    }

    /// How often the input side halves the resolution.
    pub fn downs(&self) -> usize {
        self.levels().count() - 1
    }

    fn levels(&self) -> impl Iterator<Item = &[InputBlock]> {
        self.input_blocks.split(|block| matches!(block, InputBlock::Down { .. }))
    }
}
