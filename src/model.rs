//! The networks of Stable Diffusion as graph builders. They know shapes and names, no GPU.

pub mod config;
mod infer;
pub mod unet;
pub mod vae;

pub use crate::families::{Family, Prediction};
pub use config::{DiffusionConfig, ModelConfig};

use crate::Result;
use crate::graph::{Graph, Tensor};

/// A graph in the making; layers whose paths are in `wanted` become results of their own.
struct Builder {
    graph: Graph,
    wanted: Vec<String>,
}

impl Builder {
    fn new(prefix: &str, wanted: &[String]) -> Self {
        Self { graph: Graph::new(prefix), wanted: wanted.to_vec() }
    }

    /// Notes that `tensor` is what the module `path` makes.
    fn mark(&mut self, path: &str, tensor: Tensor) {
        if self.wanted.iter().any(|w| w == path) {
            self.graph.trace(path, tensor);
        }
    }

    /// norm → SiLU → 3×3 convolution, the half of every residual block.
    fn norm_conv(&mut self, norm: &str, conv: &str, x: Tensor, out: usize, eps: f32) -> Result<Tensor> {
        let h = self.graph.group_norm(norm, x, eps)?;
        let h = self.graph.activate(norm, crate::graph::Activation::Silu, h);
        self.graph.conv3x3(conv, h, out, 1, 1)
    }
}
