//! The UNet of a checkpoint: its blocks, walked in the order in which they run.

use crate::checkpoint::{Checkpoint, UNET_HEADS};
use crate::model::config::{Heads, InputBlock, MiddleBlock, OutputBlock, UNET, UnetConfig};
use crate::{Error, Result};

/// Group normalisation divides channels into this many groups everywhere.
pub(super) const NORM_GROUPS: usize = 32;

impl UnetConfig {
    /// Reads the network off a checkpoint's names and shapes.
    ///
    /// # Errors
    /// [`ErrorKind::Model`](crate::ErrorKind::Model) if a tensor is missing or the blocks do not
    /// follow from each other.
    pub fn infer(model: &Checkpoint) -> Result<Self> {
        let [time_channels, model_channels] = model.dims(&format!("{UNET}time_embed.0.weight"))?;
        let mut walk = BlockWalk { model, time_channels, transformers: None, skips: Vec::new(), level: 0 };
        let input_blocks = walk.input_blocks(model_channels)?;
        let middle = walk.middle()?;
        let output_blocks = walk.output_blocks()?;
        let out_channels = walk.last_conv(&output_blocks)?;
        let Some(Transformers { context_dim, linear }) = walk.transformers else {
            return Err(model
                .fault("the UNet has no cross-attention, so no prompt can act")
                .hint("pass a text-to-image checkpoint"));
        };
        let mut config = Self {
            in_channels: input_blocks.first().map_or(0, |b| match *b {
                InputBlock::Conv { in_channels, .. } => in_channels,
                _ => 0,
            }),
            out_channels,
            model_channels,
            time_channels,
            context_dim,
            heads: heads_rule(linear),
            use_linear_in_transformer: linear,
            adm_in_channels: walk.label_embedding()?,
            input_blocks,
            middle,
            output_blocks,
        };
        if let Some(text) = model.metadata().get(UNET_HEADS) {
            config.heads = heads_of_settings(model, text, &config.level_channels(), config.heads)?;
        }
        Ok(config)
    }
}

/// The heads in a diffusers folder's settings: one number, or one for each level.
fn heads_of_settings(model: &Checkpoint, text: &str, channels: &[usize], usual: Heads) -> Result<Heads> {
    let numbers: Vec<usize> = match serde_json::from_str::<usize>(text) {
        Ok(number) => vec![number; channels.len()],
        Err(_) => serde_json::from_str(text).unwrap_or_default(),
    };
    let fits = |heads: Heads| channels.iter().zip(&numbers).all(|(&c, &n)| n > 0 && heads.count(c) == n);
    let (first, width) = match (numbers.first(), channels.first()) {
        (Some(&n), Some(&c)) if n > 0 && c.is_multiple_of(n) => (n, c / n),
        _ => (0, 0),
    };
    let rules = [usual, Heads::Count(first), Heads::Width(width.max(1))];
    let rule = rules.into_iter().find(|&rule| numbers.len() == channels.len() && first > 0 && fits(rule));
    let divides = |heads: Heads| channels.iter().all(|&c| c.is_multiple_of(heads.count(c).max(1)));
    rule.filter(|&heads| divides(heads)).ok_or_else(|| {
        model
            .fault("the UNet's attention heads follow no known rule")
            .at(UNET_HEADS)
            .expected(format!("one number for all of the levels' channels {channels:?}, or one width"))
            .found(text.chars().take(80).collect::<String>())
    })
}

/// Shapes do not show the number of heads. In all published networks it goes with the kind of
/// projection around the transformers.
fn heads_rule(linear: bool) -> Heads {
    if linear { Heads::Width(64) } else { Heads::Count(8) }
}

/// What all transformers of a network share.
#[derive(Clone, Copy, PartialEq)]
struct Transformers {
    context_dim: usize,
    linear: bool,
}

/// A walk through the blocks in the order in which they run.
struct BlockWalk<'a> {
    model: &'a Checkpoint,
    time_channels: usize,
    /// From the first transformer met; the others must agree.
    transformers: Option<Transformers>,
    /// Channels and level of each input block's output, until an output block takes it.
    skips: Vec<(usize, usize)>,
    /// How often the resolution has been halved at this point.
    level: usize,
}

impl BlockWalk<'_> {
    fn input_blocks(&mut self, model_channels: usize) -> Result<Vec<InputBlock>> {
        let count = self.model.count(&format!("{UNET}input_blocks."))?;
        let mut blocks = Vec::with_capacity(count);
        let mut channels = 0;
        for i in 0..count {
            let path = format!("{UNET}input_blocks.{i}");
            let block = if i == 0 {
                let (out_channels, in_channels) = self.conv3x3(&format!("{path}.0.weight"))?;
                self.expect("the first convolution's channels", model_channels, out_channels, &path)?;
                InputBlock::Conv { in_channels, out_channels }
            } else if self.model.has(&format!("{path}.0.op.weight")) {
                self.square_conv(&format!("{path}.0.op.weight"), channels)?;
                self.level += 1;
                InputBlock::Down { channels }
            } else {
                let out_channels = self.res(&format!("{path}.0"), channels)?;
                let transformer_depth = self.transformer(&format!("{path}.1"), out_channels)?;
                InputBlock::Res { in_channels: channels, out_channels, transformer_depth }
            };
            self.expect_parts(&path, block.modules())?;
            channels = block.out_channels();
            self.skips.push((channels, self.level));
            blocks.push(block);
        }
        Ok(blocks)
    }

    fn middle(&mut self) -> Result<MiddleBlock> {
        let channels = self.skips.last().map_or(0, |&(channels, _)| channels);
        let path = format!("{UNET}middle_block");
        let parts = self.model.count(&format!("{path}."))?;
        if parts == 0 {
            return Ok(MiddleBlock::Absent);
        }
        self.same_channels_res(&format!("{path}.0"), channels)?;
        if parts == 1 {
            return Ok(MiddleBlock::Res);
        }
        let transformer_depth = self.transformer(&format!("{path}.1"), channels)?;
        if transformer_depth == 0 {
            return Err(self.model.missing(&format!("{path}.1.transformer_blocks.0"), "a transformer block"));
        }
        self.same_channels_res(&format!("{path}.2"), channels)?;
        self.expect_parts(&path, 3)?;
        Ok(MiddleBlock::Attention { transformer_depth })
    }

    fn output_blocks(&mut self) -> Result<Vec<OutputBlock>> {
        let count = self.model.count(&format!("{UNET}output_blocks."))?;
        let mut channels = self.skips.last().map_or(0, |&(channels, _)| channels);
        self.expect("output blocks, one for each input block", self.skips.len(), count, UNET)?;
        let mut blocks = Vec::with_capacity(count);
        for i in 0..count {
            let path = format!("{UNET}output_blocks.{i}");
            let Some((skip_channels, skip_level)) = self.skips.pop() else { break };
            self.expect("halvings of the skip's resolution", self.level, skip_level, &path)?;
            let in_channels = channels + skip_channels;
            let out_channels = self.res(&format!("{path}.0"), in_channels)?;
            let transformer_depth = self.transformer(&format!("{path}.1"), out_channels)?;
            let mut block =
                OutputBlock { in_channels, skip_channels, out_channels, transformer_depth, up: false };
            let up = format!("{path}.{}.conv.weight", block.up_index());
            if self.level > 0 && self.model.has(&up) {
                self.square_conv(&up, out_channels)?;
                block.up = true;
                self.level -= 1;
            }
            self.expect_parts(&path, block.up_index() + usize::from(block.up))?;
            channels = out_channels;
            blocks.push(block);
        }
        Ok(blocks)
    }

    /// Channels of the prediction.
    fn last_conv(&self, output_blocks: &[OutputBlock]) -> Result<usize> {
        let name = format!("{UNET}out.2.weight");
        let (out_channels, in_channels) = self.conv3x3(&name)?;
        let channels = output_blocks.last().map_or(0, |b| b.out_channels);
        self.expect("input channels", channels, in_channels, &name)?;
        Ok(out_channels)
    }

    fn label_embedding(&self) -> Result<Option<usize>> {
        let name = format!("{UNET}label_emb.0.0.weight");
        if !self.model.has(&name) {
            return Ok(None);
        }
        let [out, adm_in_channels] = self.model.dims(&name)?;
        self.expect("rows, as the time embedding's width", self.time_channels, out, &name)?;
        Ok(Some(adm_in_channels))
    }

    /// A residual block on `channels`; returns its output channels.
    fn res(&self, path: &str, channels: usize) -> Result<usize> {
        let first = format!("{path}.in_layers.2.weight");
        let (out_channels, in_channels) = self.conv3x3(&first)?;
        self.expect("input channels", channels, in_channels, &first)?;
        self.square_conv(&format!("{path}.out_layers.3.weight"), out_channels)?;
        let time = format!("{path}.emb_layers.1.weight");
        if self.model.dims(&time)? != [out_channels, self.time_channels] {
            let found = self.model.dims::<2>(&time)?;
            return Err(self.model.misshapen(
                &time,
                format!("{:?}", [out_channels, self.time_channels]),
                &found,
            ));
        }
        if in_channels != out_channels {
            let skip = format!("{path}.skip_connection.weight");
            let found = self.model.dims::<4>(&skip)?;
            if found != [out_channels, in_channels, 1, 1] {
                let expected = format!("{:?}", [out_channels, in_channels, 1, 1]);
                return Err(self.model.misshapen(&skip, expected, &found));
            }
        }
        for channels in [in_channels, out_channels] {
            if !channels.is_multiple_of(NORM_GROUPS) {
                return Err(indivisible(self.model, path, channels, NORM_GROUPS, "normalisation groups"));
            }
        }
        Ok(out_channels)
    }

    fn same_channels_res(&self, path: &str, channels: usize) -> Result<()> {
        let found = self.res(path, channels)?;
        self.expect("output channels", channels, found, path)
    }

    /// A transformer on `channels`, if there is one; returns its depth.
    fn transformer(&mut self, path: &str, channels: usize) -> Result<usize> {
        let depth = self.model.count(&format!("{path}.transformer_blocks."))?;
        if depth == 0 {
            return Ok(0);
        }
        let proj_in = format!("{path}.proj_in.weight");
        let linear = self.model.tensor(&proj_in).is_some_and(|info| info.shape.len() == 2);
        let to_k = format!("{path}.transformer_blocks.0.attn2.to_k.weight");
        let [out, context_dim] = self.model.dims(&to_k)?;
        self.expect("rows, as the block's channels", channels, out, &to_k)?;
        let found = Transformers { context_dim, linear };
        let first = *self.transformers.get_or_insert(found);
        if first != found {
            let show = |t: Transformers| {
                format!(
                    "tokens of {} values and {}",
                    t.context_dim,
                    if t.linear { "matrices" } else { "convolutions" }
                )
            };
            return Err(self
                .model
                .fault("the transformers of the UNet differ")
                .at(path)
                .expected(show(first))
                .found(show(found))
                .hint("the file is damaged or mixed from two models: fetch it again"));
        }
        let divisor = match heads_rule(linear) {
            Heads::Count(n) | Heads::Width(n) => n,
        };
        if !channels.is_multiple_of(divisor) {
            return Err(indivisible(self.model, path, channels, divisor, "attention heads"));
        }
        Ok(depth)
    }

    /// Output and input channels of a 3×3 convolution.
    fn conv3x3(&self, name: &str) -> Result<(usize, usize)> {
        conv3x3(self.model, name)
    }

    /// A 3×3 convolution that keeps the number of channels.
    fn square_conv(&self, name: &str, channels: usize) -> Result<()> {
        let found = self.model.dims::<4>(name)?;
        if found != [channels, channels, 3, 3] {
            return Err(self.model.misshapen(name, format!("{:?}", [channels, channels, 3, 3]), &found));
        }
        Ok(())
    }

    /// A module that no layer reads would be left out without a word.
    fn expect_parts(&self, block: &str, known: usize) -> Result<()> {
        let path = format!("{block}.");
        self.expect("known parts", known, self.model.count(&path)?, &path)
    }

    fn expect(&self, what: &str, expected: usize, found: usize, at: &str) -> Result<()> {
        expect(self.model, what, expected, found, at)
    }
}

/// Output and input channels of a 3×3 convolution.
pub(super) fn conv3x3(model: &Checkpoint, name: &str) -> Result<(usize, usize)> {
    match model.dims(name)? {
        [out_channels, in_channels, 3, 3] => Ok((out_channels, in_channels)),
        found => Err(model.misshapen(name, "a 3×3 convolution", &found)),
    }
}

/// Two numbers that must agree for the network to run.
pub(super) fn expect(model: &Checkpoint, what: &str, expected: usize, found: usize, at: &str) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(model
        .fault("the parts of the network do not fit")
        .at(at)
        .expected(format!("{expected} {what}"))
        .found(found.to_string())
        .hint("the file is damaged or of an unknown kind: use an unmodified checkpoint"))
}

/// Channels that cannot be shared out evenly.
pub(super) fn indivisible(model: &Checkpoint, at: &str, channels: usize, by: usize, into: &str) -> Error {
    model
        .fault(format!("the channels cannot be divided into {into}"))
        .at(at)
        .expected(format!("a multiple of {by}"))
        .found(channels.to_string())
        .hint("the network is of an unknown kind")
}
