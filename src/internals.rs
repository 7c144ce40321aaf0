//! What tests and tools of this repository look into: the floors below a [`Model`](crate::Model), benchmarks and
//! verification. No promises: a patch release may change any of it.

/// Benchmarks with weights by formula.
pub mod bench {
    pub use crate::bench::*;
}
/// Plans run on a device.
pub mod engine {
    pub use crate::engine::*;
}
/// Facts about families of models.
pub mod families {
    pub use crate::families::*;
}
/// Files looked for by name.
pub mod folder {
    pub use crate::folder::*;
}
/// Networks as operations.
pub mod graph {
    pub use crate::graph::*;
}
/// Shaders and their arguments, with references in f64.
pub mod kernels {
    pub use crate::kernels::*;
}
/// Networks of checkpoints.
pub mod model {
    pub use crate::model::*;
}
/// Rows through a UNet.
pub mod network {
    pub use crate::network::*;
}
/// Graphs as dispatches in memory.
pub mod plan {
    pub use crate::plan::*;
}
/// The text of shaders.
pub mod shader {
    pub use crate::shader::*;
}
/// Prompts to vectors.
pub mod text {
    pub use crate::text::*;
}
/// Results held against golden tensors.
pub mod verify {
    pub use crate::verify::*;
}
/// What of `checkpoint` is inside.
pub mod checkpoint {
    pub use crate::checkpoint::*;
    /// As there.
    pub mod digest {
        pub use crate::checkpoint::digest::*;
    }
    /// As there.
    pub mod key_maps {
        pub use crate::checkpoint::key_maps::*;
    }
}
/// What of `image` is inside.
pub mod image {
    pub use crate::image::*;
    /// As there.
    pub mod infotext {
        pub use crate::image::infotext::*;
    }
    /// As there.
    pub mod lettering {
        pub use crate::image::lettering::*;
    }
    /// As there.
    pub mod preview {
        pub use crate::image::preview::*;
    }
    /// As there.
    pub mod settings {
        pub use crate::image::settings::*;
    }
    /// As there.
    pub mod sheet {
        pub use crate::image::sheet::*;
    }
    /// As there.
    pub mod texts {
        pub use crate::image::texts::*;
    }
}
/// What of `latent` is inside.
pub mod latent {
    pub use crate::latent::*;
    /// As there.
    pub mod host {
        pub use crate::latent::host::*;
    }
    /// As there.
    pub mod value {
        pub use crate::latent::value::*;
    }
}
/// What of `guidance` is inside.
pub mod guidance {
    pub use crate::guidance::*;
    /// As there.
    pub mod backend {
        pub use crate::guidance::backend::*;
    }
}
/// What of `sampler` is inside.
pub mod sampler {
    pub use crate::sampler::*;
    /// As there.
    pub mod names {
        pub use crate::sampler::names::*;
    }
}
