//! Fusion: neighbouring nodes become one kernel.
//!
//! * matrix product or convolution, then + vector, activation (not on CPU drivers), + residual (in this order): one
//!   product with an epilogue;
//! * group normalisation, then activation: one normalisation;
//! * product to values and gates, then value · gelu(gate): one product, if the device has a kernel for it.
//!
//! A fused node runs at the position of its last node, so that all its inputs are computed.

use std::collections::HashMap;

use super::PlanOptions;
use crate::graph::{Activation, Graph, Node, Op, Tensor, Unary};
use crate::kernels::gemm;

/// A node with the nodes that are fused into it.
#[derive(Debug, Clone)]
pub struct Fused {
    /// The main operation.
    pub op: Op,
    /// The layer's path.
    pub path: String,
    /// Operands of `op`.
    pub inputs: Vec<Tensor>,
    /// Results of the fused node.
    pub outputs: Vec<Tensor>,
    /// Added to a product at every position.
    pub vector: Option<Tensor>,
    /// Applied to the result.
    pub activation: Option<Activation>,
    /// Added last.
    pub residual: Option<Tensor>,
    /// The product gives values and gates, and the result is value · gelu(gate).
    pub gated: bool,
}

impl Fused {
    fn plain(node: &Node) -> Self {
        Self {
            op: node.op.clone(),
            path: node.path.clone(),
            inputs: node.inputs.clone(),
            outputs: node.outputs.clone(),
            vector: None,
            activation: None,
            residual: None,
            gated: false,
        }
    }

    /// A product that further nodes can be fused into.
    fn is_product(&self) -> bool {
        matches!(self.op, Op::Linear { .. } | Op::Conv3x3 { .. } | Op::Conv3x3Doubled { .. }) && !self.gated
    }

    /// A product with nothing fused into it.
    fn is_bare_product(&self) -> bool {
        self.is_product() && self.vector.is_none() && self.activation.is_none() && self.residual.is_none()
    }
}

/// The nodes of `graph`, fused, in an order in which they can run.
pub fn fuse(graph: &Graph, options: &PlanOptions) -> Vec<Fused> {
    let uses = count_uses(graph);
    // A node that was fused into a later one is None.
    let mut out: Vec<Option<Fused>> = Vec::with_capacity(graph.nodes().len());
    let mut maker: HashMap<Tensor, usize> = HashMap::new();
    for node in graph.nodes() {
        let mut fused = Fused::plain(node);
        // The node that computes `t`, if this node is the only one that reads it and `fits` is true.
        let sole = |t: Tensor, out: &[Option<Fused>], fits: &dyn Fn(&Fused) -> bool| {
            let at = *maker.get(&t)?;
            (uses[t.0] == 1 && out[at].as_ref().is_some_and(fits)).then_some(at)
        };
        let taken = match node.op {
            Op::AddVector => sole(node.inputs[0], &out, &Fused::is_bare_product),
            Op::Unary(Unary::Activate(_)) => sole(node.inputs[0], &out, &|f| {
                let product = gemm::takes_activation(&options.device) && f.is_product();
                f.activation.is_none()
                    && (product && f.residual.is_none() || matches!(f.op, Op::GroupNorm { .. }))
            }),
            Op::Add => {
                let fits = |f: &Fused| f.is_product() && f.residual.is_none();
                // The later of two products, so that the result of the other is complete.
                let [a, b] = [node.inputs[0], node.inputs[1]].map(|t| sole(t, &out, &fits));
                a.max(b).filter(|_| node.inputs[0] != node.inputs[1])
            }
            Op::Geglu => sole(node.inputs[0], &out, &|f| {
                let shapes = [f.inputs[0], node.outputs[0]].map(|t| graph.shape(t));
                matches!(f.op, Op::Linear { .. })
                    && f.is_bare_product()
                    && gemm::takes_gates(&options.device, options.precision(), shapes[0], shapes[1])
            }),
            _ => None,
        };
        if let Some(mut inner) = taken.and_then(|at| out[at].take()) {
            match node.op {
                Op::AddVector => inner.vector = Some(node.inputs[1]),
                Op::Unary(Unary::Activate(f)) => inner.activation = Some(f),
                Op::Geglu => inner.gated = true,
                Op::Add => {
                    let own = inner.outputs[0];
                    inner.residual = node.inputs.iter().copied().find(|t| *t != own);
                }
                _ => {}
            }
            inner.outputs.clone_from(&node.outputs);
            fused = inner;
        }
        for t in &fused.outputs {
            maker.insert(*t, out.len());
        }
        out.push(Some(fused));
    }
    out.into_iter().flatten().collect()
}

/// How often each tensor is read; being a result counts as one.
fn count_uses(graph: &Graph) -> Vec<usize> {
    let mut uses = vec![0; graph.tensor_count()];
    let read = graph.nodes().iter().flat_map(|n| {
        // Attention on a merged projection has the same tensor as two inputs, but reads it once.
        let twice = n.inputs.len() == 2 && n.inputs[0] == n.inputs[1];
        n.inputs[usize::from(twice)..].iter()
    });
    for t in read.chain(graph.outputs().iter().map(|(_, t)| t)) {
        uses[t.0] += 1;
    }
    uses
}
