//! Kernels of one invocation a quad: `activate`, `geglu`, `add`, `concat`, `channels`.

use super::binding::{input, result};
use super::{
    Binding, Call, Class, Const, KernelSpec, Operand, Precision, Variant, activation_code, params, spread,
};
use crate::graph::{Activation, Shape};
use crate::shader::{File, file};

params! {
    /// Parameters as `shaders/helpers/grid.wgsl` reads them.
    pub struct Params {
        total: u32,
        width: u32,
        a4: u32,
        b4: u32,
        positions: u32,
        first4: u32,
    }
}

const fn spec(file: File, class: Class, bindings: &'static [Binding]) -> KernelSpec {
    KernelSpec::new(file, class, Params::FIELDS, bindings)
}

/// [`Elementwise::activate`]
pub static ACTIVATE: KernelSpec =
    spec(file!("kernels/activate"), Class::Elementwise, &[input("x"), result("y")]);

/// [`Elementwise::geglu`]
pub static GEGLU: KernelSpec = spec(file!("kernels/geglu"), Class::Elementwise, &[input("x"), result("y")]);

/// [`Elementwise::add`]
pub static ADD: KernelSpec =
    spec(file!("kernels/add"), Class::Elementwise, &[input("a"), input("b"), result("y")]);

/// [`Elementwise::concat`]
pub static CONCAT: KernelSpec =
    spec(file!("kernels/concat"), Class::Copy, &[input("a"), input("b"), result("y")]);

/// [`Elementwise::channels`]
pub static CHANNELS: KernelSpec = spec(file!("kernels/channels"), Class::Copy, &[input("x"), result("y")]);

/// What is common to the calls of this module.
#[derive(Debug, Clone, Copy)]
pub struct Elementwise<'a> {
    /// The layer's path.
    pub path: &'a str,
    /// Number of rows.
    pub rows: usize,
    /// Shape of the result in one row.
    pub output: Shape,
    /// Storage precision.
    pub precision: Precision,
    /// Result in f32.
    pub out_f32: bool,
}

impl Elementwise<'_> {
    fn call(
        &self,
        kernel: &'static KernelSpec,
        consts: Vec<Const>,
        [a4, b4]: [usize; 2],
        first4: usize,
        operands: Vec<Operand>,
    ) -> Call {
        let total = (self.rows * self.output.positions() * self.output.quads()) as u32;
        let [x, y] = spread(total.div_ceil(64));
        let params = Params {
            total,
            width: x * 64,
            a4: a4 as u32,
            b4: b4 as u32,
            positions: self.output.positions() as u32,
            first4: first4 as u32,
        };
        Call {
            variant: Variant { kernel, consts, core: None, precision: self.precision, out_f32: self.out_f32 },
            params: bytemuck::bytes_of(&params).to_vec(),
            operands,
            groups: [x, y, 1],
            path: self.path.to_owned(),
            flops: 4 * total as u64,
        }
    }

    /// y = f(x); without `f` a copy, which may change the storage.
    pub fn activate(&self, f: Option<Activation>, x: Operand, y: Operand) -> Call {
        let code = Const::U32("ACTIVATION", activation_code(f));
        self.call(&ACTIVATE, vec![code], [0, 0], 0, vec![x, y])
    }

    /// y = value · gelu(gate); x has twice the channels of y.
    pub fn geglu(&self, x: Operand, y: Operand) -> Call {
        let q = self.output.quads();
        self.call(&GEGLU, vec![Const::U32("ACTIVATION", 2)], [2 * q, q], 0, vec![x, y])
    }

    /// y = a + b, or with `broadcast` a + the one position of b.
    pub fn add(&self, broadcast: bool, a: Operand, b: Operand, y: Operand) -> Call {
        let q = self.output.quads();
        self.call(&ADD, vec![Const::Bool("BROADCAST", broadcast)], [q, q], 0, vec![a, b, y])
    }

    /// y = the channels of a (`a4` quads), then those of b.
    pub fn concat(&self, a4: usize, a: Operand, b: Operand, y: Operand) -> Call {
        self.call(&CONCAT, vec![], [a4, self.output.quads() - a4], 0, vec![a, b, y])
    }

    /// y = the channels of x (`x4` quads) from quad `first` on.
    pub fn channels(&self, x4: usize, first: usize, x: Operand, y: Operand) -> Call {
        self.call(&CHANNELS, vec![], [x4, self.output.quads()], first, vec![x, y])
    }
}
