//! WGSL files. Those of kernels and cores stand in their specs; the others, which they share, stand here.

use crate::kernels::{Core, Kernel};

/// A WGSL file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct File {
    /// Its path in `shaders/` without `.wgsl`.
    pub name: &'static str,
    /// What stands in it.
    pub text: &'static str,
}

/// The file of that name in `shaders/`.
macro_rules! file {
    ($name:literal) => {
        $crate::shader::File {
            name: $name,
            text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $name, ".wgsl")),
        }
    };
}
pub(crate) use file;

macro_rules! shared {
    ($($file:ident $name:literal,)*) => {
        $(pub(super) const $file: File = file!($name);)*

        /// What `#import` lines name, and what variants choose from.
        const SHARED: &[File] = &[$($file),*];
    };
}

shared! {
    ACTIVATION "shared/activation",
    ATTENTION "shared/attention",
    ATTENTION_QUADS "shared/attention_quads",
    ELEM_F16 "shared/elem_f16",
    ELEM_F32 "shared/elem_f32",
    ELEM_HALF "shared/elem_half",
    EPILOGUE "shared/epilogue",
    GEMM "shared/gemm",
    GRID "shared/grid",
    LANES_ALONE "shared/lanes_alone",
    LATENTS "shared/latents",
    MOMENTS "shared/moments",
    OUT_ELEM "shared/out_elem",
    OUT_F32 "shared/out_f32",
    ROWS "shared/rows",
    SCALARS "shared/scalars",
    SOFTWARE_MATRICES "shared/software_matrices",
    SUM_ALL "shared/sum_all",
    SURROUNDS "shared/surrounds",
    WEIGHT_HALF "shared/weight_half",
    WEIGHT_LONG_HALF "shared/weight_long_half",
    WEIGHT_WIDE "shared/weight_wide",
    WIDE_EIGHT "shared/wide_eight",
    WIDE_ELEM "shared/wide_elem",
    WIDE_LONG_F16 "shared/wide_long_f16",
    WIDE_LONG_F32 "shared/wide_long_f32",
}

/// All files: of kernels, of cores, and what these share.
pub fn files() -> impl Iterator<Item = &'static File> {
    let kernels = Kernel::ALL.iter().map(|k| &k.spec().file);
    let cores = Core::ALL.iter().map(|c| &c.spec().file);
    kernels.chain(cores).chain(SHARED)
}

/// The file that `#import name` stands for.
pub(super) fn imported(name: &str) -> Option<&'static File> {
    SHARED.iter().find(|f| f.name == name)
}
