//! Modules for tests and tools of this repository: the layers below a [`Model`](crate::Model), benchmarks and
//! verification. Not stable: a patch release may change any of it.

/// Benchmarks with generated weights.
pub mod bench {
    pub use crate::bench::*;
}
/// Runs plans on a device.
pub mod engine {
    pub use crate::engine::*;
}
/// Facts about families of models.
pub mod families {
    pub use crate::families::*;
}
/// Files found by name.
pub mod folder {
    pub use crate::folder::*;
}
/// Networks as graphs of operations.
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
/// Calls of a UNet.
pub mod network {
    pub use crate::network::*;
}
/// Graphs as dispatches with places in memory.
pub mod plan {
    pub use crate::plan::*;
}
/// WGSL text of kernels.
pub mod shader {
    pub use crate::shader::*;
}
/// Tokenizer, text encoders and prompt syntax.
pub mod text {
    pub use crate::text::*;
}
/// Kernels that are checked at the first start.
pub mod trust {
    pub use crate::trust::*;
}
/// Results compared with golden tensors.
pub mod verify {
    pub use crate::verify::*;
}
/// `checkpoint` with its private modules.
pub mod checkpoint {
    pub use crate::checkpoint::*;
    /// See the private module.
    pub mod digest {
        pub use crate::checkpoint::digest::*;
    }
    /// See the private module.
    pub mod key_maps {
        pub use crate::checkpoint::key_maps::*;
    }
}
/// `image` with its private modules.
pub mod image {
    pub use crate::image::*;
    /// See the private module.
    pub mod infotext {
        pub use crate::image::infotext::*;
    }
    /// See the private module.
    pub mod lettering {
        pub use crate::image::lettering::*;
    }
    /// See the private module.
    pub mod preview {
        pub use crate::image::preview::*;
    }
    /// See the private module.
    pub mod settings {
        pub use crate::image::settings::*;
    }
    /// See the private module.
    pub mod sheet {
        pub use crate::image::sheet::*;
    }
    /// See the private module.
    pub mod texts {
        pub use crate::image::texts::*;
    }
}
/// `latent` with its private modules.
pub mod latent {
    pub use crate::latent::*;
    /// See the private module.
    pub mod host {
        pub use crate::latent::host::*;
    }
    /// See the private module.
    pub mod value {
        pub use crate::latent::value::*;
    }
}
/// `guidance` with its private modules.
pub mod guidance {
    pub use crate::guidance::*;
    /// See the private module.
    pub mod backend {
        pub use crate::guidance::backend::*;
    }
}
/// `sampler` with its private modules.
pub mod sampler {
    pub use crate::sampler::*;
    /// See the private module.
    pub mod names {
        pub use crate::sampler::names::*;
    }
}
