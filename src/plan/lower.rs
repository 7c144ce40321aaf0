//! From fused nodes to kernel calls.

use super::fuse::Fused;
use super::{Options, tensor_bytes};
use crate::graph::{Graph, Op, Store, Tensor};
use crate::kernels::attention::{self, Attention};
use crate::kernels::elementwise::Elementwise;
use crate::kernels::gemm::{self, Epilogue, Gemm, Window};
use crate::kernels::group_norm::{self, GroupNorm};
use crate::kernels::layer_norm::{self, LayerNorm};
use crate::kernels::{Buf, Call, Operand, attention_columns};
use crate::{Error, Result};

/// Calls, and the name and bytes of every buffer: the graph's tensors first, then temporaries.
pub struct Lowered {
    /// In order.
    pub calls: Vec<Call>,
    /// By [`Buf`] number.
    pub sizes: Vec<(String, u64)>,
}

/// Chooses kernels and variants for `nodes`.
pub fn lower(graph: &Graph, nodes: &[Fused], options: &Options) -> Result<Lowered> {
    let sizes = (0..graph.tensor_count())
        .map(|t| {
            let info = graph.info(Tensor(t));
            (info.path.clone(), tensor_bytes(info, options.rows, options.precision))
        })
        .collect();
    let mut lowering = Lowering { graph, options, out: Lowered { calls: Vec::new(), sizes } };
    for node in nodes {
        lowering.node(node)?;
    }
    Ok(lowering.out)
}

struct Lowering<'a> {
    graph: &'a Graph,
    options: &'a Options,
    out: Lowered,
}

fn read(t: Tensor) -> Operand {
    Operand::Read(Buf(t.0))
}

fn write(t: Tensor) -> Operand {
    Operand::Write(Buf(t.0))
}

impl Lowering<'_> {
    fn node(&mut self, n: &Fused) -> Result<()> {
        let (rows, precision, target) =
            (self.options.rows, self.options.precision, self.options.device.target);
        let path = &n.path;
        let y = n.outputs[0];
        let x = n.inputs[0];
        let shape = self.graph.shape(x);
        let output = self.graph.shape(y);
        let out_f32 = self.graph.info(y).store == Store::F32;
        if n.inputs.iter().any(|t| self.graph.info(*t).store == Store::F32) {
            return Err(Error::internal(format!("{path} reads a result that is stored for the way out")));
        }
        let each = Elementwise { path, rows, output, precision, out_f32 };
        match n.op {
            Op::Linear { weight, bias } => {
                let bias = bias.map_or(Operand::Unused, Operand::Weight);
                self.gemm(n, None, Operand::Weight(weight), bias);
            }
            Op::Conv3x3 { weight, bias, stride, pad } => {
                let window = Window { stride, pad, upsample: n.upsample.is_some() };
                self.gemm(n, Some(window), Operand::Weight(weight), Operand::Weight(bias));
            }
            Op::GroupNorm { gamma, beta, groups, eps } => {
                let gamma_beta = [Operand::Weight(gamma), Operand::Weight(beta)];
                let activation = n.activation;
                let norm =
                    GroupNorm { path, rows, shape, groups, eps, activation, gamma_beta, precision, out_f32 };
                let stats = self.temporary(format!("{path}.stats"), group_norm::stats_bytes(rows, groups));
                let stats = [Operand::Read(stats), Operand::Write(stats)];
                self.out.calls.extend(group_norm::calls(&norm, read(x), stats, write(y)));
            }
            Op::LayerNorm { gamma, beta, eps } => {
                let gamma_beta = [Operand::Weight(gamma), Operand::Weight(beta)];
                let norm = LayerNorm { path, rows, shape, eps, gamma_beta, precision, out_f32 };
                self.out.calls.push(layer_norm::call(&norm, target, read(x), write(y)));
            }
            Op::Attention { heads, causal } => {
                let kv = n.inputs[1];
                let merged = x == kv;
                let (q, kv_shape) = (shape, self.graph.shape(kv));
                let a = Attention { path, rows, heads, q, kv: kv_shape, merged, causal, precision, out_f32 };
                let lse = n.outputs.get(1).map_or(Operand::Unused, |t| write(*t));
                self.out.calls.push(attention::call(&a, target, read(x), read(kv), write(y), lse));
            }
            Op::AttentionColumns { heads } => {
                let (q, kv, merged, causal) = (shape, shape, true, false);
                let a = Attention { path, rows, heads, q, kv, merged, causal, precision, out_f32 };
                self.out.calls.push(attention_columns::call(&a, read(x), read(n.inputs[1]), write(y)));
            }
            Op::Activate(f) => self.out.calls.push(each.activate(Some(f), read(x), write(y))),
            Op::Copy => self.out.calls.push(each.activate(None, read(x), write(y))),
            Op::Geglu => self.out.calls.push(each.geglu(read(x), write(y))),
            Op::Add => self.out.calls.push(each.add(false, read(x), read(n.inputs[1]), write(y))),
            Op::AddVector => self.out.calls.push(each.add(true, read(x), read(n.inputs[1]), write(y))),
            Op::Concat => {
                let call = each.concat(shape.quads(), read(x), read(n.inputs[1]), write(y));
                self.out.calls.push(call);
            }
            Op::Upsample2x => self.out.calls.push(each.upsample(read(x), write(y))),
        }
        Ok(())
    }

    fn gemm(&mut self, n: &Fused, window: Option<Window>, w: Operand, bias: Operand) {
        let (x, y) = (n.inputs[0], n.outputs[0]);
        let epilogue = Epilogue {
            bias,
            vector: n.vector.map_or(Operand::Unused, read),
            activation: n.activation,
            residual: n.residual.map_or(Operand::Unused, read),
        };
        let g = Gemm {
            path: &n.path,
            rows: self.options.rows,
            input: self.graph.shape(n.upsample.unwrap_or(x)),
            output: self.graph.shape(y),
            window,
            x: read(x),
            w,
            y: write(y),
            epilogue,
            precision: self.options.precision,
            out_f32: self.graph.info(y).store == Store::F32,
        };
        self.out.calls.push(gemm::call(&g, self.options.device.target));
    }

    fn temporary(&mut self, name: String, bytes: u64) -> Buf {
        self.out.sizes.push((name, bytes));
        Buf(self.out.sizes.len() - 1)
    }
}
