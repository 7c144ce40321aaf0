//! Kinds of work, by which profiles sum.

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
}
