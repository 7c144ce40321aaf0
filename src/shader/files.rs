//! WGSL files. Those of kernels and cores are in their specs; the others, which they share, are listed here.

/// A WGSL file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct File {
    /// Its path in `shaders/` without `.wgsl`.
    pub name: &'static str,
    /// What is in it.
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

/// How activations and weights are stored.
pub(super) const ELEMENT: File = file!("types/element");

/// How the result is.
pub(super) const RESULT: File = file!("types/result");

/// What products and attention read at once.
pub(super) const WIDE: File = file!("types/wide");

/// Cooperative matrices for devices without.
pub(super) const SOFTWARE_MATRICES: File = file!("helpers/software_matrices");

/// What `#import` lines name, and what every text has.
pub const SHARED: &[File] = &[
    file!("cores/attention"),
    file!("cores/attention_quads"),
    file!("cores/epilogue"),
    file!("cores/gemm"),
    file!("cores/gemm_cooperative_walk"),
    file!("cores/epilogue_inputs"),
    file!("helpers/activation"),
    file!("helpers/grid"),
    file!("helpers/latents"),
    file!("helpers/moments"),
    file!("helpers/of_lane"),
    file!("helpers/rows"),
    file!("helpers/scalars"),
    file!("helpers/sum_all"),
    file!("types/matrix"),
    file!("types/weight"),
    ELEMENT,
    RESULT,
    SOFTWARE_MATRICES,
    WIDE,
];

/// The file that `#import name` names.
pub(super) fn imported(name: &str) -> Option<&'static File> {
    SHARED.iter().find(|f| f.name == name)
}
