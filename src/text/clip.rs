//! CLIP text encoders as graphs: token vectors in, one vector of meaning per token out.

use crate::Result;
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

/// Builds the encoder for one chunk. Input `embedding` `[positions, width]`: token plus position
/// vectors. Results `hidden` and, if wanted, `last`, both `[positions, width]`.
pub fn build(config: &TextConfig, options: &Options) -> Result<Graph> {
    let mut g = Graph::new(config.prefix.clone());
    let mut x = g.input("embedding", Shape::tokens(config.positions, config.width));
    let stop = config.layers + 1 - options.skip.clamp(1, config.layers);
    let run = if options.pooled { config.layers } else { stop };
    for i in 0..run {
        x = layer(&mut g, config, &format!("encoder.layers.{i}"), x)?;
        if i + 1 == stop {
            if options.norm {
                let hidden = g.layer_norm("final_layer_norm", x);
                g.output("hidden", hidden);
            } else {
                g.trace("hidden", x);
            }
        }
    }
    if options.pooled {
        let last = g.layer_norm("final_layer_norm", x);
        g.output("last", last);
    }
    Ok(g)
}

fn layer(g: &mut Graph, config: &TextConfig, path: &str, x: Tensor) -> Result<Tensor> {
    let c = config.width;
    let part = |name: &str| format!("{path}.{name}");
    let h = g.layer_norm(&part("layer_norm1"), x);
    let [q, k, v] = ["q_proj", "k_proj", "v_proj"].map(|n| part(&format!("self_attn.{n}")));
    let qkv = g.linear_merged(&part("self_attn.qkv"), h, &[(&q, c), (&k, c), (&v, c)], true)?;
    let (h, _) = g.self_attention(&part("self_attn"), qkv, config.heads, true, false)?;
    let h = g.linear(&part("self_attn.out_proj"), h, c, true)?;
    let x = g.add(&part("self_attn"), h, x)?;
    let h = g.layer_norm(&part("layer_norm2"), x);
    let h = g.linear(&part("mlp.fc1"), h, config.mlp_width, true)?;
    let h = g.activate(&part("mlp"), activation(config), h);
    let h = g.linear(&part("mlp.fc2"), h, c, true)?;
    g.add(path, h, x)
}

fn activation(config: &TextConfig) -> Activation {
    match config.activation {
        config::Activation::QuickGelu => Activation::QuickGelu,
        config::Activation::Gelu => Activation::Gelu,
    }
}
