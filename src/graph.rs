//! Networks as data: operations on tensors with shapes, each named by the path of its layer.
//!
//! A graph describes one *row* (a batch element: one image under one entry of the conditioning); the planner multiplies
//! it by the number of rows. Shapes are inferred and checked while the graph is built, so a checkpoint that does not fit
//! fails here, with the path of the layer, before any memory is allocated.

mod attention;
mod perturbation;
mod slices;
mod tensor;
mod weight;

use std::collections::HashMap;

use crate::{Error, ErrorKind, Result};
pub use perturbation::{Perturbation, Width};
pub use tensor::{Shape, Store, Tensor, TensorInfo, TensorSlice};
pub use weight::{Layout, Weight, WeightId};

/// A function applied to each value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// x·sigmoid(x).
    Silu,
    /// x·Φ(x), with the exact error function.
    Gelu,
    /// x·sigmoid(1.702 x), CLIP-L's approximation.
    QuickGelu,
}

/// Where a kernel finds queries, keys and values: channel offsets into merged projections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Heads {
    /// Number of heads.
    pub heads: usize,
    /// Channels of one head.
    pub dim: usize,
    /// First channel of the queries, keys and values in their tensors.
    pub offsets: [usize; 3],
}

/// An operation. Its inputs and outputs are in the [`Node`].
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// y = x·W + b at each position.
    Linear {
        /// `[in][out]`.
        weight: WeightId,
        /// `[out]`.
        bias: Option<WeightId>,
    },
    /// 3×3 convolution with `pad` zeros before each side; the zeros after follow from the shape.
    Conv3x3 {
        /// `[3][3][in][out]`.
        weight: WeightId,
        /// `[out]`.
        bias: WeightId,
        /// 1 or 2.
        stride: usize,
        /// Zeros before the first row and column.
        pad: usize,
    },
    /// The same with one zero on each side, of the map upsampled x2 (nearest). The last row or column of the upsampled
    /// map is missing if the size of the result is odd.
    Conv3x3Doubled {
        /// `[2][2][2][2][in][out]`: see [`Layout::Conv3x3Doubled`].
        weight: WeightId,
        /// `[out]`.
        bias: WeightId,
    },
    /// Normalises each of `groups` groups of channels over all positions, then scale and shift.
    GroupNorm {
        /// Scale, `[channels]`.
        gamma: WeightId,
        /// Shift, `[channels]`.
        beta: WeightId,
        /// Number of groups.
        groups: usize,
        /// Added to the variance.
        eps: f32,
    },
    /// Normalises the channels at each position, then scale and shift.
    LayerNorm {
        /// Scale, `[channels]`.
        gamma: WeightId,
        /// Shift, `[channels]`.
        beta: WeightId,
        /// Added to the variance.
        eps: f32,
    },
    /// softmax(q·kᵀ/√d)·v. Inputs: queries, keys-and-values (the same tensor when merged).
    /// With a second output: log-sum-exp of each query's scores, `[tokens, heads]`, f32.
    Attention {
        /// The heads, and the offsets of their channels.
        heads: Heads,
        /// Position i sees only positions ≤ i.
        causal: bool,
    },
    /// SAG's record: c\[j\] = mean over heads of Σ_i P\[i,j\], from queries, keys and log-sum-exp.
    /// Output `[tokens, 1]`, f32; P itself is never stored.
    AttentionColumns {
        /// The heads, and the offsets of their channels.
        heads: Heads,
    },
    /// What has one operand and keeps its shape.
    Unary(Unary),
    /// value · gelu(gate): the first half of the channels times the second half's GELU.
    Geglu,
    /// Sum of two tensors of one shape.
    Add,
    /// x plus a vector: one position, added at all positions of its row.
    AddVector,
    /// Channels of the first, then of the second.
    Concat,
    /// Some of the channels.
    Channels {
        /// The first of them.
        first: usize,
    },
}

/// An operation on one tensor that keeps its shape and has no weights: [`Graph::unary`] adds it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Unary {
    /// A function of each value.
    Activate(Activation),
    /// Each channel blurred along one axis of its map by a Gaussian: see
    /// [`kernels::blur`](crate::kernels::blur).
    Blur {
        /// Along columns rather than along lines.
        down: bool,
        /// Standard deviation in positions; infinity is the mean.
        sigma: f32,
    },
    /// The same values in another storage.
    Copy,
}

/// An operation with its operands.
#[derive(Debug, Clone)]
pub struct Node {
    /// The operation.
    pub op: Op,
    /// Operands.
    pub inputs: Vec<Tensor>,
    /// Results.
    pub outputs: Vec<Tensor>,
    /// The layer's path.
    pub path: String,
}

/// A network for one row.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    prefix: String,
    tensors: Vec<TensorInfo>,
    nodes: Vec<Node>,
    weights: Vec<Weight>,
    known: HashMap<Weight, WeightId>,
    inputs: Vec<(String, Tensor)>,
    outputs: Vec<(String, Tensor)>,
}

impl Graph {
    /// An empty graph; weights are looked up as `prefix` + path + `.weight`.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..Self::default() }
    }

    /// All nodes, in an order in which they can run.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Shape, storage and name of `tensor`; for a tensor of another graph they are empty.
    pub fn info(&self, tensor: Tensor) -> &TensorInfo {
        static NOTHING: TensorInfo = TensorInfo {
            shape: Shape { height: 0, width: 0, channels: 0 },
            store: Store::Elem,
            path: String::new(),
            slice: None,
            kept: false,
        };
        self.tensors.get(tensor.0).unwrap_or(&NOTHING)
    }

    /// Shape of `tensor` in one row.
    pub fn shape(&self, tensor: Tensor) -> Shape {
        self.info(tensor).shape
    }

    /// Number of tensors.
    pub fn tensor_count(&self) -> usize {
        self.tensors.len()
    }

    /// All weights.
    pub fn weights(&self) -> &[Weight] {
        &self.weights
    }

    /// Named inputs.
    pub fn inputs(&self) -> &[(String, Tensor)] {
        &self.inputs
    }

    /// Named outputs.
    pub fn outputs(&self) -> &[(String, Tensor)] {
        &self.outputs
    }

    /// Declares an input that the caller fills before each run.
    pub fn input(&mut self, name: &str, shape: Shape) -> Tensor {
        let tensor = self.tensor(name, shape, Store::Elem);
        self.inputs.push((name.to_owned(), tensor));
        tensor
    }

    /// Names `tensor`, which no operation reads, as a result; it is stored as f32, so that no precision is lost.
    pub fn output(&mut self, name: &str, tensor: Tensor) {
        if let Some(info) = self.tensors.get_mut(tensor.0).filter(|info| info.store == Store::Elem) {
            info.store = Store::F32;
        }
        self.outputs.push((name.to_owned(), tensor));
    }

    /// Names a copy of `tensor` as a result, to inspect a network.
    pub fn trace(&mut self, name: &str, tensor: Tensor) {
        let copy = self.unary(name, Unary::Copy, tensor);
        self.output(name, copy);
    }

    /// Matrix product at each position; weights `path.weight` `[out, in]`, `path.bias`.
    pub fn linear(&mut self, path: &str, x: Tensor, out: usize, bias: bool) -> Result<Tensor> {
        self.linear_merged(path, x, &[(path, out)], bias)
    }

    /// A 1×1 convolution, which in NHWC is a linear layer; weights `[out, in, 1, 1]` in the file.
    pub fn conv1x1(&mut self, path: &str, x: Tensor, out: usize) -> Result<Tensor> {
        self.conv1x1_merged(path, x, &[(path, out)])
    }

    /// Several 1×1 convolutions of one input as one product; the channels of the results are joined.
    pub fn conv1x1_merged(&mut self, path: &str, x: Tensor, parts: &[(&str, usize)]) -> Result<Tensor> {
        let c = self.shape(x).channels;
        let shapes = parts.iter().map(|&(_, n)| vec![n, c, 1, 1]).collect();
        self.product(path, x, parts, shapes, true)
    }

    /// Several linear layers of one input (Q, K and V) as one product; the channels of the results are joined.
    pub fn linear_merged(
        &mut self,
        path: &str,
        x: Tensor,
        parts: &[(&str, usize)],
        bias: bool,
    ) -> Result<Tensor> {
        let c = self.shape(x).channels;
        let shapes = parts.iter().map(|&(_, n)| vec![n, c]).collect();
        self.product(path, x, parts, shapes, bias)
    }

    /// A linear layer whose weight `[out, in]` and bias have other names (OpenCLIP's joined `in_proj_weight` and
    /// `in_proj_bias`).
    pub fn linear_named(&mut self, path: &str, x: Tensor, out: usize, weight: &str, bias: &str) -> Tensor {
        let shapes = vec![vec![out, self.shape(x).channels]];
        let names = [weight, bias].map(|n| vec![format!("{}{n}", self.prefix)]);
        let [weight, bias] = names;
        let weight = self.weight(Weight { sources: weight, shapes, layout: Layout::Linear });
        let bias = self.weight(Weight { sources: bias, shapes: vec![vec![out]], layout: Layout::Vector });
        let shape = Shape { channels: out, ..self.shape(x) };
        self.node(path, Op::Linear { weight, bias: Some(bias) }, &[x], shape)
    }

    fn product(
        &mut self,
        path: &str,
        x: Tensor,
        parts: &[(&str, usize)],
        shapes: Vec<Vec<usize>>,
        bias: bool,
    ) -> Result<Tensor> {
        // The joined results consist of quads: a width that is not a multiple of 4 would shift the next one.
        if parts.len() > 1 && parts.iter().any(|&(_, n)| !n.is_multiple_of(4)) {
            return Err(self.misfit(path, "merged widths that are multiples of 4", format!("{parts:?}")));
        }
        let names = |end: &str| parts.iter().map(|(p, _)| format!("{}{p}.{end}", self.prefix)).collect();
        let (weights, biases) = (names("weight"), names("bias"));
        let weight = self.weight(Weight { sources: weights, shapes, layout: Layout::Linear });
        let bias = bias.then(|| {
            let shapes = parts.iter().map(|&(_, n)| vec![n]).collect();
            self.weight(Weight { sources: biases, shapes, layout: Layout::Vector })
        });
        let out = parts.iter().fold(0usize, |sum, &(_, n)| sum.saturating_add(n));
        let shape = Shape { channels: out, ..self.shape(x) };
        Ok(self.node(path, Op::Linear { weight, bias }, &[x], shape))
    }

    /// 3×3 convolution: `stride` 1 keeps the size, 2 halves it rounding up. With `pad` 0 and
    /// stride 2 there are zeros only after the last row and column, as in the VAE's encoder.
    pub fn conv3x3(
        &mut self,
        path: &str,
        x: Tensor,
        out: usize,
        stride: usize,
        pad: usize,
    ) -> Result<Tensor> {
        let s = self.shape(x);
        if !(1..=2).contains(&stride) || pad > 1 {
            return Err(self.misuse(
                path,
                "a stride of 1 or 2, padding of 0 or 1",
                format!("{stride} and {pad}"),
            ));
        }
        // The padding at the end is 1 in both cases, so the last tap may be one beyond the end.
        let size = |n: usize| n.checked_add(pad + 1)?.checked_sub(3).map(|n| n / stride + 1);
        let (Some(height), Some(width)) = (size(s.height), size(s.width)) else {
            return Err(self.misfit(path, "an input of at least 2x2", s.to_string()));
        };
        let (weight, bias) = self.window_weights(path, s.channels, out, Layout::Conv3x3);
        let op = Op::Conv3x3 { weight, bias, stride, pad };
        Ok(self.node(path, op, &[x], Shape::new(height, width, out)))
    }

    /// Upsamples x2 by the nearest position to `height` × `width` (twice the size, or one less, since the size was
    /// halved rounding up), then a 3×3 convolution.
    pub fn conv3x3_doubled(
        &mut self,
        path: &str,
        x: Tensor,
        (height, width): (usize, usize),
        out: usize,
    ) -> Result<Tensor> {
        let s = self.shape(x);
        if (height.div_ceil(2), width.div_ceil(2)) != (s.height, s.width) {
            return Err(self.misfit(path, &format!("half of {height}x{width}, rounded up"), s.to_string()));
        }
        let (weight, bias) = self.window_weights(path, s.channels, out, Layout::Conv3x3Doubled);
        Ok(self.node(path, Op::Conv3x3Doubled { weight, bias }, &[x], Shape::new(height, width, out)))
    }

    fn window_weights(
        &mut self,
        path: &str,
        from: usize,
        out: usize,
        layout: Layout,
    ) -> (WeightId, WeightId) {
        let sources = vec![format!("{}{path}.weight", self.prefix)];
        let weight = self.weight(Weight { sources, shapes: vec![vec![out, from, 3, 3]], layout });
        (weight, self.vector(&format!("{path}.bias"), out))
    }

    /// Group normalisation with 32 groups, as in all networks of Stable Diffusion.
    pub fn group_norm(&mut self, path: &str, x: Tensor, eps: f32) -> Result<Tensor> {
        let shape = self.shape(x);
        if !shape.channels.is_multiple_of(32) {
            return Err(self.misfit(path, "channels in multiples of 32", shape.to_string()));
        }
        let gamma = self.vector(&format!("{path}.weight"), shape.channels);
        let beta = self.vector(&format!("{path}.bias"), shape.channels);
        Ok(self.node(path, Op::GroupNorm { gamma, beta, groups: 32, eps }, &[x], shape))
    }

    /// Layer normalisation over the channels, eps 1e-5.
    pub fn layer_norm(&mut self, path: &str, x: Tensor) -> Tensor {
        let shape = self.shape(x);
        let gamma = self.vector(&format!("{path}.weight"), shape.channels);
        let beta = self.vector(&format!("{path}.bias"), shape.channels);
        self.node(path, Op::LayerNorm { gamma, beta, eps: 1e-5 }, &[x], shape)
    }

    /// An operation on `x` that keeps its shape.
    pub fn unary(&mut self, path: &str, op: Unary, x: Tensor) -> Tensor {
        let shape = self.shape(x);
        self.node(path, Op::Unary(op), &[x], shape)
    }

    /// A function of each value.
    pub fn activate(&mut self, path: &str, f: Activation, x: Tensor) -> Tensor {
        self.unary(path, Unary::Activate(f), x)
    }

    /// value · gelu(gate), halving the channels.
    pub fn geglu(&mut self, path: &str, x: Tensor) -> Tensor {
        let s = self.shape(x);
        self.node(path, Op::Geglu, &[x], Shape { channels: s.channels / 2, ..s })
    }

    /// Sum of two tensors.
    pub fn add(&mut self, path: &str, a: Tensor, b: Tensor) -> Result<Tensor> {
        let (s, t) = (self.shape(a), self.shape(b));
        if s != t {
            return Err(self.misfit(path, &format!("two tensors of {s}"), t.to_string()));
        }
        Ok(self.node(path, Op::Add, &[a, b], s))
    }

    /// `x` plus `vector` (one position) at every position.
    pub fn add_vector(&mut self, path: &str, x: Tensor, vector: Tensor) -> Result<Tensor> {
        let (s, t) = (self.shape(x), self.shape(vector));
        if t.positions() != 1 || s.channels != t.channels {
            return Err(self.misfit(path, &format!("a vector of {}", s.channels), t.to_string()));
        }
        Ok(self.node(path, Op::AddVector, &[x, vector], s))
    }

    /// Channels of `a`, then of `b`.
    pub fn concat(&mut self, path: &str, a: Tensor, b: Tensor) -> Result<Tensor> {
        let (s, t) = (self.shape(a), self.shape(b));
        if (s.height, s.width) != (t.height, t.width) || !(s.channels | t.channels).is_multiple_of(4) {
            return Err(self.misfit(path, &format!("a map of {}x{}", s.height, s.width), t.to_string()));
        }
        let channels = s.channels.saturating_add(t.channels);
        Ok(self.node(path, Op::Concat, &[a, b], Shape { channels, ..s }))
    }

    /// `count` channels of `x` from `first` on, both multiples of four.
    pub fn channels(&mut self, path: &str, x: Tensor, first: usize, count: usize) -> Result<Tensor> {
        let s = self.shape(x);
        let end = first.saturating_add(count);
        if end > s.channels || count == 0 || !(first | count).is_multiple_of(4) {
            return Err(self.misfit(path, &format!("channels {first} to {end}"), s.to_string()));
        }
        Ok(self.node(path, Op::Channels { first }, &[x], Shape { channels: count, ..s }))
    }

    /// Blurs each channel over its map with standard deviation `sigma`, edges reflected; infinity
    /// gives the mean at every position.
    pub fn blur(&mut self, path: &str, x: Tensor, sigma: f32) -> Tensor {
        let across = self.blur_along(path, x, false, sigma);
        self.blur_along(path, across, true, sigma)
    }

    /// The same along lines, or `down` along columns.
    pub fn blur_along(&mut self, path: &str, x: Tensor, down: bool, sigma: f32) -> Tensor {
        self.unary(path, Unary::Blur { down, sigma }, x)
    }

    fn vector(&mut self, name: &str, len: usize) -> WeightId {
        let sources = vec![format!("{}{name}", self.prefix)];
        self.weight(Weight { sources, shapes: vec![vec![len]], layout: Layout::Vector })
    }

    fn weight(&mut self, weight: Weight) -> WeightId {
        *self.known.entry(weight.clone()).or_insert_with(|| {
            self.weights.push(weight);
            WeightId(self.weights.len() - 1)
        })
    }

    fn tensor(&mut self, path: &str, shape: Shape, store: Store) -> Tensor {
        self.tensors.push(TensorInfo { shape, store, path: path.to_owned(), slice: None, kept: false });
        Tensor(self.tensors.len() - 1)
    }

    fn node(&mut self, path: &str, op: Op, inputs: &[Tensor], shape: Shape) -> Tensor {
        let out = self.tensor(path, shape, Store::Elem);
        self.push(path, op, inputs, vec![out]);
        out
    }

    fn push(&mut self, path: &str, op: Op, inputs: &[Tensor], outputs: Vec<Tensor>) {
        self.nodes.push(Node { op, inputs: inputs.to_vec(), outputs, path: path.to_owned() });
    }

    fn misfit(&self, path: &str, expected: &str, found: String) -> Error {
        let error = Error::new(ErrorKind::Model, "a layer does not fit its input");
        error.at(format!("{}{path}", self.prefix)).expected(expected).found(found)
    }

    fn misuse(&self, path: &str, expected: &str, found: String) -> Error {
        let error = Error::usage("a layer has invalid arguments");
        error.at(format!("{}{path}", self.prefix)).expected(expected).found(found)
    }
}
