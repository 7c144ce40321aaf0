//! Which tensors are too large to be bound whole, and the pieces that they are kept in.
//!
//! A piece is a stretch of whole lines. All split tensors of one map size are split at the same
//! lines, so that what works position by position works piece by piece. Only plans for one row
//! split: with more rows the caller has the better remedy of taking fewer.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use super::fuse::Fused;
use super::{PlanOptions, tensor_bytes};
use crate::graph::{Graph, Op, Shape, Tensor};
use crate::kernels::attention;

/// Largest pictures are in some hundreds of pieces where bindings are smallest. More would be calls without end.
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
    /// Splits what `options` asks for. What cannot be split far enough stays whole: the planner
    /// refuses it by its size.
    pub fn new(graph: &Graph, nodes: &[Fused], options: &PlanOptions) -> Self {
        let mut split = Self { is_split: vec![false; graph.tensor_count()], maps: HashMap::new() };
        if options.rows > 1 {
            return split;
        }
        let large = too_large(graph, nodes, options);
        for (t, want) in &large {
            let shape = graph.shape(*t);
            let step = line_step(graph, nodes, options, &large, shape);
            // A convolution looks a line beyond its piece, from where a binding may begin.
            let most = want.lines.saturating_sub(if want.margin { 2 * step } else { 0 }) / step * step;
            if most == 0 {
                continue;
            }
            let pieces = shape.height.div_ceil(most);
            if pieces > MOST_PIECES {
                continue;
            }
            split.is_split[t.0] = true;
            // Even pieces rather than full ones and a rest.
            let lines = shape.height.div_ceil(pieces).next_multiple_of(step);
            let map = split.maps.entry(size(shape)).or_insert(SplitMap { lines, step });
            map.lines = map.lines.min(lines);
        }
        split
    }

    /// Whether `t` is kept in pieces.
    pub fn is_split(&self, t: Tensor) -> bool {
        self.is_split[t.0]
    }

    /// The lines at which maps of the size of `shape` are split, whether or not one is.
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

/// Lines that a piece may have.
struct PieceLimit {
    lines: usize,
    /// Whether room for neighbouring lines has to be left.
    margin: bool,
}

/// The tensors that have to be split.
fn too_large(graph: &Graph, nodes: &[Fused], options: &PlanOptions) -> BTreeMap<Tensor, PieceLimit> {
    let device = &options.device;
    // The caller fills and reads these whole; so is a tensor in which others stand.
    let outside = graph.inputs().iter().chain(graph.outputs()).map(|(_, t)| *t);
    let mut outside: HashSet<Tensor> = outside.chain(graph.wholes()).collect();
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
            let keys = attention::most_keys(heads, device.target);
            if shape.positions() > keys && !outside.contains(&kv) {
                let want = PieceLimit { lines: keys / shape.width, margin: false };
                let known = large.entry(kv).or_insert(want);
                known.lines = known.lines.min(keys / shape.width);
            }
        }
    }
    large
}

/// The number of lines of a map such that every multiple may begin a binding, in each tensor that
/// is bound in parts because it is `large` or stands beside one that is.
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
