//! CLIP text encoders as graphs: token vectors in, one vector of meaning per token out.
//!
//! The three encoders are one network under two sets of names: OpenAI's in the layout of
//! `transformers`, OpenCLIP's in its own, with queries, keys and values in one weight.

use super::prompt::CHUNK;
use crate::Result;
use crate::families::Tower;
use crate::graph::{Activation, Graph, Shape, Tensor};
use crate::model::config::{self, TextConfig};

/// How much of an encoder is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Layers counted back from the end: 1 is the last, 2 the one before (clip skip).
    pub skip: usize,
    /// Apply the final normalisation to `hidden`.
    pub norm: bool,
    /// Also give `last`: the final normalisation of the last layer, from which the pooled vector
    /// is taken.
    pub pooled: bool,
}

/// What the parts are called in a checkpoint.
pub(super) struct Names {
    /// Table of token vectors, `[vocabulary, width]`.
    pub tokens: &'static str,
    /// Table of position vectors, `[positions, width]`.
    pub positions: &'static str,
    layers: &'static str,
    norms: [&'static str; 2],
    /// Queries, keys and values apart; None where they are joined in `in_proj`.
    apart: Option<[&'static str; 3]>,
    attention: &'static str,
    mlp: [&'static str; 2],
    last: &'static str,
}

const TRANSFORMERS: Names = Names {
    tokens: "embeddings.token_embedding.weight",
    positions: "embeddings.position_embedding.weight",
    layers: "encoder.layers",
    norms: ["layer_norm1", "layer_norm2"],
    apart: Some(["q_proj", "k_proj", "v_proj"]),
    attention: "self_attn",
    mlp: ["mlp.fc1", "mlp.fc2"],
    last: "final_layer_norm",
};

const OPEN_CLIP: Names = Names {
    tokens: "token_embedding.weight",
    positions: "positional_embedding",
    layers: "transformer.resblocks",
    norms: ["ln_1", "ln_2"],
    apart: None,
    attention: "attn",
    mlp: ["mlp.c_fc", "mlp.c_proj"],
    last: "ln_final",
};

/// The names of `tower`.
pub(super) fn names(tower: Tower) -> &'static Names {
    match tower {
        Tower::L => &TRANSFORMERS,
        Tower::H | Tower::G => &OPEN_CLIP,
    }
}

/// Names and shapes of the weights that no graph has: the tables of token and position vectors,
/// and the projection, where there is one. They stay on the host.
pub(crate) fn tables(config: &TextConfig) -> Vec<(String, Vec<usize>)> {
    let names = names(config.tower);
    let table =
        |name: &str, rows: usize, columns: usize| (format!("{}{name}", config.prefix), vec![rows, columns]);
    let mut tables = vec![
        table(names.tokens, config.vocab, config.width),
        table(names.positions, config.positions, config.width),
    ];
    tables.extend(config.projection.map(|columns| table("text_projection", config.width, columns)));
    tables
}

/// The full encoder, whose weights serve every clip skip.
///
/// # Errors
/// As [`build`].
pub(crate) fn whole(config: &TextConfig) -> Result<Graph> {
    build(config, &Options { skip: 1, norm: true, pooled: true })
}

/// Builds the encoder for one chunk of 77 tokens. Input `embedding` `[77, width]`: token plus position
/// vectors. Results `hidden` and, if wanted, `last`, both `[77, width]`.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for numbers that no network has,
/// [`ErrorKind::Model`](crate::ErrorKind::Model) if layers do not fit.
pub fn build(config: &TextConfig, options: &Options) -> Result<Graph> {
    config.check()?;
    let names = names(config.tower);
    let mut g = Graph::new(config.prefix.clone());
    let mut x = g.input("embedding", Shape::tokens(CHUNK, config.width));
    let stop = config.layers + 1 - options.skip.clamp(1, config.layers);
    let run = if options.pooled { config.layers } else { stop };
    for i in 0..run {
        x = layer(&mut g, config, names, &format!("{}.{i}", names.layers), x)?;
        if i + 1 == stop {
            if options.norm {
                let hidden = g.layer_norm(names.last, x);
                g.output("hidden", hidden);
            } else {
                g.trace("hidden", x);
            }
        }
    }
    if options.pooled {
        let last = g.layer_norm(names.last, x);
        g.output("last", last);
    }
    Ok(g)
}

fn layer(g: &mut Graph, config: &TextConfig, names: &Names, path: &str, x: Tensor) -> Result<Tensor> {
    let c = config.width;
    let part = |name: &str| format!("{path}.{name}");
    let attention = part(names.attention);
    let h = g.layer_norm(&part(names.norms[0]), x);
    let qkv = match names.apart {
        Some(apart) => {
            let [q, k, v] = apart.map(|n| format!("{attention}.{n}"));
            g.linear_merged(&format!("{attention}.qkv"), h, &[(&q, c), (&k, c), (&v, c)], true)?
        }
        None => {
            let [weight, bias] = ["weight", "bias"].map(|n| format!("{attention}.in_proj_{n}"));
            g.linear_named(&format!("{attention}.in_proj"), h, 3 * c, &weight, &bias)
        }
    };
    let (h, _) = g.self_attention(&attention, qkv, config.heads, true, false)?;
    let h = g.linear(&format!("{attention}.out_proj"), h, c, true)?;
    let x = g.add(&attention, h, x)?;
    let h = g.layer_norm(&part(names.norms[1]), x);
    let h = g.linear(&part(names.mlp[0]), h, config.mlp_width, true)?;
    let h = g.activate(&part("mlp"), activation(config), h);
    let h = g.linear(&part(names.mlp[1]), h, c, true)?;
    g.add(path, h, x)
}

fn activation(config: &TextConfig) -> Activation {
    match config.activation {
        config::Activation::QuickGelu => Activation::QuickGelu,
        config::Activation::Gelu => Activation::Gelu,
    }
}
