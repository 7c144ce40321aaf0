//! Tensors that are slices of others: of the result of a merged product, or of a joined tensor that one copy moves.

use std::collections::HashSet;

use super::{Graph, Shape, Store, Tensor, TensorSlice};
use crate::{Error, Result};

impl Graph {
    /// The values of each row of `of` from `first` on, as a tensor of `shape`. The distance of its rows is larger than
    /// their length, which few kernels support: it can be the keys and values of
    /// [`cross_attention`](Self::cross_attention), and the vector that
    /// [`add_vector`](Self::add_vector) adds to a product.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if it is not within `of`, or not in multiples of four channels.
    pub fn part(&mut self, path: &str, of: Tensor, first: usize, shape: Shape) -> Result<Tensor> {
        let part = self.tensor(path, shape, Store::Elem);
        self.place(part, of, first)?;
        Ok(part)
    }

    /// A tensor of `values` values, computed by the tensors that are [placed](Self::place) in it.
    pub fn room(&mut self, path: &str, values: usize) -> Tensor {
        self.tensor(path, Shape::new(1, 1, values), Store::Elem)
    }

    /// Makes the operation that computes `tensor` write it into each row of `of`, from value `first` on. Only plans of
    /// one row support it.
    ///
    /// # Errors
    /// As [`part`](Self::part).
    pub fn place(&mut self, tensor: Tensor, of: Tensor, first: usize) -> Result<()> {
        let (inner, outer) = (self.shape(tensor), self.shape(of));
        let values = |s: Shape| s.positions().saturating_mul(s.channels);
        let inside = self.info(of).slice.is_some();
        let quads = [first, inner.channels, outer.channels].iter().all(|n| n.is_multiple_of(4));
        let within = first.saturating_add(values(inner)) <= values(outer) && of != tensor;
        match self.tensors.get_mut(tensor.0).filter(|_| quads && within && !inside) {
            Some(info) => info.slice = Some(TensorSlice { of, first }),
            None => {
                let path = &self.info(tensor).path;
                return Err(Error::usage("a tensor is not within another")
                    .at(path)
                    .expected(format!("a slice of {outer}, in multiples of four channels"))
                    .found(format!("{inner} at {first}")));
            }
        }
        Ok(())
    }

    /// Names `tensor` as a result that stays on the device, stored as other networks read it.
    pub fn keep(&mut self, name: &str, tensor: Tensor) {
        self.tensors.get_mut(tensor.0).into_iter().for_each(|info| info.kept = true);
        self.outputs.push((name.to_owned(), tensor));
    }

    /// Declares an input that another graph [keeps](Self::keep) by this name.
    pub fn kept_input(&mut self, name: &str, shape: Shape) -> Tensor {
        let tensor = self.input(name, shape);
        self.tensors.get_mut(tensor.0).into_iter().for_each(|info| info.kept = true);
        tensor
    }

    /// The tensors that others are slices of.
    pub fn sliced(&self) -> HashSet<Tensor> {
        self.tensors.iter().filter_map(|t| Some(t.slice?.of)).collect()
    }
}
