//! Variants of kernels, and one dispatch of a variant as data.

use std::fmt;

use super::{Class, CoreSpec, Form, Holds, KernelSpec, Matrices, Operand, Precision};

/// A line of a shader's generated header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Const {
    /// `const NAME = 4u;`
    U32(&'static str, u32),
    /// `const NAME = true;`
    Bool(&'static str, bool),
}

/// A kernel in one variant: what has to be compiled.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Variant {
    /// Which kernel.
    pub kernel: &'static KernelSpec,
    /// Constants of the header.
    pub consts: Vec<Const>,
    /// What sums, in a kernel of products.
    pub core: Option<&'static CoreSpec>,
    /// Storage precision.
    pub precision: Precision,
    /// Whether the result is f32 whatever the precision.
    pub out_f32: bool,
}

impl Variant {
    /// How its text is written.
    pub fn form(&self) -> Form {
        self.core.map_or(self.kernel.form, |core| core.form)
    }

    /// Whether it is for CPU drivers, where an invocation is a SIMD lane.
    pub fn is_simd(&self) -> bool {
        matches!(self.form(), Form::Simd { .. })
    }

    /// Whether it needs cooperative matrices.
    pub fn is_cooperative(&self) -> bool {
        self.form() == Form::Cooperative
    }

    /// The cooperative matrices that it is written for, if it uses them.
    pub fn matrices(&self) -> Option<Matrices> {
        let constant = |name| self.constant(name).filter(|_| self.is_cooperative());
        Some(Matrices { side: constant("SIDE")?, lanes: constant("LANES")? })
    }

    /// Name and contents of its bindings from 1 on.
    pub fn bindings(&self) -> Vec<(String, Holds)> {
        let of_core = self.core.map_or(&[][..], |core| core.bindings);
        let all = self.kernel.bindings.iter().chain(of_core);
        all.flat_map(|b| {
            let count = b.count.map_or(1, |name| self.constant(name).unwrap_or(0));
            let other = b.when.filter(|(name, _)| self.constant(name).is_some_and(|value| value > 0));
            let holds = other.map_or(b.holds, |(_, holds)| holds);
            (0..count).map(move |i| (b.name.replace('$', &i.to_string()), holds))
        })
        .collect()
    }

    /// The class of its work. Adding the parts of split-K counts as a product here; in a plan it is of the
    /// class of what it adds: [`classes`](crate::bench::profile::classes).
    pub fn class(&self) -> Class {
        match self.kernel.class {
            // An activation that is none copies.
            Class::Elementwise if self.constant("ACTIVATION") == Some(0) => Class::Copy,
            class => class,
        }
    }

    /// The value of its constant `name`: of a truth 1 or 0.
    pub(crate) fn constant(&self, name: &str) -> Option<u32> {
        self.consts.iter().find_map(|c| match *c {
            Const::U32(n, v) => (n == name).then_some(v),
            Const::Bool(n, v) => (n == name).then_some(v.into()),
        })
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kernel)?;
        if let Some(core) = self.core {
            write!(f, "+{core}")?;
        }
        write!(f, " {}", self.precision.name())?;
        if self.out_f32 {
            write!(f, ">f32")?;
        }
        for c in &self.consts {
            match c {
                Const::U32(n, v) => write!(f, " {n}={v}")?,
                Const::Bool(n, true) => write!(f, " {n}")?,
                Const::Bool(_, false) => {}
            }
        }
        Ok(())
    }
}

/// One dispatch as data.
#[derive(Debug, Clone)]
pub struct Call {
    /// What is run.
    pub variant: Variant,
    /// The uniform parameters, binding 0.
    pub params: Vec<u8>,
    /// Bindings from 1 on.
    pub operands: Vec<Operand>,
    /// Workgroups.
    pub groups: [u32; 3],
    /// The layer's path.
    pub path: String,
    /// Multiply-adds counted twice.
    pub flops: u64,
}
