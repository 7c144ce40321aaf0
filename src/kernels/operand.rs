//! Memory as calls name it.

use crate::graph::WeightId;

/// A stretch of device memory that calls read and write; the planner gives it a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Buf(pub usize);

/// A part of a [`Buf`], bytes. A tensor that is too large to be bound is bound in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stretch {
    /// Of what.
    pub buf: Buf,
    /// First byte, where a binding may begin.
    pub offset: u64,
    /// Length.
    pub bytes: u64,
}

/// What a binding holds, in the order of the shader's binding numbers from 1 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operand {
    /// Read by the call.
    Read(Stretch),
    /// Written by the call.
    Write(Stretch),
    /// A weight, read.
    Weight(WeightId),
    /// What changes from step to step, a uniform of [`latents::SCALARS`](super::latents::SCALARS) vec4s: networks have none.
    Scalars,
    /// Not used in this variant.
    Unused,
}

/// What each row has a stretch of, in quads of one binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strided {
    /// The binding.
    pub operand: Operand,
    /// Where the first row's stretch begins.
    pub first: usize,
    /// From a row's stretch to the next row's.
    pub row: usize,
}

impl Strided {
    /// Not used in this variant.
    pub const UNUSED: Self = Self { operand: Operand::Unused, first: 0, row: 0 };
}
