//! What guidance and samplers need of a denoising network of any structure.

use super::RowKind;
use crate::Result;
use crate::graph::{Graph, Weight};
use crate::model::config::UnetConfig;
use crate::model::unet;

/// A denoising network: the graphs of its calls, and the sizes that its callers need. The timestep is an input as
/// [`time_embedding`](unet::time_embedding) encodes it.
pub trait DenoisingNetwork: Send + Sync {
    /// The graph of a call for rows of `kind`. Its inputs are `x` `[height, width, in_channels]`, scaled to a
    /// variance of 1, `time` `[1, timestep_channels]`, and what [`conditioning`](Self::conditioning) keeps, by the
    /// same names; its results are `out` `[height, width, out_channels]`, and
    /// [`COLUMNS`](unet::COLUMNS) if `kind` records them.
    ///
    /// # Errors
    /// [`ErrorKind::Model`](crate::ErrorKind::Model) if the network does not support `kind`.
    fn graph(&self, kind: RowKind) -> Result<Graph>;

    /// The graph that computes, once for each prompt of `tokens`, the tensors that rows read at every step.
    ///
    /// # Errors
    /// [`ErrorKind::Model`](crate::ErrorKind::Model) if layers do not fit.
    fn conditioning(&self, tokens: usize) -> Result<Graph>;

    /// The weights of all its graphs, the same for rows of any kind. The last ones are streamed first if memory is
    /// short, so those that each step needs come first.
    ///
    /// # Errors
    /// As [`graph`](Self::graph).
    fn weights(&self) -> Result<Vec<Weight>>;

    /// Channels of `x`.
    fn in_channels(&self) -> usize;

    /// Channels of `out`: those of a latent.
    fn out_channels(&self) -> usize;

    /// Values of a timestep's embedding.
    fn timestep_channels(&self) -> usize;
}

impl DenoisingNetwork for UnetConfig {
    fn graph(&self, kind: RowKind) -> Result<Graph> {
        let RowKind { size, tokens, record, perturbation } = kind;
        unet::build(self, &unet::Options { size, tokens, record, perturbation, trace: Vec::new() })
    }

    fn conditioning(&self, tokens: usize) -> Result<Graph> {
        unet::conditioning(self, tokens)
    }

    fn weights(&self) -> Result<Vec<Weight>> {
        unet::weights(self)
    }

    fn in_channels(&self) -> usize {
        self.in_channels
    }

    fn out_channels(&self) -> usize {
        self.out_channels
    }

    fn timestep_channels(&self) -> usize {
        self.model_channels
    }
}
