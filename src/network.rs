//! The UNet as guidance uses it: rows in, denoised predictions out, in chunks that fit the memory.
//!
//! [`DeviceBackend`] keeps latents on the device from the first noise to the result. [`UnetNetwork`] is the same network
//! for guidance on the host: rows and predictions are latents in host memory, for references and custom guidance.

mod batching;
mod calls;
mod denoising;
mod device;
mod kind;
mod on_host;
mod plans;
mod preconditioning;
mod prompts;
mod sink;

pub use batching::{Batching, Planner};
pub use calls::{NetworkCalls, Unet};
pub use denoising::DenoisingNetwork;
pub(crate) use device::bytes_of;
pub use device::{DeviceBackend, NetworkFacts};
pub use kind::RowKind;
pub use on_host::UnetNetwork;
pub use plans::Plans;
pub use sink::{AHEAD, Buffer, DeviceSink, Sink};
