//! The registry: one spec a kernel, from which all else that must know of every kernel derives: the list of
//! shader files, the form of a variant's text, the classes of profiles, and what tests hold shaders to.
//!
//! A new kernel costs a WGSL file, a module with its `SPEC`, and an entry in the list of [`Kernel`]. If no
//! network's graph leads to it, its spec has [`samples`](KernelSpec::samples), by which tests know it. A file that
//! several shaders import costs a line in `src/shader/files.rs`.

use super::sag_degrade;
use super::{Call, Field, Variant, attention, attention_columns, blur, cfg_rescale, combine, elementwise};
use super::{entries_mean, error_norm, gemm, group_norm, layer_norm, network_input, network_output, repack};
use crate::shader::File;

/// Defines an enum of all specs of a kind, so that what is listed, known and compared is one thing.
macro_rules! registry {
    ($(#[$doc:meta])* $kind:ident: $of:ident { $($entry:ident = $spec:path,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $kind {
            $(#[doc = concat!("`", stringify!($spec), "`")] $entry,)*
        }

        impl $kind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$entry),*];

            /// What is known of it.
            pub fn spec(self) -> &'static $of {
                match self {
                    $(Self::$entry => &$spec,)*
                }
            }
        }

        /// The name of its file.
        impl std::fmt::Display for $kind {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let name = self.spec().file.name;
                f.pad(name.rsplit('/').next().unwrap_or(name))
            }
        }
    };
}

registry! {
    /// Every kernel.
    Kernel: KernelSpec {
        Activate = elementwise::ACTIVATE,
        Add = elementwise::ADD,
        AttentionBlocks = attention::BLOCKS,
        AttentionColumns = attention_columns::SPEC,
        AttentionDeepLanes = attention::lanes::DEEP,
        AttentionDeepMatrices = attention::matrices::DEEP,
        AttentionLanes = attention::lanes::SPEC,
        AttentionMatrices = attention::matrices::SPEC,
        AttentionMerge = attention::MERGE,
        AttentionTile = attention::TILE,
        Blur = blur::SPEC,
        CfgRescale = cfg_rescale::SPEC,
        Channels = elementwise::CHANNELS,
        Combine = combine::SPEC,
        Concat = elementwise::CONCAT,
        Conv2d = gemm::CONV2D,
        Conv2dEdge = gemm::edge::SPEC,
        EntriesMean = entries_mean::SPEC,
        ErrorNorm = error_norm::SPEC,
        Geglu = elementwise::GEGLU,
        GemmMerge = gemm::split::MERGE,
        GroupNormApply = group_norm::APPLY,
        GroupNormLanes = group_norm::LANES_STATS,
        GroupNormMerge = group_norm::MERGE,
        GroupNormStats = group_norm::STATS,
        LayerNorm = layer_norm::SPEC,
        Matmul = gemm::MATMUL,
        NetworkInput = network_input::SPEC,
        NetworkOutput = network_output::SPEC,
        Repack = repack::SPEC,
        SagDegrade = sag_degrade::SPEC,
    }
}

registry! {
    /// What sums the products of [`Kernel::Matmul`] and [`Kernel::Conv2d`], which say what is multiplied.
    Core: CoreSpec {
        Few = gemm::FEW,
        Lanes = gemm::lanes::CORE,
        Matrices = gemm::matrices::CORE,
        Tile = gemm::TILE,
    }
}

/// What is known of a kernel.
#[derive(Debug)]
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
    /// Calls for tests in every variant that no network's graph leads to.
    pub samples: fn() -> Vec<Call>,
}

impl KernelSpec {
    /// A kernel of plain WGSL that networks lead to.
    pub(super) const fn new(
        file: File,
        class: Class,
        params: &'static [Field],
        bindings: &'static [Binding],
    ) -> Self {
        Self { file, class, form: Form::Plain, params, bindings, samples: Vec::new }
    }

    /// The same in another form.
    pub(super) const fn form(self, form: Form) -> Self {
        Self { form, ..self }
    }

    /// The same with calls of its own for tests.
    pub(super) const fn samples(self, samples: fn() -> Vec<Call>) -> Self {
        Self { samples, ..self }
    }
}

/// What is known of a core.
#[derive(Debug)]
pub struct CoreSpec {
    /// Its part of a shader.
    pub file: File,
    /// How the text of a variant with it is written.
    pub form: Form,
    /// Bindings that come after the kernel's own.
    pub bindings: &'static [Binding],
}

/// How the text of a shader is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// Plain WGSL.
    Plain,
    /// For CPU drivers, where an invocation is a SIMD lane: lanes share what they load where they can.
    Lanes {
        /// The constant that counts what they have in common.
        shares: &'static str,
    },
    /// With cooperative matrices of 16×16×16 in f16, or these written out.
    Matrices,
}

/// What a buffer is bound for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// Its name in the shader.
    pub name: &'static str,
    /// What it holds.
    pub holds: Holds,
    /// The variant's constant that says how many of it there are, where that is not one of it. The number of each
    /// stands for the `$` of its name.
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

/// What stands in a bound buffer. A device refuses a buffer that is bound for reading and for writing at once, and
/// activations share buffers: shaders declare all but weights for writing too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Holds {
    /// What never changes: `var<storage, read>`.
    Weight,
    /// What is read: `var<storage, read_write>`.
    Input,
    /// What is written and not read: `var<storage, read_write>`.
    Result,
    /// What is read and written, so that what stood there before counts: `var<storage, read_write>`.
    Updated,
    /// A second uniform, beside the parameters: what changes while those stay.
    Scalars,
}

impl Variant {
    /// How its text is written.
    pub fn form(&self) -> Form {
        self.core.map_or(self.kernel.spec().form, |core| core.spec().form)
    }

    /// Whether it is for CPU drivers, where an invocation is a SIMD lane.
    pub fn lanes(&self) -> bool {
        matches!(self.form(), Form::Lanes { .. })
    }

    /// Whether it needs cooperative matrices.
    pub fn matrices(&self) -> bool {
        self.form() == Form::Matrices
    }

    /// Name and contents of its bindings from 1 on.
    pub fn bindings(&self) -> Vec<(String, Holds)> {
        let of_core = self.core.map_or(&[][..], |core| core.spec().bindings);
        let all = self.kernel.spec().bindings.iter().chain(of_core);
        all.flat_map(|b| {
            let count = b.count.map_or(1, |name| self.constant(name).unwrap_or(0));
            let other = b.when.filter(|(name, _)| self.constant(name).is_some_and(|value| value > 0));
            let holds = other.map_or(b.holds, |(_, holds)| holds);
            (0..count).map(move |i| (b.name.replace('$', &i.to_string()), holds))
        })
        .collect()
    }
}

/// Kinds of work that have ceilings of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// 3×3 convolutions.
    Convolution,
    /// Matrix products, 1×1 convolutions among them.
    Linear,
    /// Attention and its records.
    Attention,
    /// Group and layer normalisation.
    Norm,
    /// Activations and sums that no product took in.
    Elementwise,
    /// Values that only change place: concatenation, some of the channels.
    Copy,
    /// Around a network's calls: what a sampling step does with latents.
    Latent,
}

impl Class {
    /// All, in the order of tables.
    pub const ALL: [Class; 7] = [
        Class::Convolution,
        Class::Linear,
        Class::Attention,
        Class::Norm,
        Class::Elementwise,
        Class::Copy,
        Class::Latent,
    ];

    /// What tables call it.
    pub fn name(self) -> &'static str {
        match self {
            Class::Convolution => "convolution",
            Class::Linear => "linear",
            Class::Attention => "attention",
            Class::Norm => "norm",
            Class::Elementwise => "elementwise",
            Class::Copy => "copy",
            Class::Latent => "latent",
        }
    }

    /// The class of a variant. Adding the parts of a divided depth counts as a product here; in a plan it is of the
    /// class of what it adds: [`classes`](crate::bench::profile::classes).
    pub fn of(variant: &Variant) -> Self {
        match variant.kernel.spec().class {
            // An activation that is none copies.
            Class::Elementwise if variant.constant("ACTIVATION") == Some(0) => Class::Copy,
            class => class,
        }
    }
}
