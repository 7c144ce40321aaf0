//! What a kernel's bindings are called and hold.

/// What a buffer is bound for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// Its name in the shader.
    pub name: &'static str,
    /// What it holds.
    pub holds: Holds,
    /// The variant's constant that says how many of it there are, where that is not one of it. The number of each
    /// replaces the `$` of its name.
    pub count: Option<&'static str>,
    /// What it holds instead where that constant of a variant is true or more than 0.
    pub when: Option<(&'static str, Holds)>,
}

impl Binding {
    /// One binding.
    pub const fn new(name: &'static str, holds: Holds) -> Self {
        Self { name, holds, count: None, when: None }
    }

    /// As many bindings as the constant `count` of a variant says: none or one if it is false or true.
    pub const fn counted(name: &'static str, holds: Holds, count: &'static str) -> Self {
        Self { name, holds, count: Some(count), when: None }
    }

    /// The same, but it `holds` that where `constant` is true or more than 0.
    pub const fn when(self, constant: &'static str, holds: Holds) -> Self {
        Self { when: Some((constant, holds)), ..self }
    }
}

/// Shorthands for tables of bindings.
pub(super) const fn weight(name: &'static str) -> Binding {
    Binding::new(name, Holds::Weight)
}

pub(super) const fn input(name: &'static str) -> Binding {
    Binding::new(name, Holds::Input)
}

pub(super) const fn result(name: &'static str) -> Binding {
    Binding::new(name, Holds::Result)
}

pub(super) const fn updated(name: &'static str) -> Binding {
    Binding::new(name, Holds::Updated)
}

/// The scalars of `helpers/scalars.wgsl`, a kernel's first binding.
pub(super) const fn scalars() -> Binding {
    Binding::new("scalars", Holds::Scalars)
}

/// What is in a bound buffer. A device refuses a buffer that is bound for reading and for writing at once, and
/// activations share buffers: shaders declare all but weights for writing too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Holds {
    /// What never changes: `var<storage, read>`.
    Weight,
    /// What is read: `var<storage, read_write>`.
    Input,
    /// What is written and not read: `var<storage, read_write>`.
    Result,
    /// What is read and written, so that what was there before counts: `var<storage, read_write>`.
    Updated,
    /// A second uniform, beside the parameters: what changes while those stay.
    Scalars,
}
