//! Models without files: fixed configurations, with weights computed by a formula.

use std::collections::BTreeMap;

use crate::Result;
use crate::checkpoint::{Checkpoint, Dtype, Manifest};
use crate::graph::{Graph, Weight};
use crate::model::config::{
    Activation, Heads, InputBlock, MiddleBlock, OutputBlock, TextConfig, Tower, UnetConfig, VaeConfig,
    Variant,
};
use crate::model::{Family, ModelConfig, Prediction, unet, vae};
use crate::text::{CHUNK, clip};

/// A model that benchmarks run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// Stable Diffusion 1.5: 860 M parameters in the UNet.
    Sd15,
    /// Stable Diffusion XL: 2.6 G parameters in the UNet.
    Sdxl,
    /// SD 1.5's structure, small enough for a software driver: 13 M.
    TinySd1,
    /// SDXL's structure, likewise.
    TinySdxl,
}

/// The sizes of a UNet's levels, from full resolution down.
struct Levels<'a> {
    /// Channels of the first level.
    channels: usize,
    /// Channels of each level as multiples of the first's.
    mult: &'a [usize],
    /// Transformer blocks after each residual block.
    depth: &'a [usize],
    /// Residual blocks on the way down; one more on the way up.
    res_blocks: usize,
    /// Transformer blocks in the middle.
    middle: usize,
}

impl Preset {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Preset::Sd15 => "SD1.5",
            Preset::Sdxl => "SDXL",
            Preset::TinySd1 => "tiny SD1.5",
            Preset::TinySdxl => "tiny SDXL",
        }
    }

    /// Sides of the latents that it is measured with, cells.
    pub fn side(self) -> usize {
        match self {
            Preset::Sd15 => 64,
            Preset::Sdxl => 128,
            Preset::TinySd1 | Preset::TinySdxl => 8,
        }
    }

    /// The configuration, as [`ModelConfig::infer`] reads it off a checkpoint of the family.
    pub fn config(self) -> ModelConfig {
        let unet = match self {
            Preset::Sd15 => {
                Levels { channels: 320, mult: &[1, 2, 4, 4], depth: &[1, 1, 1, 0], res_blocks: 2, middle: 1 }
            }
            Preset::Sdxl => {
                Levels { channels: 320, mult: &[1, 2, 4], depth: &[0, 2, 10], res_blocks: 2, middle: 10 }
            }
            Preset::TinySd1 => {
                Levels { channels: 64, mult: &[1, 2, 4], depth: &[1, 1, 0], res_blocks: 1, middle: 1 }
            }
            Preset::TinySdxl => {
                Levels { channels: 64, mult: &[1, 2, 4], depth: &[0, 1, 2], res_blocks: 1, middle: 2 }
            }
        };
        let (xl, tiny) = match self {
            Preset::Sd15 => (false, false),
            Preset::Sdxl => (true, false),
            Preset::TinySd1 => (false, true),
            Preset::TinySdxl => (true, true),
        };
        let text = text(xl, tiny);
        let facts = if xl { Family::Sdxl } else { Family::Sd1 }.facts();
        ModelConfig {
            noise: None,
            family: facts.family,
            variant: Variant::Base,
            prediction: Prediction::Eps,
            latent_scale: facts.latent_scale,
            unet: unet_config(&unet, xl, &text),
            vae: VaeConfig {
                image_channels: 3,
                channels: if tiny { 32 } else { 128 },
                level_channels: if tiny { vec![32, 64, 64, 64] } else { vec![128, 256, 512, 512] },
                res_blocks: if tiny { 1 } else { 2 },
                z_channels: facts.latent_channels,
                latent_channels: facts.latent_channels,
            },
            text,
        }
    }

    /// The complete model, with weights computed by a formula and rounded to f16. Nothing is stored: values are computed
    /// when they are read.
    ///
    /// # Errors
    /// None that a preset can cause.
    pub fn checkpoint(self) -> Result<Checkpoint> {
        let config = self.config();
        let options = unet::Options { size: (64, 64), tokens: CHUNK, ..Default::default() };
        let mut graphs = vec![
            unet::build(&config.unet, &options)?,
            unet::conditioning(&config.unet, CHUNK)?,
            vae::decoder(&config.vae, 8, 8)?,
            vae::encoder(&config.vae, 64, 64)?,
        ];
        for text in &config.text {
            graphs.push(clip::build(text, &clip::Options { skip: 1, norm: true, pooled: true })?);
        }
        by_formula(self.name(), &graphs, config.text.iter().flat_map(clip::tables))
    }
}

/// A checkpoint of all weights of `graphs`, and of `more`, by formula.
///
/// # Errors
/// [`ErrorKind::File`](crate::ErrorKind::File) for an impossible shape.
pub fn by_formula(
    name: &str,
    graphs: &[Graph],
    more: impl IntoIterator<Item = (String, Vec<usize>)>,
) -> Result<Checkpoint> {
    let weights = graphs.iter().flat_map(Graph::weights);
    let sources = weights.flat_map(|w: &Weight| w.sources.iter().cloned().zip(w.shapes.iter().cloned()));
    // Graphs of one model may share weights.
    let tensors: BTreeMap<String, Vec<usize>> = sources.chain(more).collect();
    let (family, prediction) = (name.to_owned(), "eps".to_owned());
    let manifest = Manifest { family, prediction, tensors: tensors.into_iter().collect() };
    Checkpoint::synthetic(&manifest, 0, Dtype::F16)
}

fn text(xl: bool, tiny: bool) -> Vec<TextConfig> {
    let tower = |tower, prefix: &str, width: usize, layers, activation, projection| TextConfig {
        tower,
        prefix: prefix.to_owned(),
        width,
        heads: width / 64,
        layers,
        absent: 0,
        mlp_width: 4 * width,
        positions: CHUNK,
        vocab: 49_408,
        activation,
        projection,
    };
    let first = |prefix, layers| {
        tower(Tower::L, prefix, if tiny { 64 } else { 768 }, layers, Activation::QuickGelu, None)
    };
    if !xl {
        let layers = if tiny { 2 } else { 12 };
        return vec![first("cond_stage_model.transformer.text_model.", layers)];
    }
    let (width, layers) = if tiny { (128, 3) } else { (1280, 32) };
    vec![
        first("conditioner.embedders.0.transformer.text_model.", if tiny { 3 } else { 12 }),
        tower(Tower::G, "conditioner.embedders.1.model.", width, layers, Activation::Gelu, Some(width)),
    ]
}

fn unet_config(levels: &Levels<'_>, xl: bool, text: &[TextConfig]) -> UnetConfig {
    let channels_of = |level: usize| levels.channels * levels.mult[level];
    let last = levels.mult.len() - 1;
    let mut blocks = vec![InputBlock::Conv { in_channels: 4, out_channels: levels.channels }];
    let mut channels = levels.channels;
    for level in 0..=last {
        for _ in 0..levels.res_blocks {
            let (out_channels, transformer_depth) = (channels_of(level), levels.depth[level]);
            blocks.push(InputBlock::Res { in_channels: channels, out_channels, transformer_depth });
            channels = out_channels;
        }
        if level < last {
            blocks.push(InputBlock::Down { channels });
        }
    }
    let mut skips: Vec<usize> = blocks.iter().map(InputBlock::out_channels).collect();
    let mut output_blocks = Vec::new();
    for level in (0..=last).rev() {
        for i in 0..=levels.res_blocks {
            // There is a skip for every block on the way up.
            let skip_channels = skips.pop().unwrap_or(0);
            output_blocks.push(OutputBlock {
                in_channels: channels + skip_channels,
                skip_channels,
                out_channels: channels_of(level),
                transformer_depth: levels.depth[level],
                up: level > 0 && i == levels.res_blocks,
            });
            channels = channels_of(level);
        }
    }
    let pooled = text.last().and_then(|t| t.projection).unwrap_or(0);
    UnetConfig {
        in_channels: 4,
        out_channels: 4,
        model_channels: levels.channels,
        time_channels: 4 * levels.channels,
        context_dim: text.iter().map(|t| t.width).sum(),
        heads: if xl { Heads::Width(64) } else { Heads::Count(8) },
        use_linear_in_transformer: xl,
        // Six sizes as sinusoids of 256 values beside the pooled text.
        adm_in_channels: xl.then_some(pooled + 6 * 256),
        input_blocks: blocks,
        middle: MiddleBlock::Attention { transformer_depth: levels.middle },
        output_blocks,
    }
}
