//! From fused nodes to kernel calls: chooses kernels and variants.

mod pieces;

use std::ops::Range;

use super::fuse::Fused;
use super::split::Split;
use super::{PlanOptions, Storage, check};
use crate::graph::{Graph, Heads, Op, Shape, Store, Tensor, Unary, WeightId};
use crate::kernels::attention::{self, Attention};
use crate::kernels::elementwise::Elementwise;
use crate::kernels::gemm::{self, Epilogue, Gemm, Window};
use crate::kernels::group_norm::GroupNorm;
use crate::kernels::{self, Call, DeviceProfile, Operand, Precision, Strided};
use crate::{Error, Result};
use pieces::TensorPieces;

/// The calls, and name and bytes of every buffer: first the tensors of the graph, then further pieces of split tensors,
/// and temporaries.
pub struct Lowered {
    /// In the order in which they run.
    pub calls: Vec<Call>,
    /// By [`Buf`](crate::kernels::Buf) number.
    pub sizes: Vec<(String, u64)>,
    /// By the same number: how the buffer stores a tensor; None for temporaries.
    pub stores: Vec<Option<Store>>,
}

/// Chooses kernels and variants for `nodes`.
///
/// # Errors
/// [`ErrorKind::Memory`](crate::ErrorKind::Memory) naming the layer that cannot be split far enough.
pub fn lower(graph: &Graph, nodes: &[Fused], options: &PlanOptions) -> Result<Lowered> {
    let pieces = TensorPieces::new(graph, options, Split::new(graph, nodes, options));
    // First, since later numbers must fit the counters of kernels.
    check::buffers(graph, &pieces.sizes, options)?;
    let mut lowering = Lowering {
        graph,
        rows: options.rows,
        precision: options.precision(),
        storage: &options.storage,
        device: &options.device,
        pieces,
        calls: Vec::new(),
    };
    for node in nodes {
        lowering.node(node)?;
    }
    Ok(Lowered { calls: lowering.calls, sizes: lowering.pieces.sizes, stores: lowering.pieces.stores })
}

struct Lowering<'a> {
    graph: &'a Graph,
    rows: usize,
    precision: Precision,
    storage: &'a Storage,
    device: &'a DeviceProfile,
    pieces: TensorPieces<'a>,
    calls: Vec<Call>,
}

impl Lowering<'_> {
    fn node(&mut self, n: &Fused) -> Result<()> {
        if n.inputs.iter().any(|t| self.graph.info(*t).store == Store::F32) {
            return Err(
                Error::usage("a layer reads a result of the network, which is stored as f32").at(&n.path)
            );
        }
        match n.op {
            Op::Conv3x3 { weight, bias, stride, pad } => {
                self.windows(n, Window { stride, pad, upsampled: None }, weight, bias)?;
            }
            Op::Conv3x3Doubled { weight, bias } => {
                let seen = self.graph.shape(n.outputs[0]);
                let upsampled = Some((seen.height, seen.width));
                self.windows(n, Window { stride: 1, pad: 1, upsampled }, weight, bias)?;
            }
            Op::GroupNorm { gamma, beta, groups, eps } => {
                let norm = GroupNorm {
                    path: &n.path,
                    rows: self.rows,
                    channels: self.graph.shape(n.inputs[0]).channels,
                    groups,
                    eps,
                    activation: n.activation,
                    gamma_beta: [Operand::Weight(gamma), Operand::Weight(beta)],
                    precision: self.precision,
                    out_f32: self.out_f32(n),
                };
                self.group_norm(n, &norm)?;
            }
            Op::Linear { weight, bias } => {
                let bias = bias.map_or(Operand::Unused, Operand::Weight);
                for lines in self.pieces.of(n) {
                    self.gemm(n, None, &lines, weight, bias)?;
                }
            }
            Op::Attention { heads, causal } => self.attention(n, heads, causal)?,
            Op::AttentionColumns { heads } => self.attention_columns(n, heads)?,
            Op::Unary(Unary::Blur { down, sigma }) => self.blur(n, down, sigma)?,
            _ => {
                for lines in self.pieces.of(n) {
                    let call = self.pointwise(n, &lines)?;
                    self.calls.push(call);
                }
            }
        }
        Ok(())
    }

    /// Operations that work position by position.
    fn pointwise(&self, n: &Fused, lines: &Range<usize>) -> Result<Call> {
        let x = self.pieces.read(n.inputs[0], lines)?;
        let y = self.pieces.write(n.outputs[0], lines)?;
        let each = self.each(n, lines);
        let other = || self.pieces.read(n.inputs[1], lines);
        Ok(match n.op {
            Op::LayerNorm { gamma, beta, eps } => {
                let norm = kernels::layer_norm::LayerNorm {
                    path: &n.path,
                    rows: self.rows,
                    shape: self.part(n.inputs[0], lines),
                    eps,
                    gamma_beta: [Operand::Weight(gamma), Operand::Weight(beta)],
                    precision: self.precision,
                    out_f32: self.out_f32(n),
                };
                kernels::layer_norm::call(&norm, self.device, x, y)
            }
            Op::Unary(Unary::Activate(f)) => each.activate(Some(f), x, y),
            Op::Unary(Unary::Copy) => each.activate(None, x, y),
            Op::Geglu => each.geglu(x, y),
            Op::Add => each.add(false, x, other()?, y),
            Op::AddVector => each.add(true, x, self.pieces.whole(n.inputs[1])?, y),
            Op::Channels { first } => each.channels(self.graph.shape(n.inputs[0]).quads(), first / 4, x, y),
            Op::Concat => each.concat(self.graph.shape(n.inputs[0]).quads(), x, other()?, y),
            _ => return Err(Error::internal(format!("{} does not work position by position", n.path))),
        })
    }

    fn windows(&mut self, n: &Fused, window: Window, weight: WeightId, bias: WeightId) -> Result<()> {
        let bias = Operand::Weight(bias);
        for lines in self.pieces.windows(n, &window)? {
            let from = self.reach(n, &window, &lines)?;
            self.gemm(n, Some((window, from)), &lines, weight, bias)?;
        }
        Ok(())
    }

    /// The product of `n` for `lines` of its result; a window comes with the lines that it reads, and the first of them.
    fn gemm(
        &mut self,
        n: &Fused,
        window: Option<(Window, (Operand, usize))>,
        lines: &Range<usize>,
        weight: WeightId,
        bias: Operand,
    ) -> Result<()> {
        let stored = self.storage.of_weight(&self.graph.weights()[weight.0]);
        if stored != self.precision && !gemm::takes_f16_weights(self.device) {
            let why = "has a weight in f16 beside values in f32, which no kernel of this device reads";
            return Err(Error::usage(format!("{} {why}", n.path)));
        }
        let read = |t: Option<Tensor>| t.map_or(Ok(Operand::Unused), |t| self.pieces.read(t, lines));
        let (x, first, input) = match window {
            Some((_, (x, first))) => (x, first, self.graph.shape(n.inputs[0])),
            None => (self.pieces.read(n.inputs[0], lines)?, lines.start, self.part(n.inputs[0], lines)),
        };
        let g = Gemm {
            path: &n.path,
            rows: self.rows,
            input,
            output: self.part(n.outputs[0], lines),
            window: window.map(|(w, _)| w),
            first_lines: [first, lines.start],
            x,
            w: Operand::Weight(weight),
            w_precision: stored,
            y: self.pieces.write(n.outputs[0], lines)?,
            epilogue: Epilogue {
                bias,
                vector: n.vector.map_or(Ok(Strided::UNUSED), |t| self.pieces.strided(t, &(0..1)))?,
                activation: n.activation,
                residual: read(n.residual)?,
                gated: n.gated,
            },
            precision: self.precision,
            out_f32: self.out_f32(n),
        };
        let room = |bytes| self.pieces.temporary(format!("{}.parts", n.path), bytes);
        self.calls.extend(gemm::calls(&g, self.device, room)?);
        Ok(())
    }

    fn group_norm(&mut self, n: &Fused, norm: &GroupNorm<'_>) -> Result<()> {
        let (x, y) = (n.inputs[0], n.outputs[0]);
        let parts = self.pieces.of(n);
        let positions = |lines: &Range<usize>| self.part(x, lines).positions();
        let spans = |lines: &Range<usize>| norm.spans(positions(lines), self.device);
        let total: usize = parts.iter().map(spans).sum();
        let stats = self.pieces.temporary(format!("{}.stats", n.path), norm.stats_bytes());
        let of_spans = match total {
            1 => stats,
            _ => self.pieces.temporary(format!("{}.spans", n.path), norm.span_bytes(total)),
        };
        let mut first = 0;
        for lines in &parts {
            let of = (self.part(x, lines).positions(), first, total);
            let x = self.pieces.read(x, lines)?;
            self.calls.push(norm.stats(self.device, of, x, Operand::Write(of_spans)));
            first += norm.spans(of.0, self.device);
        }
        if total > 1 {
            self.calls.push(norm.merge(total, Operand::Read(of_spans), Operand::Write(stats)));
        }
        for lines in &parts {
            let (from, to) = (self.pieces.read(x, lines)?, self.pieces.write(y, lines)?);
            self.calls.push(norm.apply(self.device, self.part(x, lines), from, Operand::Read(stats), to));
        }
        Ok(())
    }

    /// Attention: the queries of some lines at a time, over all pieces of the keys.
    fn attention(&mut self, n: &Fused, heads: Heads, causal: bool) -> Result<()> {
        let (q, kv, y) = (n.inputs[0], n.inputs[1], n.outputs[0]);
        let keys = self.pieces.pieces(kv);
        let longest = keys.iter().map(|k| self.part(kv, k).positions()).max().unwrap_or(0);
        if longest > attention::most_keys(heads, self.device) || causal && keys.len() > 1 {
            return Err(pieces::too_large(&n.path, format!("attention over {longest} keys in one part")));
        }
        for lines in self.pieces.of(n) {
            let lse = n.outputs.get(1).map_or(Ok(Operand::Unused), |t| self.pieces.write(*t, &lines))?;
            let all = Attention {
                path: &n.path,
                rows: self.rows,
                heads,
                q: self.part(q, &lines),
                kv: self.graph.shape(kv),
                merged: q == kv,
                causal,
                precision: self.precision,
                out_f32: self.out_f32(n),
            };
            let from = self.pieces.read(q, &lines)?;
            let to = self.pieces.write(y, &lines)?;
            let mut before: Option<[Operand; 2]> = None;
            for (i, key_lines) in keys.iter().enumerate() {
                let last = i + 1 == keys.len();
                let a = Attention {
                    kv: self.part(kv, key_lines),
                    merged: q == kv && lines == *key_lines,
                    out_f32: all.out_f32 || keys.len() > 1,
                    ..all
                };
                let at = self.pieces.strided(kv, key_lines)?;
                let (o, l) = if keys.len() == 1 { ([to; 2], [lse; 2]) } else { self.partial(&all) };
                self.calls.push(attention::call(&a, self.device, from, at, o[1], l[1])?);
                before = match before {
                    None => Some([o[0], l[0]]),
                    Some(before) => {
                        let (to, lse) = if last { ([to; 2], [lse; 2]) } else { self.partial(&all) };
                        let merged = Attention { out_f32: all.out_f32 || !last, ..all };
                        self.calls.push(attention::merge(&merged, before, [o[0], l[0]], to[1], lse[1]));
                        Some([to[0], lse[0]])
                    }
                };
            }
        }
        Ok(())
    }

    /// Temporaries for the result and the log-sum-exp of attention over some of the keys, each as operand to read and to
    /// write.
    fn partial(&mut self, a: &Attention<'_>) -> ([Operand; 2], [Operand; 2]) {
        let queries = (a.q.positions() * a.heads.heads) as u64;
        let mut room = |what: &str, bytes: u64| {
            let stretch = self.pieces.temporary(format!("{}.{what}", a.path), bytes);
            [Operand::Read(stretch), Operand::Write(stretch)]
        };
        (room("of_keys", queries * a.heads.dim as u64 * 4), room("of_keys.lse", queries * 4))
    }

    fn attention_columns(&mut self, n: &Fused, heads: Heads) -> Result<()> {
        let (qkv, lse, y) = (n.inputs[0], n.inputs[1], n.outputs[0]);
        let shape = self.graph.shape(qkv);
        let fits = kernels::attention_columns::fits(heads, shape.positions(), self.device);
        if !fits || self.pieces.pieces(qkv).len() > 1 {
            return Err(pieces::too_large(&n.path, format!("a record of {} tokens", shape.positions())));
        }
        let (rows, precision, path) = (self.rows, self.precision, &n.path);
        let (q, kv, merged, causal, out_f32) = (shape, shape, true, false, true);
        let a = Attention { path, rows, heads, q, kv, merged, causal, precision, out_f32 };
        let lines = 0..shape.height;
        let (qkv, lse) = (self.pieces.read(qkv, &lines)?, self.pieces.whole(lse)?);
        let columns = self.pieces.write_whole(y)?;
        self.calls.push(kernels::attention_columns::call(&a, qkv, lse, columns));
        Ok(())
    }

    fn blur(&mut self, n: &Fused, down: bool, sigma: f32) -> Result<()> {
        let (x, y) = (n.inputs[0], n.outputs[0]);
        if self.pieces.pieces(x).len() > 1 {
            return Err(pieces::too_large(&n.path, format!("a blur of {}", self.graph.shape(x))));
        }
        let blur = kernels::blur::Blur {
            path: &n.path,
            rows: self.rows,
            shape: self.graph.shape(x),
            down,
            sigma,
            precision: self.precision,
            out_f32: self.out_f32(n),
        };
        let (from, to) = (self.pieces.whole(x)?, self.pieces.write_whole(y)?);
        self.calls.push(kernels::blur::call(&blur, from, to));
        Ok(())
    }

    /// The lines of the input that `window` needs for `lines` of the result, and the first of them: a part of one piece,
    /// or gathered from several pieces.
    fn reach(&mut self, n: &Fused, window: &Window, lines: &Range<usize>) -> Result<(Operand, usize)> {
        let x = n.inputs[0];
        let want = window.lines(lines, self.graph.shape(x).height);
        if let Some(piece) = self.pieces.piece_around(x, &want) {
            return Ok((self.pieces.read(x, &piece)?, piece.start));
        }
        let want = self.pieces.widened(x, &want);
        let line = self.pieces.line_bytes(x);
        let room = self.pieces.temporary(format!("{}.lines", n.path), want.len() as u64 * line);
        for piece in self.pieces.pieces(x) {
            let common = piece.start.max(want.start)..piece.end.min(want.end);
            if common.is_empty() {
                continue;
            }
            let to =
                pieces::within(room, (common.start - want.start) as u64 * line, common.len() as u64 * line);
            let copy = Elementwise {
                path: &n.path,
                rows: self.rows,
                output: self.part(x, &common),
                precision: self.precision,
                out_f32: false,
            };
            let from = self.pieces.read(x, &common)?;
            self.calls.push(copy.activate(None, from, Operand::Write(to)));
        }
        Ok((Operand::Read(room), want.start))
    }

    fn each<'n>(&self, n: &'n Fused, lines: &Range<usize>) -> Elementwise<'n> {
        Elementwise {
            path: &n.path,
            rows: self.rows,
            output: self.part(n.outputs[0], lines),
            precision: self.precision,
            out_f32: self.out_f32(n),
        }
    }

    fn out_f32(&self, n: &Fused) -> bool {
        self.graph.info(n.outputs[0]).store == Store::F32
    }

    /// The shape of `lines` of `t`.
    fn part(&self, t: Tensor, lines: &Range<usize>) -> Shape {
        Shape { height: lines.len(), ..self.graph.shape(t) }
    }
}
