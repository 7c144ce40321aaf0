//! A tensor as the checkpoint presents it: pieces of stored tensors, one after the other.
//!
//! Most have one piece under another name at most. Layouts differ in more than names, though: some
//! keep queries, keys and values in one matrix and some in three, and some keep a matrix transposed.
//! Nothing is copied for that; reads find the pieces they need.
#![warn(clippy::indexing_slicing, clippy::string_slice)]

use std::ops::Range;
use std::sync::Arc;

use super::dtype;
use super::header::{StoredTensor, TensorInfo};
use super::weight_file::WeightFile;
use crate::{Error, Result};

/// A tensor of a checkpoint.
#[derive(Clone)]
pub(super) struct Tensor {
    pub name: String,
    /// Shape as presented; the dtype is that of the first piece.
    pub info: TensorInfo,
    pieces: Vec<Piece>,
}

/// A stretch of a stored tensor.
#[derive(Clone)]
struct Piece {
    /// Index of the store that holds it.
    store: usize,
    stored: Arc<StoredTensor>,
    /// Flat elements, counted after transposing.
    elements: Range<usize>,
    transposed: bool,
}

impl Tensor {
    /// The whole of a stored tensor, under its own name.
    pub fn new(store: usize, stored: StoredTensor) -> Self {
        let (name, info) = (stored.name.clone(), stored.info.clone());
        let elements = 0..info.elements();
        Self { name, info, pieces: vec![Piece { store, stored: stored.into(), elements, transposed: false }] }
    }

    /// The same values under another name.
    pub fn renamed(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// The same values in another shape of as many elements.
    pub fn reshaped(mut self, shape: Vec<usize>) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), self.info.elements());
        self.info.shape = shape;
        self
    }

    /// `parts` one after the other along the first dimension; None unless there is at least one and the
    /// other dimensions agree.
    pub fn stacked(name: &str, parts: Vec<Tensor>) -> Option<Self> {
        let mut info = parts.first()?.info.clone();
        let (_, inner) = info.shape.split_first()?;
        if parts.iter().any(|p| p.info.shape.split_first().is_none_or(|(_, rest)| rest != inner)) {
            return None;
        }
        let rows = parts.iter().filter_map(|p| p.info.shape.first()).sum();
        *info.shape.first_mut()? = rows;
        Some(Self { name: name.into(), info, pieces: parts.into_iter().flat_map(|p| p.pieces).collect() })
    }

    /// Part `part` of `of` equal parts along the first dimension; None if it cannot be cut so.
    pub fn part(&self, part: usize, of: usize) -> Option<Self> {
        let [piece] = self.pieces.as_slice() else { return None };
        let mut info = self.info.clone();
        let first = info.shape.first_mut().filter(|size| size.is_multiple_of(of))?;
        *first /= of;
        let (len, start) = (info.elements(), piece.elements.start);
        let elements = start + part * len..start + (part + 1) * len;
        Some(Self { name: self.name.clone(), info, pieces: vec![Piece { elements, ..piece.clone() }] })
    }

    /// The matrix with rows and columns exchanged; None if it is no matrix in one piece.
    pub fn transposed(mut self) -> Option<Self> {
        let [piece] = self.pieces.as_mut_slice() else { return None };
        if self.info.shape.len() != 2 || piece.elements != (0..self.info.elements()) {
            return None;
        }
        piece.transposed = !piece.transposed;
        self.info.shape.reverse();
        Some(self)
    }

    /// The same tensor after its stores were moved `by` places.
    pub fn moved(mut self, by: usize) -> Self {
        self.pieces.iter_mut().for_each(|p| p.store += by);
        self
    }

    /// The store that holds the beginning.
    pub fn store(&self) -> usize {
        self.pieces.first().map_or(0, |p| p.store)
    }

    /// What the file calls it, or what its beginning is cut out of.
    pub fn stored_name(&self) -> &str {
        self.pieces.first().map_or(&self.name, |p| &p.stored.name)
    }

    /// Refuses a dtype that does not decode to numbers.
    pub fn floating(&self, stores: &[WeightFile]) -> Result<()> {
        match self.pieces.iter().find(|p| !dtype::is_floating(p.stored.info.dtype)) {
            Some(piece) => Err(piece.file(stores)?.not_floating(&piece.stored, &self.name)),
            None => Ok(()),
        }
    }

    /// Whether all of its values are numbers of f16, by the dtypes of what it is made of.
    pub fn fits_f16(&self) -> bool {
        self.pieces.iter().all(|p| dtype::fits_f16(p.stored.info.dtype))
    }

    /// The stored bytes, where they lie in one stretch and in this order.
    pub fn raw<'a>(&self, stores: &'a [WeightFile]) -> Result<Option<&'a [u8]>> {
        match self.pieces.as_slice() {
            [piece] if !piece.transposed => {
                let bytes = piece.file(stores)?.bytes(&piece.stored)?;
                let width = piece.stored.info.dtype.bitsize() / 8;
                let own = piece.elements.start * width..piece.elements.end * width;
                let own = |bytes: &'a [u8]| {
                    bytes.get(own).ok_or_else(|| Error::internal("a piece beyond its tensor").at(&self.name))
                };
                bytes.map(own).transpose()
            }
            _ => Ok(None),
        }
    }

    /// Appends the elements `range` to `out`.
    pub fn decode(&self, stores: &[WeightFile], range: Range<usize>, out: &mut Vec<f32>) -> Result<()> {
        let mut start = 0;
        for piece in &self.pieces {
            let end = start + piece.elements.len();
            // What the range and this piece have in common, counted from the piece's start.
            let (from, to) = (range.start.max(start), range.end.min(end));
            if from < to {
                let skip = piece.elements.start;
                let wanted = skip + from - start..skip + to - start;
                piece.decode(piece.file(stores)?, &self.name, wanted, out)?;
            }
            start = end;
        }
        Ok(())
    }
}

impl Piece {
    /// The file that holds it.
    fn file<'s>(&self, stores: &'s [WeightFile]) -> Result<&'s WeightFile> {
        stores.get(self.store).ok_or_else(|| Error::internal("a tensor of no file").at(&self.stored.name))
    }

    #[expect(clippy::indexing_slicing, reason = "all rows and columns were decoded on the line before")]
    fn decode(&self, store: &WeightFile, name: &str, range: Range<usize>, out: &mut Vec<f32>) -> Result<()> {
        if !self.transposed {
            return store.decode(&self.stored, name, range, out);
        }
        let [rows, columns] = *self.stored.info.shape.as_slice() else {
            return Err(Error::internal("a transposed tensor that is no matrix"));
        };
        // Only small matrices are kept transposed, and they are read once.
        let mut whole = Vec::new();
        store.decode(&self.stored, name, 0..rows * columns, &mut whole)?;
        out.extend(range.map(|i| whole[i % rows * columns + i / rows]));
        Ok(())
    }
}
