//! Which tensors are too large for one binding, and the pieces that they are split into.
//!
//! A piece is a number of complete lines. All split tensors of one map size are split at the same lines, so that
//! operations that work position by position work piece by piece. Only plans for one row split tensors: with more rows
//! it is better to compute fewer rows at a time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use super::fuse::Fused;
use super::{PlanOptions, tensor_bytes};
use crate::graph::{Graph, Op, Shape, Tensor};
use crate::kernels::attention;

/// The largest pictures have some hundreds of pieces on devices with the smallest bindings. More pieces would be too
/// many calls.
const MOST_PIECES: usize = 1024;

/// Height and width of a map.
type Size = (usize, usize);

/// The pieces of split tensors.
pub struct Split {
    is_split: Vec<bool>,
    maps: HashMap<Size, SplitMap>,
}

/// How the maps of a size are split.
struct SplitMap {
    /// Lines of a piece.
    lines: usize,
    /// Every multiple of this many lines may begin a binding.
    step: usize,
}

impl Split {
    /// Splits the tensors that need it under `options`. A tensor that cannot be split far enough is not split, and is an
    /// error of the planner.
    pub fn new(graph: &Graph, nodes: &[Fused], options: &PlanOptions) -> Self {
        let mut split = Self { is_split: vec![false; graph.tensor_count()], maps: HashMap::new() };
        if options.rows > 1 {
            return split;
        }
        let large = too_large(graph, nodes, options);
        for (t, want) in &large {
            let shape = graph.shape(*t);
            let step = line_step(graph, nodes, options, &large, shape);
            // A convolution reads one line beyond its piece, and bindings begin at multiples of `step`.
            let most = want.lines.saturating_sub(if want.margin { 2 * step } else { 0 }) / step * step;
            if most == 0 {
                continue;
            }
            let pieces = shape.height.div_ceil(most);
            if pieces > MOST_PIECES {
                continue;
            }
            split.is_split[t.0] = true;
            // Pieces of equal size, rather than full ones and a small last one.
            let lines = shape.height.div_ceil(pieces).next_multiple_of(step);
            let map = split.maps.entry(size(shape)).or_insert(SplitMap { lines, step });
            map.lines = map.lines.min(lines);
        }
        split
    }

    /// Whether `t` is split.
    pub fn is_split(&self, t: Tensor) -> bool {
        self.is_split[t.0]
    }

    /// The lines of the pieces of maps with the size of `shape`.
    pub fn pieces(&self, shape: Shape) -> Vec<Range<usize>> {
        let h = shape.height;
        let lines = self.maps.get(&size(shape)).map_or(h, |m| m.lines).max(1);
        (0..h).step_by(lines).map(|at| at..(at + lines).min(h)).collect()
    }

    /// Every multiple of this many lines of such a map may begin a binding.
    pub fn step(&self, shape: Shape) -> usize {
        self.maps.get(&size(shape)).map_or(1, |m| m.step)
    }
}

/// The limits of a piece.
struct PieceLimit {
    /// Most lines.
    lines: usize,
    /// Whether neighbouring lines must fit into a binding too.
    margin: bool,
}

/// The tensors that have to be split.
fn too_large(graph: &Graph, nodes: &[Fused], options: &PlanOptions) -> BTreeMap<Tensor, PieceLimit> {
    let device = &options.device;
    // Inputs and outputs cannot be split, since the caller accesses them at once; nor can tensors with slices.
    let outside = graph.inputs().iter().chain(graph.outputs()).map(|(_, t)| *t);
    let mut outside: HashSet<Tensor> = outside.chain(graph.sliced()).collect();
    outside.extend((0..graph.tensor_count()).map(Tensor).filter(|t| graph.info(*t).slice.is_some()));
    let mut large = BTreeMap::new();
    for t in (0..graph.tensor_count()).map(Tensor).filter(|t| !outside.contains(t)) {
        let bytes = tensor_bytes(graph.info(t), 1, options.precision());
        if bytes > device.max_binding {
            let line = bytes / graph.shape(t).height as u64;
            large.insert(t, PieceLimit { lines: (device.max_binding / line) as usize, margin: true });
        }
    }
    for n in nodes {
        if let Op::Attention { heads, .. } = n.op {
            let kv = n.inputs[1];
            let shape = graph.shape(kv);
            let keys = attention::most_keys(heads, device);
            if shape.positions() > keys && !outside.contains(&kv) {
                let want = PieceLimit { lines: keys / shape.width, margin: false };
                let known = large.entry(kv).or_insert(want);
                known.lines = known.lines.min(keys / shape.width);
            }
        }
    }
    large
}

/// The number of lines of a map such that every multiple may begin a binding, in each tensor that is bound in pieces:
/// because it is `large`, or because it is an operand together with one that is.
fn line_step(
    graph: &Graph,
    nodes: &[Fused],
    options: &PlanOptions,
    large: &BTreeMap<Tensor, PieceLimit>,
    shape: Shape,
) -> usize {
    let is_large = |t: &Tensor| large.contains_key(t);
    let beside = nodes
        .iter()
        .map(|n| n.inputs.iter().chain(&n.outputs).chain(&n.residual).copied())
        .filter(|operands| operands.clone().any(|t| is_large(&t)))
        .flatten();
    let mut step = 1;
    for t in beside.filter(|t| size(graph.shape(*t)) == size(shape)) {
        let line = tensor_bytes(graph.info(t), 1, options.precision()) / shape.height as u64;
        while !(step as u64 * line).is_multiple_of(options.device.alignment) {
            step *= 2;
        }
    }
    step
}

fn size(shape: Shape) -> Size {
    (shape.height, shape.width)
}
