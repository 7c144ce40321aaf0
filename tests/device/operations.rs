//! Operations that compute each value from what is at its position: how a graph gets them, and their references. An
//! operation that is listed here is run against its reference on random shapes, its shaders are checked in every
//! variant, and it is tried on any shape.

use crate::common::Rng;
use sagittal::Result;
use sagittal::internals::graph::{Activation, Graph, Shape, Tensor, Unary};
use sagittal::internals::kernels;

type Build = dyn Fn(&mut Graph, &[Tensor]) -> Result<Tensor>;
type Reference = dyn Fn(&[Shape], &[Vec<f64>]) -> Vec<f64>;

/// One operation.
pub struct Operation {
    /// For messages.
    pub name: &'static str,
    /// The shapes of its one or two operands, where the first has this one.
    pub shapes: fn(Shape) -> Vec<Shape>,
    /// Adds it to a graph.
    pub build: Box<Build>,
    /// Its result for one row, from the shapes and values of its operands.
    pub reference: Box<Reference>,
}

impl Operation {
    fn new(
        name: &'static str,
        shapes: fn(Shape) -> Vec<Shape>,
        build: impl Fn(&mut Graph, &[Tensor]) -> Result<Tensor> + 'static,
        reference: impl Fn(&[Shape], &[Vec<f64>]) -> Vec<f64> + 'static,
    ) -> Self {
        Self { name, shapes, build: Box::new(build), reference: Box::new(reference) }
    }
}

/// A random shape for an operation's first operand.
pub fn shape(rng: &mut Rng) -> Shape {
    Shape::new(rng.range(1, 9), rng.range(1, 9), 4 * rng.range(1, 20))
}

/// All of them.
pub fn operations() -> Vec<Operation> {
    let activation = |f: Activation| {
        Operation::new(
            "activate",
            |s| vec![s],
            move |g, t| Ok(g.unary("y", Unary::Activate(f), t[0])),
            move |_, x| x[0].iter().map(|v| kernels::activation_reference(Some(f), *v)).collect(),
        )
    };
    let mut all = Vec::from([Activation::Silu, Activation::Gelu, Activation::QuickGelu].map(activation));
    all.extend([
        Operation::new(
            "geglu",
            |s| vec![Shape { channels: 2 * s.channels, ..s }],
            |g, t| Ok(g.geglu("y", t[0])),
            |s, x| {
                let c = s[0].channels / 2;
                let gate = |v| kernels::activation_reference(Some(Activation::Gelu), v);
                x[0].chunks(2 * c).flat_map(|x| (0..c).map(move |i| x[i] * gate(x[c + i]))).collect()
            },
        ),
        Operation::new(
            "add",
            |s| vec![s, s],
            |g, t| g.add("y", t[0], t[1]),
            |_, x| x[0].iter().zip(&x[1]).map(|(a, b)| a + b).collect(),
        ),
        Operation::new(
            "add_vector",
            |s| vec![s, Shape::tokens(1, s.channels)],
            |g, t| g.add_vector("y", t[0], t[1]),
            |_, x| x[0].chunks(x[1].len()).flat_map(|a| a.iter().zip(&x[1]).map(|(a, b)| a + b)).collect(),
        ),
        Operation::new(
            "concat",
            |s| vec![s, Shape { channels: s.channels / 8 * 4 + 4, ..s }],
            |g, t| g.concat("y", t[0], t[1]),
            |s, x| {
                let parts = x[0].chunks(s[0].channels).zip(x[1].chunks(s[1].channels));
                parts.flat_map(|(a, b)| a.iter().chain(b).copied()).collect()
            },
        ),
        Operation::new(
            "channels",
            |s| vec![s],
            |g, t| g.channels("y", t[0], first_of_channels(g.shape(t[0])), 4),
            |s, x| {
                let first = first_of_channels(s[0]);
                x[0].chunks(s[0].channels).flat_map(|x| x[first..first + 4].to_vec()).collect()
            },
        ),
    ]);
    all
}

/// The first of four channels in the middle.
fn first_of_channels(shape: Shape) -> usize {
    shape.channels / 8 * 4
}
