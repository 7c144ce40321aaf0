//! What is known of a kernel for all that goes through every kernel: one [`KernelSpec`] each, from which the rest
//! derives: the text of a variant, the classes of profiles, and what tests hold shaders to.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use super::{Binding, Class, Field};
use crate::shader::File;

/// What is known of a kernel.
pub struct KernelSpec {
    /// Its shader.
    pub file: File,
    /// The kind of its work.
    pub class: Class,
    /// How its text is written; that of a kernel with a core is the core's.
    pub form: Form,
    /// The uniform at binding 0.
    pub params: &'static [Field],
    /// Bindings from 1 on, in order.
    pub bindings: &'static [Binding],
}

impl KernelSpec {
    /// A kernel of plain WGSL.
    pub(super) const fn new(
        file: File,
        class: Class,
        params: &'static [Field],
        bindings: &'static [Binding],
    ) -> Self {
        Self { file, class, form: Form::Plain, params, bindings }
    }

    /// The same in another form.
    pub(super) const fn form(self, form: Form) -> Self {
        Self { form, ..self }
    }
}

/// What is known of a core: what sums the products of a kernel that says what is multiplied.
pub struct CoreSpec {
    /// Its part of a shader.
    pub file: File,
    /// How the text of a variant with it is written.
    pub form: Form,
    /// Bindings that come after the kernel's own.
    pub bindings: &'static [Binding],
}

/// A spec is known by the name of its file, in `shaders/kernels` or `shaders/cores`.
macro_rules! known_by_name {
    ($($spec:ident)*) => {
        $(
            impl $spec {
                /// The name of its file, without folders.
                pub fn name(&self) -> &'static str {
                    self.file.name.rsplit('/').next().unwrap_or(self.file.name)
                }
            }

            impl PartialEq for $spec {
                fn eq(&self, other: &Self) -> bool {
                    self.file.name == other.file.name
                }
            }

            impl Eq for $spec {}

            impl Hash for $spec {
                fn hash<H: Hasher>(&self, state: &mut H) {
                    self.file.name.hash(state);
                }
            }

            impl PartialOrd for $spec {
                fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                    Some(self.cmp(other))
                }
            }

            impl Ord for $spec {
                fn cmp(&self, other: &Self) -> Ordering {
                    self.file.name.cmp(other.file.name)
                }
            }

            impl fmt::Display for $spec {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.pad(self.name())
                }
            }

            impl fmt::Debug for $spec {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.pad(self.name())
                }
            }
        )*
    };
}

known_by_name!(KernelSpec CoreSpec);

/// How the text of a shader is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// Plain WGSL.
    Plain,
    /// For CPU drivers, where an invocation is a SIMD lane: lanes share what they load where they can.
    Simd {
        /// The constant that counts what they have in common.
        shares: &'static str,
    },
    /// With cooperative matrices of f16, or these written out.
    Cooperative,
}
