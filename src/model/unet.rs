//! The denoising network: residual blocks and transformers on the way down, in the middle and on
//! the way up, each way-up block joined with the map that its level had on the way down.

mod blocks;
mod conditioning;

use std::collections::HashMap;

use super::Builder;
use super::config::{InputBlock, MOST_CHANNELS, MiddleBlock, OutputBlock, UNET, UnetConfig};
use crate::graph::{Activation, Graph, Shape, Tensor, Weight};
pub use crate::graph::{Perturbation, Width};
use crate::{Error, ErrorKind, Remedy, Result};
use conditioning::Keys;
pub use conditioning::{VECTOR, conditioning};

/// The self-attention that SAG listens to.
pub const SAG_LAYER: &str = "middle_block.1.transformer_blocks.0.attn1";

/// Name of the result that holds the recorded column sums, `[map height · map width]`.
pub const COLUMNS: &str = "columns";

/// How a UNet graph is to be built.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Latent height and width.
    pub size: (usize, usize),
    /// Tokens of the conditioning.
    pub tokens: usize,
    /// Record the column sums of [`SAG_LAYER`].
    pub record: bool,
    /// What is done to the self-attentions of the middle block.
    pub perturbation: Perturbation,
    /// Paths of modules whose results are wanted too.
    pub trace: Vec<String>,
}

/// Builds the network. Inputs: `x` `[height, width, in_channels]` (scaled for the network),
/// `time` (see [`time_embedding`]), `kv.0` and so on as [`conditioning`] keeps them, and `y` where
/// the network has extra conditioning. Results: `out`, and [`COLUMNS`] if recorded, whose shape is
/// the true size of the attention map.
///
/// # Errors
/// [`ErrorKind::Model`] if layers do not fit, or if a network without middle attention is to be
/// listened to there or perturbed; [`ErrorKind::Usage`] for numbers that no network has.
pub fn build(config: &UnetConfig, options: &Options) -> Result<Graph> {
    config.check(options.size, options.tokens)?;
    let b = Builder::new(UNET, &options.trace);
    let mut unet = Unet { b, config, vectors: HashMap::new(), keys: HashMap::new() };
    unet.build(options)?;
    Ok(unet.b.graph)
}

/// The weights of the network and of its [`conditioning`], the same at all sizes. Those that are
/// needed at each step come first: where memory is short the others are streamed before them.
///
/// # Errors
/// As [`build`].
pub fn weights(config: &UnetConfig) -> Result<Vec<Weight>> {
    let (size, tokens) = ((64, 64), 1);
    let step = build(config, &Options { size, tokens, ..Default::default() })?;
    let prompt = conditioning(config, tokens)?;
    Ok(step.weights().iter().chain(prompt.weights()).cloned().collect())
}

/// The sinusoidal embedding of a timestep, `[channels]`: cosines, then sines, of t · 10000^(-i/half).
/// In f32 like the networks were trained: t is up to 999, where f64 would give other last digits. Empty for more
/// channels than a network can have.
pub fn time_embedding(timestep: f32, channels: usize) -> Vec<f32> {
    let half = if channels > MOST_CHANNELS { 0 } else { channels / 2 };
    let angle = |i: usize| timestep * (-(10_000f32.ln()) * i as f32 / half as f32).exp();
    (0..half).map(|i| angle(i).cos()).chain((0..half).map(|i| angle(i).sin())).collect()
}

/// What a self-attention is asked for: whether its column sums are recorded, how it is perturbed.
type SelfAttention = (bool, Perturbation);

/// Neither.
const PLAIN: SelfAttention = (false, Perturbation::None);

struct Unet<'a> {
    b: Builder,
    config: &'a UnetConfig,
    /// By residual block: what it adds for the time.
    vectors: HashMap<String, Tensor>,
    /// By cross-attention: keys and values of the prompt.
    keys: HashMap<String, Tensor>,
}

/// Most values in the merged weight of the residual blocks' vectors: 64 MiB in f32, as much as the
/// engine puts into a buffer, and far below what any device binds.
const MOST_MERGED: usize = 16 << 20;

impl Unet<'_> {
    fn build(&mut self, options: &Options) -> Result<()> {
        let c = self.config;
        let (height, width) = options.size;
        let perturbed = options.perturbation != Perturbation::None;
        if (options.record || perturbed) && c.middle.transformer_depth() == 0 {
            let (reader, guidances): (_, &[&str]) =
                if perturbed { ("PAG and SEG perturb", &["PAG", "SEG"]) } else { ("SAG reads", &["SAG"]) };
            return Err(Error::new(ErrorKind::Model, "this UNet has no self-attention in its middle block")
                .at(format!("{UNET}{SAG_LAYER}"))
                .expected(format!("a middle block with a transformer, whose attention {reader}"))
                .found(match c.middle {
                    MiddleBlock::Absent => "no middle block, as in KOALA-700M",
                    _ => "residual blocks alone, as in SSD-1B and Segmind Vega",
                })
                .remedy(Remedy::TurnOff(guidances)));
        }
        let mut x = self.b.graph.input("x", Shape::new(height, width, c.in_channels));
        self.time(c)?;
        self.keys =
            Keys::new(c, options.tokens).inputs(&mut self.b.graph, options.tokens)?.into_iter().collect();
        let mut skips = Vec::new();
        for (i, block) in c.input_blocks.iter().enumerate() {
            x = self.input_block(&format!("input_blocks.{i}"), *block, x)?;
            skips.push(x);
        }
        x = self.middle(x, (options.record, options.perturbation))?;
        for (i, block) in c.output_blocks.iter().enumerate() {
            let skip = skips.pop().ok_or_else(|| contradictory("more output blocks than input blocks"))?;
            // The next skip shows the size to grow to: odd sizes were halved rounding up.
            let next = skips.last().map(|t| self.b.graph.shape(*t));
            x = self.output_block(&format!("output_blocks.{i}"), block, x, skip, next)?;
        }
        let out = self.b.norm_conv("out.0", "out.2", x, c.out_channels, 1e-5)?;
        self.b.graph.output("out", out);
        Ok(())
    }

    fn time(&mut self, c: &UnetConfig) -> Result<()> {
        let t = self.b.graph.input("time", Shape::tokens(1, c.model_channels));
        let mut emb = self.mlp("time_embed.0", "time_embed.2", t)?;
        self.b.mark("time_embed", emb);
        if let Some(channels) = c.adm_in_channels {
            let y = self.b.graph.kept_input(VECTOR, Shape::tokens(1, channels));
            let label = self.mlp("label_emb.0.0", "label_emb.0.2", y)?;
            self.b.mark("label_emb", label);
            emb = self.b.graph.add("label_emb", emb, label)?;
        }
        let emb = self.b.graph.activate("time_embed", Activation::Silu, emb);
        self.vectors(emb)
    }

    /// What each residual block adds, from the time embedding: few products of one position for all
    /// blocks, since each of them is over before a device is busy.
    fn vectors(&mut self, emb: Tensor) -> Result<()> {
        let (width, g) = (self.config.time_channels, &mut self.b.graph);
        let mut blocks = blocks::residual(self.config);
        for (path, _) in &mut blocks {
            path.push_str(".emb_layers.1");
        }
        for (i, group) in blocks::groups(&blocks, MOST_MERGED / width.max(1)).into_iter().enumerate() {
            let parts: Vec<(&str, usize)> = group.iter().map(|(path, out)| (path.as_str(), *out)).collect();
            let all = g.linear_merged(&format!("emb_layers.{i}"), emb, &parts, true)?;
            let mut first = 0;
            for (path, out) in group {
                let vector = g.part(path, all, first, Shape::tokens(1, *out))?;
                self.vectors.insert(path.clone(), vector);
                first += out;
            }
        }
        Ok(())
    }

    fn mlp(&mut self, first: &str, second: &str, x: Tensor) -> Result<Tensor> {
        let width = self.config.time_channels;
        let h = self.b.graph.linear(first, x, width, true)?;
        let h = self.b.graph.activate(first, Activation::Silu, h);
        self.b.graph.linear(second, h, width, true)
    }

    fn input_block(&mut self, path: &str, block: InputBlock, x: Tensor) -> Result<Tensor> {
        let first = format!("{path}.0");
        match block {
            InputBlock::Conv { out_channels, .. } => self.b.graph.conv3x3(&first, x, out_channels, 1, 1),
            InputBlock::Down { channels } => self.b.graph.conv3x3(&format!("{first}.op"), x, channels, 2, 1),
            InputBlock::Res { out_channels, transformer_depth, .. } => {
                let h = self.resnet(&first, x, out_channels)?;
                self.transformer(&format!("{path}.1"), h, transformer_depth, PLAIN)
            }
        }
    }

    fn middle(&mut self, x: Tensor, attention: SelfAttention) -> Result<Tensor> {
        let channels = self.config.middle_channels();
        match self.config.middle {
            MiddleBlock::Absent => Ok(x),
            MiddleBlock::Res => self.resnet("middle_block.0", x, channels),
            MiddleBlock::Attention { transformer_depth } => {
                let h = self.resnet("middle_block.0", x, channels)?;
                let h = self.transformer("middle_block.1", h, transformer_depth, attention)?;
                self.resnet("middle_block.2", h, channels)
            }
        }
    }

    fn output_block(
        &mut self,
        path: &str,
        block: &OutputBlock,
        x: Tensor,
        skip: Tensor,
        next: Option<Shape>,
    ) -> Result<Tensor> {
        let joined = self.b.graph.concat(&format!("{path}.skip"), x, skip)?;
        let mut h = self.resnet(&format!("{path}.0"), joined, block.out_channels)?;
        h = self.transformer(&format!("{path}.1"), h, block.transformer_depth, PLAIN)?;
        if block.up {
            let up = format!("{path}.{}.conv", block.up_index());
            let size = next.ok_or_else(|| contradictory("an upsampling after the last skip"))?;
            h = self.b.graph.conv3x3_doubled(&up, h, (size.height, size.width), block.out_channels)?;
        }
        Ok(h)
    }

    fn resnet(&mut self, path: &str, x: Tensor, out: usize) -> Result<Tensor> {
        let part = |name: &str| format!("{path}.{name}");
        let h = self.b.norm_conv(&part("in_layers.0"), &part("in_layers.2"), x, out, 1e-5)?;
        let emb = found(&self.vectors, &part("emb_layers.1"))?;
        let h = self.b.graph.add_vector(&part("emb_layers"), h, emb)?;
        let h = self.b.norm_conv(&part("out_layers.0"), &part("out_layers.3"), h, out, 1e-5)?;
        let skip = if self.b.graph.shape(x).channels == out {
            x
        } else {
            self.b.graph.conv1x1(&part("skip_connection"), x, out)?
        };
        let y = self.b.graph.add(path, skip, h)?;
        self.b.mark(path, y);
        Ok(y)
    }

    fn transformer(
        &mut self,
        path: &str,
        x: Tensor,
        depth: usize,
        (record, perturbation): SelfAttention,
    ) -> Result<Tensor> {
        if depth == 0 {
            return Ok(x);
        }
        let g = &mut self.b.graph;
        let channels = g.shape(x).channels;
        let (first, last) = (format!("{path}.proj_in"), format!("{path}.proj_out"));
        let linear = self.config.use_linear_in_transformer;
        let mut h = g.group_norm(&format!("{path}.norm"), x, 1e-6)?;
        h = if linear { g.linear(&first, h, channels, true)? } else { g.conv1x1(&first, h, channels)? };
        for i in 0..depth {
            let attention = (record && i == 0, perturbation);
            h = self.transformer_block(&format!("{path}.transformer_blocks.{i}"), h, attention)?;
        }
        let g = &mut self.b.graph;
        h = if linear { g.linear(&last, h, channels, true)? } else { g.conv1x1(&last, h, channels)? };
        let y = g.add(path, h, x)?;
        self.b.mark(path, y);
        Ok(y)
    }

    fn transformer_block(&mut self, path: &str, x: Tensor, attention: SelfAttention) -> Result<Tensor> {
        let part = |name: &str| format!("{path}.{name}");
        let h = self.b.graph.layer_norm(&part("norm1"), x);
        self.b.mark(&part("norm1"), h);
        let h = self.self_attention(&part("attn1"), h, attention)?;
        let x = self.b.graph.add(&part("attn1"), h, x)?;
        let h = self.b.graph.layer_norm(&part("norm2"), x);
        let h = self.cross_attention(&part("attn2"), h)?;
        let x = self.b.graph.add(&part("attn2"), h, x)?;
        let h = self.b.graph.layer_norm(&part("norm3"), x);
        let h = self.feed_forward(&part("ff"), h)?;
        let x = self.b.graph.add(path, h, x)?;
        self.b.mark(path, x);
        Ok(x)
    }

    fn self_attention(
        &mut self,
        path: &str,
        x: Tensor,
        (record, perturbation): SelfAttention,
    ) -> Result<Tensor> {
        let g = &mut self.b.graph;
        let c = g.shape(x).channels;
        let heads = self.config.heads.count(c);
        let [q, k, v] = ["to_q", "to_k", "to_v"].map(|n| format!("{path}.{n}"));
        let qkv = g.linear_merged(&format!("{path}.to_qkv"), x, &[(&q, c), (&k, c), (&v, c)], false)?;
        let h = match perturbation {
            Perturbation::None => {
                let (h, lse) = g.self_attention(path, qkv, heads, false, record)?;
                if let Some(lse) = lse {
                    let columns = g.attention_columns(&format!("{path}.{COLUMNS}"), qkv, lse, heads)?;
                    g.output(COLUMNS, columns);
                }
                h
            }
            Perturbation::Identity => g.channels(&v, qkv, 2 * c, c)?,
            Perturbation::BlurredQueries(width) => {
                let queries = g.channels(&q, qkv, 0, c)?;
                let blurred = g.blur(&format!("{path}.blur"), queries, width.sigma());
                g.self_attention_of(path, blurred, qkv, heads)?
            }
        };
        self.project(path, h)
    }

    fn cross_attention(&mut self, path: &str, x: Tensor) -> Result<Tensor> {
        let kv = found(&self.keys, path)?;
        let g = &mut self.b.graph;
        let c = g.shape(x).channels;
        let heads = self.config.heads.count(c);
        let q = g.linear(&format!("{path}.to_q"), x, c, false)?;
        let h = g.cross_attention(path, q, kv, heads)?;
        let y = self.project(path, h)?;
        self.b.mark(path, y);
        Ok(y)
    }

    fn project(&mut self, path: &str, x: Tensor) -> Result<Tensor> {
        let c = self.b.graph.shape(x).channels;
        let y = self.b.graph.linear(&format!("{path}.to_out.0"), x, c, true)?;
        self.b.mark(&format!("{path}.to_out"), y);
        Ok(y)
    }

    fn feed_forward(&mut self, path: &str, x: Tensor) -> Result<Tensor> {
        let g = &mut self.b.graph;
        let c = g.shape(x).channels;
        let h = g.linear(&format!("{path}.net.0.proj"), x, 8 * c, true)?;
        let h = g.geglu(&format!("{path}.net.0"), h);
        let y = g.linear(&format!("{path}.net.2"), h, c, true)?;
        self.b.mark(path, y);
        Ok(y)
    }
}

fn contradictory(what: &str) -> Error {
    Error::usage("the configuration of a UNet contradicts itself").found(what)
}

fn found(tensors: &HashMap<String, Tensor>, path: &str) -> Result<Tensor> {
    tensors.get(path).copied().ok_or_else(|| Error::internal(format!("{path} was not listed")))
}
