//! Numbers that a configuration may have. Those of a file are sound; those that a program has put together may be
//! anything.

use std::ops::RangeInclusive;

use super::{Heads, InputBlock, MiddleBlock, TextConfig, UnetConfig, VaeConfig};
use crate::{Error, Result};

/// Channels of a layer, lines of a map, tokens of a prompt: far beyond all that exist.
pub(crate) const MOST_CHANNELS: usize = 1 << 24;
/// Blocks and levels of a network, layers of a block.
const MOST_BLOCKS: usize = 256;

const SIZE: RangeInclusive<usize> = 1..=MOST_CHANNELS;
const LAYERS: RangeInclusive<usize> = 1..=MOST_BLOCKS;
const BLOCKS: RangeInclusive<usize> = 0..=MOST_BLOCKS;

type Bound = (&'static str, usize, RangeInclusive<usize>);

fn check(network: &str, bounds: impl IntoIterator<Item = Bound>) -> Result<()> {
    match bounds.into_iter().find(|(_, number, allowed)| !allowed.contains(number)) {
        None => Ok(()),
        Some((what, number, allowed)) => Err(Error::usage(format!("no {network} has such {what}"))
            .expected(format!("{} to {}", allowed.start(), allowed.end()))
            .found(number.to_string())),
    }
}

impl UnetConfig {
    /// Whether a network can be built of these numbers for a latent of this height and width and a prompt of
    /// `tokens`.
    pub(in crate::model) fn check(&self, (height, width): (usize, usize), tokens: usize) -> Result<()> {
        let (Heads::Count(heads) | Heads::Width(heads)) = self.heads;
        let channels = "channels";
        let whole = [
            ("lines of a latent", height, SIZE),
            ("columns of a latent", width, SIZE),
            ("tokens", tokens, SIZE),
            ("heads", heads, SIZE),
            (channels, self.in_channels, SIZE),
            (channels, self.out_channels, SIZE),
            (channels, self.model_channels, SIZE),
            (channels, self.time_channels, SIZE),
            (channels, self.context_dim, SIZE),
            (channels, self.adm_in_channels.unwrap_or(1), SIZE),
            ("blocks", self.input_blocks.len(), LAYERS),
            ("blocks", self.output_blocks.len(), BLOCKS),
            ("transformer blocks", self.middle.transformer_depth(), BLOCKS),
        ];
        let inputs = self.input_blocks.iter().flat_map(|block| {
            let depth = match *block {
                InputBlock::Res { transformer_depth, .. } => transformer_depth,
                InputBlock::Conv { .. } | InputBlock::Down { .. } => 0,
            };
            [(channels, block.out_channels(), SIZE), ("transformer blocks", depth, BLOCKS)]
        });
        let outputs = self.output_blocks.iter().flat_map(|block| {
            [(channels, block.out_channels, SIZE), ("transformer blocks", block.transformer_depth, BLOCKS)]
        });
        check("UNet", whole.into_iter().chain(inputs).chain(outputs))?;
        // A middle block of no transformers would be said to have attention.
        match self.middle {
            MiddleBlock::Attention { transformer_depth: 0 } => {
                Err(Error::usage("a middle block with attention and no transformer block"))
            }
            _ => Ok(()),
        }
    }
}

impl VaeConfig {
    /// Whether a network can be built of these numbers for a map of this height and width.
    pub(in crate::model) fn check(&self, height: usize, width: usize) -> Result<()> {
        let whole = [
            ("lines of a map", height, SIZE),
            ("columns of a map", width, SIZE),
            ("channels", self.image_channels, SIZE),
            ("channels", self.channels, SIZE),
            ("channels", self.z_channels, SIZE),
            ("channels", self.latent_channels, SIZE),
            ("blocks", self.res_blocks, BLOCKS),
            // Each doubles a map's sides.
            ("levels", self.level_channels.len(), 1..=16),
        ];
        let levels = self.level_channels.iter().map(|channels| ("channels", *channels, SIZE));
        check("VAE", whole.into_iter().chain(levels))
    }
}

impl TextConfig {
    /// Whether a network can be built of these numbers.
    pub(crate) fn check(&self) -> Result<()> {
        let bounds = [
            ("width", self.width, SIZE),
            ("heads", self.heads, SIZE),
            ("layers", self.layers, LAYERS),
            ("width of its MLPs", self.mlp_width, SIZE),
            ("columns of its projection", self.projection.unwrap_or(1), SIZE),
        ];
        check("text encoder", bounds)
    }
}
