//! The pieces of tensors: what a call on some lines of a map binds.

use std::ops::Range;

use crate::graph::{Graph, Shape, Store, Tensor};
use crate::kernels::gemm::Window;
use crate::kernels::{Buf, Operand, Stretch, Strided};
use crate::plan::fuse::Fused;
use crate::plan::split::Split;
use crate::plan::{PlanOptions, tensor_bytes};
use crate::{Error, ErrorKind, Result};

/// All tensors of a graph with their pieces, and the temporaries of calls.
pub struct TensorPieces<'a> {
    graph: &'a Graph,
    options: &'a PlanOptions,
    split: Split,
    /// By tensor; one piece unless it is split.
    kept: Vec<Vec<(Range<usize>, Buf)>>,
    /// Name and bytes of every buffer, the first pieces of all tensors first.
    pub sizes: Vec<(String, u64)>,
    /// How each buffer stores a tensor; None for temporaries.
    pub stores: Vec<Option<Store>>,
}

impl<'a> TensorPieces<'a> {
    pub fn new(graph: &'a Graph, options: &'a PlanOptions, split: Split) -> Self {
        let (kept, sizes, stores) = (Vec::new(), Vec::new(), Vec::new());
        let mut parts = Self { graph, options, split, kept, sizes, stores };
        let tensors = || (0..graph.tensor_count()).map(Tensor);
        for t in tensors() {
            let first = &parts.lines(t)[0];
            let info = graph.info(t);
            // A slice of another tensor needs no memory of its own.
            let bytes = if info.slice.is_some() { 0 } else { first.len() as u64 * parts.line_bytes(t) };
            parts.sizes.push((info.path.clone(), bytes));
            parts.stores.push(Some(info.store));
        }
        for t in tensors() {
            let mut kept = Vec::new();
            for lines in parts.lines(t) {
                let buf = match lines.start {
                    0 => Buf(t.0),
                    from => {
                        let name = format!("{}, from line {from}", graph.info(t).path);
                        let buf = parts.temporary(name, lines.len() as u64 * parts.line_bytes(t)).buf;
                        parts.stores[buf.0] = Some(graph.info(t).store);
                        buf
                    }
                };
                kept.push((lines, buf));
            }
            parts.kept.push(kept);
        }
        parts
    }

    fn lines(&self, t: Tensor) -> Vec<Range<usize>> {
        self.pieces_if(self.split.is_split(t), self.graph.shape(t))
    }

    /// The lines of each piece of a map of this shape; one piece if it is not split.
    fn pieces_if(&self, split: bool, shape: Shape) -> Vec<Range<usize>> {
        if split { self.split.pieces(shape) } else { std::iter::once(0..shape.height).collect() }
    }

    /// A temporary of `bytes`.
    pub fn temporary(&mut self, name: String, bytes: u64) -> Stretch {
        self.sizes.push((name, bytes));
        self.stores.push(None);
        Stretch { buf: Buf(self.sizes.len() - 1), offset: 0, bytes }
    }

    /// Bytes of a line of `t`, all rows.
    pub fn line_bytes(&self, t: Tensor) -> u64 {
        let height = self.graph.shape(t).height as u64;
        tensor_bytes(self.graph.info(t), self.options.rows, self.options.precision()) / height
    }

    /// The lines of each piece of `t`.
    pub fn pieces(&self, t: Tensor) -> Vec<Range<usize>> {
        self.kept[t.0].iter().map(|(lines, _)| lines.clone()).collect()
    }

    /// The piece that contains all of `lines`.
    pub fn piece_around(&self, t: Tensor, lines: &Range<usize>) -> Option<Range<usize>> {
        self.kept[t.0].iter().map(|(piece, _)| piece).find(|p| holds(p, lines)).cloned()
    }

    fn stretch(&self, t: Tensor, lines: &Range<usize>) -> Result<Stretch> {
        if self.graph.info(t).slice.is_some() {
            let path = &self.graph.info(t).path;
            return Err(Error::usage("a layer cannot read a slice of another tensor").at(path));
        }
        let (piece, buf) = self.kept[t.0].iter().find(|(piece, _)| holds(piece, lines)).ok_or_else(|| {
            Error::internal(format!("no piece of {} contains lines {lines:?}", self.graph.info(t).path))
        })?;
        let line = self.line_bytes(t);
        let offset = (lines.start - piece.start) as u64 * line;
        Ok(Stretch { buf: *buf, offset, bytes: lines.len() as u64 * line })
    }

    pub fn read(&self, t: Tensor, lines: &Range<usize>) -> Result<Operand> {
        Ok(Operand::Read(self.stretch(t, lines)?))
    }

    pub fn write(&self, t: Tensor, lines: &Range<usize>) -> Result<Operand> {
        // Results have no strides; with one row they need none.
        let is_slice_of_one_row = self.options.rows == 1 && self.graph.info(t).slice.is_some();
        match self.strided(t, lines) {
            Ok(Strided { operand: Operand::Read(s), first: 0, .. }) if is_slice_of_one_row => {
                Ok(Operand::Write(s))
            }
            _ => Ok(Operand::Write(self.stretch(t, lines)?)),
        }
    }

    /// As [`read`](Self::read) for a tensor that may be a slice of another, which is never split.
    pub fn strided(&self, t: Tensor, lines: &Range<usize>) -> Result<Strided> {
        let shape = self.graph.shape(t);
        let own = lines.len() * shape.width * shape.quads();
        let Some(slice) = self.graph.info(t).slice.filter(|_| *lines == (0..shape.height)) else {
            return Ok(Strided { operand: self.read(t, lines)?, first: 0, row: own });
        };
        let outer = self.graph.shape(slice.of);
        let row = outer.positions() * outer.quads();
        let quad = 4 * self.options.precision().bytes();
        // The binding begins at a multiple of the alignment; the kernel adds the remaining offset.
        let bound = (slice.first as u64 / 4 * quad) / self.options.device.alignment;
        let offset = bound * self.options.device.alignment;
        let first = slice.first / 4 - (offset / quad) as usize;
        let bytes = ((self.options.rows - 1) * row + first + own) as u64 * quad;
        Ok(Strided { operand: Operand::Read(Stretch { buf: Buf(slice.of.0), offset, bytes }), first, row })
    }

    /// All of `t`, which is not split.
    pub fn whole(&self, t: Tensor) -> Result<Operand> {
        self.read(t, &(0..self.graph.shape(t).height))
    }

    pub fn write_whole(&self, t: Tensor) -> Result<Operand> {
        self.write(t, &(0..self.graph.shape(t).height))
    }

    /// The lines of each call for `n`, for operations that work position by position: the pieces of such maps, if any
    /// operand is split.
    pub fn of(&self, n: &Fused) -> Vec<Range<usize>> {
        let shape = self.graph.shape(n.outputs[0]);
        let here = |t: &&Tensor| same_map(self.graph.shape(**t), shape);
        let mut operands = n.inputs.iter().chain(&n.outputs).chain(&n.residual).filter(here);
        self.pieces_if(operands.any(|t| self.split.is_split(*t)), shape)
    }

    /// The lines of each call for `n`, for operations that read their input through `window`: few enough that the lines
    /// which they need of a split input can be gathered.
    pub fn windows(&self, n: &Fused, window: &Window) -> Result<Vec<Range<usize>>> {
        let (x, y) = (n.inputs[0], n.outputs[0]);
        let split = |t: &Tensor| self.split.is_split(*t);
        let (shape, height) = (self.graph.shape(y), self.graph.shape(x).height);
        let outer = self.pieces_if(split(&y) || n.residual.as_ref().is_some_and(split), shape);
        if !split(&x) {
            return Ok(outer);
        }
        let step = self.split.step(shape);
        let most = self.options.device.max_binding / self.line_bytes(x);
        let fits = |lines: &Range<usize>| self.widened(x, &window.lines(lines, height)).len() as u64 <= most;
        let mut lines = Vec::new();
        for outer in outer {
            let mut length = outer.len();
            while !evenly(&outer, length).all(|l| fits(&l)) {
                if length <= step {
                    return Err(too_large(&n.path, format!("a window over lines of {most} at most")));
                }
                length = (length / 2).next_multiple_of(step);
            }
            lines.extend(evenly(&outer, length));
        }
        Ok(lines)
    }

    /// `lines` of `t`, extended to lines at which bindings may begin and end.
    pub fn widened(&self, t: Tensor, lines: &Range<usize>) -> Range<usize> {
        let shape = self.graph.shape(t);
        let step = self.split.step(shape);
        lines.start / step * step..lines.end.next_multiple_of(step).min(shape.height)
    }
}

fn holds(piece: &Range<usize>, lines: &Range<usize>) -> bool {
    piece.start <= lines.start && lines.end <= piece.end
}

fn same_map(a: Shape, b: Shape) -> bool {
    (a.height, a.width) == (b.height, b.width)
}

fn evenly(lines: &Range<usize>, length: usize) -> impl Iterator<Item = Range<usize>> {
    let end = lines.end;
    lines.clone().step_by(length).map(move |at| at..(at + length).min(end))
}

/// A part of a temporary.
pub fn within(room: Stretch, offset: u64, bytes: u64) -> Stretch {
    Stretch { offset: room.offset + offset, bytes, ..room }
}

pub fn too_large(path: &str, found: String) -> Error {
    Error::new(ErrorKind::Memory, "a layer is too large for this device, even in pieces")
        .at(path.to_owned())
        .expected("lines of the map that the device can bind one by one")
        .found(found)
        .hint("use a smaller picture or fewer rows at a time")
}
